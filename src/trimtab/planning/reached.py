"""What a run reached, and what it was trained on: from its record, beside which a prediction is put."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, Fp32
from trimtab.config.training import AutoPrecision
from trimtab.errors import UsageError
from trimtab.events import Event
from trimtab.planning.devices import named
from trimtab.runs import RunDirectory
from trimtab.runs.files import read_json
from trimtab.runs.pace import Pace
from trimtab.runs.record import RecordReader, event_from_json, surviving


def reached_by(run: RunDirectory) -> Pace:
    """What the record of `run` tells. Raises: UsageError for a run with too few steps to say."""
    pace = Pace.of(_events(run))
    if pace is None:
        raise UsageError(f"{run.path}: its first steps alone say nothing of its speed", hint="it needs five or more")
    return pace


def _events(run: RunDirectory) -> Iterator[Event]:
    for line in surviving(RecordReader(run.record).read()):
        try:
            yield event_from_json(line)
        except ValueError:  # of another version
            continue


def device_of(run: RunDirectory) -> str:
    """What `--device` would be for what `run` was trained on; `this` for a processor.

    Raises: UsageError for a GPU that the table does not have.
    """
    if not str(choices_of(run).get("device", "cpu")).startswith("cuda"):
        return "this"
    hardware = read_json(run.environment).get("hardware", {}) if run.environment.exists() else {}
    label = str(hardware.get("gpu") or "")
    if (name := named(label)) is None:
        raise UsageError(
            f"the ceilings of {label or 'its GPU'} are not known here", hint="name the nearest with --device"
        )
    return name


def as_chosen(config: Config, choices: Mapping[str, Any]) -> Config:
    """`config` as it is trained: in fp32, where precision=auto came to that by measuring, and with what is computed
    again where recompute=auto found it (`choices` of plan.json)."""
    if config.training.recompute == "auto" and (found := choices.get("recompute")) is not None:
        training = config.training.model_copy(update={"recompute": found["chosen"]})
        config = config.model_copy(update={"training": training})
    choice = choices.get("precision_choice")
    if choice is None or choice["chosen"] != "fp32" or not isinstance(config.training.precision, AutoPrecision):
        return config
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": Fp32()})})


def choices_of(run: RunDirectory) -> Mapping[str, Any]:
    """What training chose by measuring."""
    return read_json(run.plan) if run.plan.exists() else {}
