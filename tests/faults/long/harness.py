"""Runs `trimtab` in processes that are forked from one which has imported torch, and ways to hurt them.

What runs is the command line, `trimtab.cli.main`, with its arguments, its own process group, its own log: a process of
its own for the kernel, for signals and for strace. Only importing torch, a second of each start, is spared.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import judge

import trimtab.cli
import trimtab.trainer

CONFIG = """
name: faulty
seed: 7
data:
  source: {{name: text, path: {text}}}
  tokenizer: {{name: bytes}}
  sequence_length: 24
model: {{name: decoder, num_layers: 1, hidden_size: 16, num_heads: 2, dropout: {{residual: 0.1, embedding: 0.1}}}}
optimizer: {{name: adamw, learning_rate: 5e-3}}
schedule: {{name: cosine, warmup: 10, floor: 0.1}}
training: {{steps: 60, micro_batch_size: 2, accumulation: 2, threads: 1, device: cpu, compile: "off"}}
logging: {{every: 7}}
evaluation: {{every: 20, gap_tokens: 256, max_tokens: 768, yardsticks: false, samples: {{max_tokens: 0}}}}
checkpoint: {{every: 11, keep_latest: 3}}
stopping: {{name: none}}
"""
SOURCES = ("json/decoder.py", "heapq.py")


@dataclass
class Outcome:
    """What a case came to."""

    case: str
    tries: int = 0
    passed: int = 0
    note: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    """Of what kinds the tries were, or what they met."""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def told(self) -> str:
        """The counts and the note."""
        counted = ", ".join(f"{count:,} {what}" for what, count in self.counts.items() if count)
        return "; ".join(part for part in (counted, self.note) if part)

    def take(self, right: bool, why: Callable[[], str] | str) -> None:
        """Count a try; `why` tells of one that failed."""
        self.tries += 1
        self.passed += bool(right)
        if not right:
            self.failures.append(why if isinstance(why, str) else why())


class Child:
    """A process that runs the command line."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log
        self.code: int | None = None
        """Exit code, or minus the number of the signal that ended it."""

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code. One that does not end is killed, and a TimeoutError."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"did not end in {seconds:.0f} s:\n{self.told()}")
            time.sleep(0.002)
        return code

    def told(self) -> str:
        return self.log.read_text(errors="replace")


class Place:
    """A folder with a configuration, a text, and a cache that all places share."""

    def __init__(self, folder: Path, cache: Path, seed: int = 0) -> None:
        self.folder, self.cache = folder, cache
        self.random = random.Random(f"{folder.name}-{seed}")
        folder.mkdir(parents=True)
        self.text = folder / "text"
        self.text.mkdir()
        for name in SOURCES:
            source = Path(os.__file__).parent / name
            (self.text / source.name).write_text(source.read_text()[:2_400])
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG.format(text=self.text))
        self.environment = {"OMP_NUM_THREADS": "1", "TRIMTAB_CACHE": str(cache), "NO_COLOR": "1"}
        self._num = 0

    def path(self, name: str = "run") -> Path:
        """A path that nobody has used."""
        self._num += 1
        return self.folder / f"{name}-{self._num:04d}"

    def start(
        self,
        *arguments: str | Path,
        file_limit_bytes: int | None = None,
        powerless: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> Child:
        """Run the command line. `powerless`: without root's right to write anywhere; `before` is called in it."""
        log = self.path("log")
        log.touch()
        pid = os.fork()
        if pid:
            return Child(pid, log)
        try:
            self._become(log, file_limit_bytes, powerless)
            before()
            sys.argv = ["trimtab", *map(str, arguments)]
            trimtab.cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else ended.code is not None
            _leave(code)
        except BaseException:
            traceback.print_exc()
        return _leave(99)

    def _become(self, log: Path, file_limit_bytes: int | None, powerless: bool) -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ.update(self.environment)
        os.chdir(self.folder)
        if file_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
        if powerless and not os.geteuid():
            _without_capabilities()

    def run(self, *arguments: str | Path, seconds: float = 120.0) -> tuple[int, str]:
        """Exit code and output of a command."""
        child = self.start(*arguments)
        return child.wait(seconds), child.told()

    def train(self, run: Path, *overrides: str) -> tuple[int, str]:
        return self.run("train", self.config, *overrides, "--run", run)

    def must(self, *arguments: str | Path) -> str:
        """The output of a command that has to succeed for a case to begin."""
        code, told = self.run(*arguments)
        if code:
            raise RuntimeError(f"{arguments}: exit {code}\n{told}")
        return told

    def whole(self, *overrides: str) -> tuple[Path, float]:
        """A run that nobody disturbs, and how many seconds it took."""
        run, begun = self.path("whole"), time.monotonic()
        self.must("train", self.config, *overrides, "--run", run)
        return run, time.monotonic() - begun

    def killed_at(self, run: Path, when: str, *overrides: str, number: int = signal.SIGKILL) -> int:
        """Train until `when` is in the record, then send a signal; gives the exit code."""
        child = self.start("train", self.config, *overrides, "--run", run)
        wait_for(run / "record.jsonl", when, child)
        child.send(number)
        return child.wait()

    def copied(self, run: Path) -> Path:
        copy = self.path("copy")
        shutil.copytree(run, copy)
        return copy


def _without_capabilities() -> None:
    """Root writes where it may not by CAP_DAC_OVERRIDE: give up all of those rights. See capset(2)."""
    version_3 = (0x20080522).to_bytes(4, "little") + (0).to_bytes(4, "little")
    if ctypes.CDLL(None, use_errno=True).capset(version_3, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(int(code))


def wait_for(path: Path, text: str, child: Child, seconds: float = 60.0) -> None:
    """Wait until `path` holds `text`. Raises: RuntimeError when the process ends before, or it takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_text(errors="replace"):
            return
        if child.poll() is not None:
            raise RuntimeError(f"ended with {child.code} before {text!r}:\n{child.told()}")
        time.sleep(0.003)
    child.send(signal.SIGKILL)
    raise RuntimeError(f"{text!r} did not come in {seconds} s:\n{child.told()}")


def events(run: Path, name: str) -> list[dict[str, object]]:
    """The events of a kind, read by the judge."""
    return [line for line in judge.events(run / "record.jsonl") if line["event"] == name]


def strace(child: Child, *rules: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Attach strace to a process that waits for it, with rules such as `inject=fsync:signal=KILL:when=3`; let it go."""
    command: Sequence[str] = ["strace", "-f", "-q", "-o", str(log or os.devnull)]
    command = [*command, *(part for rule in rules for part in ("-e", rule)), "-p", str(child.pid)]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not all(_is_traced(thread) for thread in Path(f"/proc/{child.pid}/task").iterdir()):
        if tracer.poll() is not None or time.monotonic() > deadline:
            child.send(signal.SIGKILL)
            raise RuntimeError(f"strace did not take hold ({tracer.poll()}): may processes be traced here?")
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGCONT)
    return tracer


def _is_traced(thread: Path) -> bool:
    return "TracerPid:\t0" not in (thread / "status").read_text()
