"""Makes the runs of a plan, one process each, and goes on where it was stopped.

The parent loads torch once; each run is a fork of it, so that what is planted in trimtab's parts ends with the run.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from bank import clock
from bank.catalogue import FAULTS
from bank.grounds import data_of
from bank.plan import sound_kinds
from bank.scenario import HEALTHY, Scenario, Truth

TOOK_LONGER: Final = "took longer than"
LIMIT_SECONDS: Final = 150.0
"""Of the clock: on a busy machine a run of ten seconds takes its time."""


_DIES_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG of Linux: who stops the bank stops the run that is being made."""


def generator_hash() -> str:
    """SHA-256 of all sources of the bank that runs depend on."""
    names = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256()
    for name in names:
        if name.stem not in ("score", "archive", "cure", "peers", "__main__", "table"):
            digest.update(name.name.encode() + name.read_bytes())
    return digest.hexdigest()


def preload(loggers: Collection[str]) -> None:
    """Import what the runs of these loggers need, before the first fork."""
    import torch

    import trimtab.trainer  # noqa: F401
    from bank import experiment_faults, experiment_healthy, ours  # noqa: F401
    from trimtab.config import load_config

    load_config("gpt-1m", [])  # builds the models of the configuration
    if {"huggingface", "lightning"} & set(loggers):
        from transformers import Trainer  # noqa: F401
    if "lightning" in loggers:
        import lightning.pytorch.callbacks
        import lightning.pytorch.loggers  # noqa: F401
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # forks need not walk over all of this


def generate(
    scenarios: Iterable[Scenario],
    folder: Path,
    *,
    minutes: float,
    twins: bool = False,
    watched: bool = False,
    report: Callable[[str], None] = print,
) -> int:
    """Make those that are not there yet, for so many minutes; gives how many were made.

    `watched`: with trimtab's callback in the trainers that have one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenarios = list(scenarios)
    preload({one.logger for one in scenarios})
    end, made, known = time.monotonic() + 60.0 * minutes, 0, generator_hash()
    for scenario in scenarios:
        if time.monotonic() > end:
            break
        place = folder / scenario.name
        if (place / "truth.json").exists() or (place / "failed.txt").exists():
            continue
        data = data_of(scenario, folder.parent)
        seconds = make(scenario, place, data, known, twins=twins, watched=watched)
        made += 1
        told = f"{seconds:6.1f} s" if (place / "truth.json").exists() else "failed  "
        report(f"{told}  {scenario.name}")
    return made


def make(
    scenario: Scenario, place: Path, data: Path, known: str, *, twins: bool = False, watched: bool = False
) -> float:
    """One run in `place`: the log in `run`, what is true of it in truth.json, and what a callback of trimtab wrote in
    `watched`. Gives the seconds that it took."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    begun = time.monotonic()
    problem = in_a_fork(lambda: _run(scenario, place, data, known, watched=watched), place)
    if problem is None and not (place / "truth.json").exists():  # killed, as planned: it goes on
        problem = in_a_fork(lambda: _run(scenario, place, data, known, again=True), place)
    if problem is None and twins and scenario.code != HEALTHY:
        problem = in_a_fork(lambda: _twin(scenario, place, data), place)
    seconds = time.monotonic() - begun
    if problem is not None:
        (place / "truth.json").unlink(missing_ok=True)
        (place / "failed.txt").write_text(problem, encoding="utf-8")
    return seconds


