"""Runs `trimtab train CONFIG --run RUN` again and again, and ends each attempt by a signal at a random moment.

    python attempts.py CONFIG PLAIN RUN SEED KILLS TERMS

Every attempt is a process of its own, forked from this one, which has imported what takes seconds to import. At last
one is left alone; PLAIN is a run in which all is. Prints one JSON object: exit codes, and how many children an attempt
had left behind when it was killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import torch  # noqa: F401
from torch.utils import flop_counter  # noqa: F401

import trimtab.trainer  # noqa: F401
from trimtab.cli import main


def attempt(config: str, run: Path) -> int:
    """Fork a process that trains; gives its pid."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["trimtab", "train", config, "--run", str(run)]
    code = 70
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def seen(run: Path) -> tuple[int, int]:
    """Attempts that came as far as their first step, and windows that the newest of them has told."""
    record = run / "record.jsonl"
    parts = record.read_bytes().split(b'"event":"RunStarted"') if record.exists() else [b""]
    return len(parts) - 1, parts[-1].count(b'"event":"StepsEnded"')


def code_of(pid: int) -> int:
    """Exit code of a child, negative for a signal; waits for its end."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def disturb(config: str, run: Path, seed: int, kills: int, terms: int) -> dict[str, list[int]]:
    """Exit codes by signal, in their order, and children left behind."""
    order = random.Random(seed)
    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    order.shuffle(signals)
    told: dict[str, list[int]] = {"SIGKILL": [], "SIGTERM": [], "left": [], "last": []}
    for number in signals:
        before, pid = seen(run)[0], attempt(config, run)
        windows = order.randrange(-1, 4)  # -1: while it starts
        while windows >= 0 and (seen(run)[0] == before or seen(run)[1] < windows) and not _is_over(pid):
            time.sleep(0.001)
        time.sleep(order.uniform(0.0, 0.1 if windows < 0 else 0.01))
        children = psutil.Process(pid).children(recursive=True)
        os.kill(pid, number)
        code = code_of(pid)
        told[number.name].append(code)
        _, alive = psutil.wait_procs(children, timeout=5)
        told["left"].append(len(alive))
        if code not in (-number, 75):  # it came to its end before the signal
            return told | {"last": [code]}
    told["last"].append(code_of(attempt(config, run)))
    return told


def _is_over(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


if __name__ == "__main__":
    config, plain, run, *numbers = sys.argv[1:]
    alone = code_of(attempt(config, Path(plain)))
    print(json.dumps(disturb(config, Path(run), *map(int, numbers)) | {"plain": [alone]}))
