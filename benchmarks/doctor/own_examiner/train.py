"""One run in a process of its own, through trimtab's public interface."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from own_examiner.case import PRESETS, Case
from own_examiner.data import write
from own_examiner.modules import MODULES, Whole
from trimtab import Trainer, load_config
from trimtab.events import Event, StepsEnded

WORKERS: Final = multiprocessing.get_context("forkserver")
WORKERS.set_forkserver_preload(["own_examiner.train"])
LIMIT_SECONDS: Final = 90.0
PER_STEP: Final = ("train/loss", "step_seconds", "data_seconds")


class Kill:
    """Kills this process at a step, as a machine that goes down."""

    def __init__(self, step: int) -> None:
        self.step = step

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(case: Case, folder: Path) -> dict[str, Any]:
    """Train `case` into `folder`/run, and say how it went."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if case.pretrained:
        whole = {name: it for name, it in case.settings.items() if name != "model"}
        before = replace(case, seed=case.seed + 1, settings=whole, pretrained=0).but(training__steps=case.pretrained)
        _in_process(_fit, before, folder / "before", None)
    if case.killed_at is not None:
        _in_process(_fit, case, folder, case.killed_at)
        case = replace(case, settings=case.settings | case.resumed.get("settings", {}))
        if "module" in case.resumed:
            case = case.with_module(**case.resumed["module"])
    _in_process(_fit, case, folder, None)
    return outcome(folder)


def outcome(folder: Path) -> dict[str, Any]:
    """What the run came to, read from its record."""
    found: dict[str, Any] = {"validation": [], "accuracy": [], "train": [], "status": "none"}
    found |= {"seconds": [], "data_seconds": [], "memory": [], "r2": []}
    record = folder / "run" / "record.jsonl"
    for line in record.read_text().splitlines() if record.exists() else ():
        event = json.loads(line)
        if event["event"] == "EvaluationEnded":
            metrics = event["metrics"]
            found["validation"].append((event["step"], float(metrics["validation/loss"])))
            if "validation/r2" in metrics:
                found["r2"].append(float(metrics["validation/r2"]))
            if "validation/accuracy" in metrics:
                found["accuracy"].append((event["step"], float(metrics["validation/accuracy"])))
        elif event["event"] == "StepsEnded":
            steps = range(event["first_step"], event["last_step"] + 1)
            columns = {name: _column(event["per_step"].get(name, 0.0), len(steps)) for name in PER_STEP}
            found["train"] += list(zip(steps, columns["train/loss"], strict=False))
            found["seconds"] += columns["step_seconds"]
            found["data_seconds"] += columns["data_seconds"]
            if "memory_bytes" in event["values"]:
                found["memory"].append(event["values"]["memory_bytes"])
        elif event["event"] == "RunEnded":
            found["status"], found["reason"] = event.get("status"), event.get("reason")
    error = folder / "error.txt"
    if error.exists():
        found["error"] = error.read_text()
    return found


def _column(values: Any, count: int) -> list[float]:
    """A value for each step: what did not change is one number in the record."""
    return [float(one) for one in (values if isinstance(values, list) else [values] * count)]


def _in_process(function: Any, *arguments: Any) -> None:
    process = WORKERS.Process(target=function, args=arguments)
    process.start()
    process.join(LIMIT_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


@contextmanager
def told_in(folder: Path) -> Iterator[None]:
    """What the interface refuses, and runs that fail, in error.txt: truth.json tells it."""
    try:
        yield
    except Exception as error:
        (folder / "error.txt").write_text(f"{type(error).__name__}: {error}\n")


def fit(trainer: Trainer, case: Case, folder: Path) -> None:
    """Train, and keep the weights of a module of one's own."""
    trainer.fit()
    if case.module and trainer.model is not None:
        torch.save(trainer.model.state_dict(), folder / "weights.pt")


def _fit(case: Case, folder: Path, killed_at: int | None) -> None:
    torch.set_num_threads(1)
    training, validation = write(folder / "data", case.kind, case.seed, case.data)
    settings = {
        "data.source": {"name": "jsonl", "path": str(training)},
        "data.validation_source": {"name": "jsonl", "path": str(validation)},
        **case.settings,
    }
    with told_in(folder):
        config = load_config(PRESETS[case.kind], [f"{name}={json.dumps(value)}" for name, value in settings.items()])
        trainer = Trainer(
            config,
            run=folder / "run",
            model=_module(case, folder),
            monitors=[] if killed_at is None else [Kill(killed_at)],
            accept_drift=bool(case.resumed) and killed_at is None,
        )
        fit(trainer, case, folder)


def _module(case: Case, folder: Path) -> nn.Module | None:
    if case.module is None:
        return None
    torch.manual_seed(case.seed)
    name, arguments = case.module
    module = MODULES[name](**arguments)
    weights = folder / "before" / "weights.pt"
    if weights.exists():
        kept = torch.load(weights)
        module.load_state_dict({key.removeprefix("module."): value for key, value in kept.items()})
    return Whole(module, **case.whole) if case.whole else module


def described(case: Case) -> dict[str, Any]:
    """The case as JSON."""
    return asdict(case)