def in_a_fork(act: Callable[[], None], place: Path, limit_seconds: float = LIMIT_SECONDS) -> str | None:
    """What went wrong, or None: also when the process killed itself by SIGKILL, as killed runs do."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        try:
            sink = os.open(place / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    end = time.monotonic() + limit_seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGTERM)
            time.sleep(0.5)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"{TOOK_LONGER} {limit_seconds:g} s"
        time.sleep(0.02)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and not (place / "again").exists():
        (place / "again").write_text("")
        return None
    if status != 0:
        output = (place / "output.txt").read_text(encoding="utf-8", errors="replace")
        return f"ended with status {status}\n{output[-6000:]}"
    return None


def _run(
    scenario: Scenario, place: Path, data: Path, known: str, *, again: bool = False, watched: bool = False
) -> None:
    begun = time.monotonic()
    if scenario.code != "thread-oversubscription":  # whose time is that of many threads
        clock.install()
    if scenario.logger == "trimtab":
        steps, onset, failure = _ours(scenario, place, data, again)
    else:
        steps, onset, failure = _theirs(scenario, place, data, watched)
    sentence = (sound_kinds(scenario.part) if scenario.code == HEALTHY else FAULTS)[scenario.variant].sentence
    if failure:
        print(failure)
    truth = Truth(
        part=scenario.part,
        name=scenario.name,
        logger=scenario.logger,
        task=scenario.task,
        code=scenario.code,
        variant=scenario.variant,
        severity=scenario.severity,
        onset=onset,
        steps=steps,
        sentence=sentence,
        twin=None,
        seconds=round(time.monotonic() - begun, 2),
        generator=known,
    )
    aside = place / "truth.part"
    aside.write_text(json.dumps(truth.to_json(), indent=1), encoding="utf-8")
    aside.rename(place / "truth.json")


def _ours(scenario: Scenario, place: Path, data: Path, again: bool) -> tuple[int, int | None, str]:
    from bank import ours

    setup = ours.prepare_run(scenario, place, data)
    failure = train(lambda: ours.train(setup, place / "run", again=again))
    onset = _turn(scenario, place / "run") if setup.onset_is_turn else setup.onset
    if setup.killed_at is not None and scenario.code != HEALTHY:
        onset = (ours.resumed_at(place / "run") or 0) + 1
    thin(place / "run")
    return setup.steps, onset, failure


def _theirs(scenario: Scenario, place: Path, data: Path, watched: bool) -> tuple[int, int | None, str]:
    from bank import experiment_faults, experiment_healthy
    from bank.experiment import begin

    it = begin(scenario, data)
    if scenario.code == HEALTHY:
        experiment_healthy.TURN[scenario.variant](it)
    else:
        experiment_faults.PLANT[scenario.variant](it)
    if scenario.logger in ("csv", "jsonl"):
        from bank import bare

        bare.train(it, place / "run")
    else:
        if scenario.logger == "huggingface":
            from bank.huggingface import train as drive
        else:
            from bank.lightning import train as drive
        drive(it, place / "run", place / "watched" if watched else None)
    onset = it.onset
    if it.onset_is_turn:
        onset = _turn(scenario, next(one for one in place.iterdir() if one.stem == "run"))
    return it.steps, onset, ""


def _turn(scenario: Scenario, log: Path) -> int:
    """The step of the lowest validation loss.

    Raises: SystemExit where it does not rise again; and where the accuracy goes on improving, of what is planted as
        overfitting, or does not, of what is planted as overconfident: then the fault is not there, or the other one.
    """
    from bank.score import case_of

    case = case_of(log, scenario.logger)
    series, accuracy = case.validation_loss(), case.history.get("validation/accuracy")
    steps, values = series.finite() if series is not None else ((), ())
    if len(values) < 3 or values[-1] < 1.03 * min(values):
        raise SystemExit("the validation loss does not turn up")
    turn = int(values.argmin())  # type: ignore[union-attr]
    is_text = scenario.task in ("lm", "seq2seq") or (scenario.logger == "trimtab" and scenario.task in ("mlp", "cnn"))
    if accuracy is not None and not is_text:
        right = accuracy.finite()[1]
        gain = float(right[-max(1, (len(right) - turn) // 2) :].mean() - right[max(0, turn - 1) : turn + 2].mean())
        if (gain > 0.01) != (scenario.code == "overconfident"):
            raise SystemExit(f"the accuracy changes by {gain:.3f} after the validation loss has turned up")
    elif scenario.code == "overconfident":
        raise SystemExit("no accuracy was logged")
    return int(steps[turn])


def train(act: Callable[[], None]) -> str:
    """Train; a run that ends in an error of numerics has a log all the same."""
    from trimtab.errors import NumericsError

    try:
        act()
    except NumericsError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def thin(run: Path) -> None:
    """Leave what a doctor reads: no weights, no report."""
    for name in ("checkpoints", "artifacts", "report.html", "diagnosis.json"):
        path = run / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _twin(scenario: Scenario, place: Path, data: Path) -> None:
    """The same run without its fault."""
    from bank import ours

    folder = place / "twin"
    folder.mkdir()
    ours.train(ours.prepare_run(scenario, folder, data, twin=True), folder / "run")
    thin(folder / "run")
    path = place / "truth.json"
    told = json.loads(path.read_text(encoding="utf-8")) | {"twin": "twin/run"}
    path.write_text(json.dumps(told, indent=1), encoding="utf-8")
