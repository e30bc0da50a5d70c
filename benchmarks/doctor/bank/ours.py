"""Runs of trimtab's own trainer, with what a fault or an oddity makes of them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from bank.ours_faults import PLANT
from bank.ours_healthy import TURN
from bank.patches import KilledOnce
from bank.scenario import HEALTHY, Scenario
from bank.setup import Setup, begin


def prepare_run(scenario: Scenario, folder: Path, data: Path, *, twin: bool = False) -> Setup:
    """The run before it begins; a `twin` of a faulty one has its settings and seed, and nothing planted."""
    setup = begin(scenario, folder, data)
    if not twin:
        (TURN if scenario.code == HEALTHY else PLANT)[scenario.variant](setup)
    return setup


def train(setup: Setup, path: Path, *, again: bool = False) -> None:
    """Train in this process, which is changed by what is planted; `again` when a killed run is resumed."""
    from trimtab.config import load_config
    from trimtab.trainer import Trainer

    for patch in [*setup.patches, *(setup.resumed_patches if again else [])]:
        patch()
    values = [f"{name}={json.dumps(value)}" for name, value in setup.settings.items()]
    config = load_config("gpt-1m", values)
    tokenizer: dict[str, Any] = setup.settings["data.tokenizer"]
    vocabulary = tokenizer.get("vocabulary_size", 257)
    with contextlib.redirect_stdout(io.StringIO()):
        Trainer(
            config,
            run=path,
            model=None if setup.model is None else setup.model(vocabulary, setup.scenario.seed),
            make_optimizer=setup.make_optimizer,
            controllers=tuple(setup.controllers),
            monitors=[] if setup.killed_at is None else [KilledOnce(setup.killed_at)],
        ).fit()


def resumed_at(path: Path) -> int | None:
    """The step that the last attempt went on from."""
    found = None
    with (path / "record.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            if '"resumed_from"' in line:
                found = json.loads(line).get("resumed_from", found)
    return found
