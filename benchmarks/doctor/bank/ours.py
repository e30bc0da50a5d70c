"""Runs of trimtab's own trainer, with what a fault or an oddity makes of them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bank.ours_faults import PLANT
from bank.ours_healthy import TURN
from bank.patches import KilledOnce
from bank.practices import PRACTISE
from bank.scenario import HEALTHY, Scenario
from bank.setup import Setup, begin
from bank.spread import keep_sound, way_of
from bank.twins import become_twin

if TYPE_CHECKING:
    from trimtab.config import Config


def prepare_run(scenario: Scenario, folder: Path, data: Path, *, twin: bool = False) -> Setup:
    """The run before it begins; a `twin` of a faulty one has nothing planted."""
    setup = begin(scenario, folder, data)
    if twin:
        become_twin(setup)
    else:
        plant_in(setup)
    return setup


def plant_in(setup: Setup) -> None:
    """What the run is named for; a fault of the part `spread` in another way in each round."""
    scenario = setup.scenario
    if scenario.code == HEALTHY:
        if scenario.variant in PRACTISE:
            PRACTISE[scenario.variant](setup, scenario.draw("practice"))
        else:
            TURN[scenario.variant](setup)
        if scenario.part == "spread":
            keep_sound(setup)
    elif scenario.part == "spread":
        from bank.ways import ways

        way_of(scenario, ways(scenario.variant))(setup)
    else:
        PLANT[scenario.variant](setup)


def config_of(setup: Setup) -> Config:
    """Its settings as a configuration."""
    from trimtab.config import load_config

    return load_config("gpt-1m", [f"{name}={json.dumps(value)}" for name, value in setup.settings.items()])


def train(setup: Setup, path: Path, *, again: bool = False, config: Config | None = None) -> None:
    """Train in this process, which is changed by what is planted; `again` when a killed run is resumed.

    With another `config` what is planted in code, and what is given from elsewhere, stays as it is.
    """
    from trimtab.trainer import Trainer

    for patch in [*setup.patches, *(setup.resumed_patches if again else [])]:
        patch()
    config = config_of(setup) if config is None else config
    tokenizer: dict[str, Any] = setup.settings["data.tokenizer"]
    vocabulary = tokenizer.get("vocabulary_size", 257)
    with contextlib.redirect_stdout(io.StringIO()):
        Trainer(
            config,
            run=path,
            model=None if setup.model is None else setup.model(vocabulary, config.seed),
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
