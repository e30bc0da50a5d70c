"""One run of the second set in a process of its own: from Python, or as a file through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from own_examiner.case import Case
from own_examiner.second.around import MONITORS, Around, Changes
from own_examiner.second.modules import MODULES
from own_examiner.second.spoil import spoiled
from own_examiner.second.tasks import family
from own_examiner.train import LIMIT_SECONDS, WORKERS, Kill, _in_process, fit, outcome, told_in
from trimtab import Trainer, load_config
from trimtab.config import dump_config

PRESETS = {"text": "gpt-1m", "number": "regression", "pairs": "translation"}
WORKERS.set_forkserver_preload(["own_examiner.train", "own_examiner.second.train"])


def train(case: Case, folder: Path) -> dict[str, Any]:
    """Train `case` into `folder`/run, and say how it went."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if case.pretrained:
        before = replace(case, seed=case.seed + 1, pretrained=0).but(training__steps=case.pretrained)
        fit = replace(before, whole={}, data={name: it for name, it in case.data.items() if name != "after"})
        _in_process(_fit, fit, folder / "before", None)
    if case.killed_at is not None:
        _in_process(_fit, case, folder, case.killed_at)
        changed = case.resumed
        case = replace(case, settings=case.settings | changed.get("settings", {}),
                       data=case.data | changed.get("data", {}))  # fmt: skip
    begun = time.time()
    if case.module is None and case.killed_at is None and case.seed % 3 == 0 and not case.whole:
        _by_command(case, folder)
    else:
        _in_process(_fit, case, folder, None)
    return outcome(folder) | {"wall": time.time() - begun}


def _settings(case: Case, folder: Path) -> dict[str, Any]:
    training, validation = spoiled(folder / "data", case.kind, case.seed, case.data)
    return {
        "data.source": {"name": "jsonl", "path": str(training)},
        "data.validation_source": {"name": "jsonl", "path": str(validation)},
        **case.settings,
    }


def _by_command(case: Case, folder: Path) -> None:
    """Write run.yaml, and train it as users do from a terminal."""
    settings = [f"{name}={json.dumps(value)}" for name, value in _settings(case, folder).items()]
    config = load_config(PRESETS.get(family(case.kind), "encoder-1m"), settings)
    (folder / "run.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "trimtab.cli", "train", str(folder / "run.yaml"), "--run", str(folder / "run")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
        if done.returncode:
            (folder / "error.txt").write_text(done.stderr[-2000:])
    except subprocess.TimeoutExpired:
        (folder / "error.txt").write_text("it took too long\n")


def _fit(case: Case, folder: Path, killed_at: int | None) -> None:
    torch.set_num_threads(1)
    around = dict(case.whole)
    monitors: list[Any] = [] if killed_at is None else [Kill(killed_at)]
    monitors += [MONITORS[name](around.pop(name)) for name in MONITORS if name in around]
    changes = around.pop("changes", None)
    with told_in(folder):
        items = [f"{name}={json.dumps(value)}" for name, value in _settings(case, folder).items()]
        module = _module(case, around, folder)
        trainer = Trainer(
            load_config(PRESETS.get(family(case.kind), "encoder-1m"), items),
            run=folder / "run",
            model=module,
            monitors=monitors,
            controllers=[Changes(**changes)] if changes else [],
            accept_drift=bool(case.resumed) and killed_at is None,
        )
        fit(trainer, case, folder)


def _module(case: Case, around: dict[str, Any], folder: Path) -> nn.Module | None:
    if case.module is None:
        return None
    torch.manual_seed(case.seed)
    name, arguments = case.module
    module = MODULES[name](**arguments)
    weights = folder / "before" / "weights.pt"
    if weights.exists():
        kept = {key.removeprefix("module."): value for key, value in torch.load(weights).items()}
        module.load_state_dict(kept)
    return Around(module, **around) if around else module


os.environ.setdefault("HF_HUB_OFFLINE", "1")
