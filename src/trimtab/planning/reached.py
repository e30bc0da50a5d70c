"""What a run reached, from its record: seconds a step, waiting for data, memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import UsageError
from trimtab.events import RunStarted, StepsEnded
from trimtab.planning.devices import named
from trimtab.runs import RunDirectory
from trimtab.runs.files import read_json
from trimtab.runs.record import RecordReader, event_from_json, surviving

_WARMUP: Final = 2
"""First steps of an attempt, which compile, capture and fill caches."""


@final
@dataclass(frozen=True, slots=True)
class Reached:
    """Of the steps of a run, but for the first of each attempt."""

    num_steps: int
    step_seconds: float
    """Median."""
    quartiles: tuple[float, float]
    data_seconds: float
    """Mean seconds a step that were spent waiting for data."""
    mean_seconds: float
    tokens_per_second: float
    """At the median step."""
    memory_bytes: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def reached_by(run: RunDirectory) -> Reached:
    """What the record of `run` tells. Raises: UsageError for a run with too few steps to say."""
    steps: list[NDArray[Any]] = []
    waited: list[NDArray[Any]] = []
    tokens: list[NDArray[Any]] = []
    memory: float | None = None
    skip = 0
    for line in surviving(RecordReader(run.record).read()):
        try:
            event = event_from_json(line)
        except ValueError:  # of another version
            continue
        if not isinstance(event, StepsEnded):
            skip = _WARMUP if isinstance(event, RunStarted) else skip
            continue
        values = event.per_step
        if "step_seconds" in values:
            kept = slice(min(skip, len(values["step_seconds"])), None)
            skip = max(0, skip - len(values["step_seconds"]))
            steps.append(np.asarray(values["step_seconds"])[kept])
            waited.append(np.asarray(values.get("data_seconds", np.zeros(0)))[kept])
            tokens.append(np.asarray(values.get("tokens", np.zeros(0)))[kept])
        memory = event.values.get("memory_bytes", memory)
    seconds = np.concatenate(steps) if steps else np.zeros(0)
    if len(seconds) < 3:
        raise UsageError(f"{run.path}: {len(seconds)} steps after the first say nothing of its speed")
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return Reached(
        num_steps=len(seconds),
        step_seconds=float(middle),
        quartiles=(float(low), float(high)),
        data_seconds=float(np.concatenate(waited).mean()) if any(map(len, waited)) else 0.0,
        mean_seconds=float(seconds.mean()),
        tokens_per_second=float(np.concatenate(tokens).mean() / middle) if any(map(len, tokens)) else 0.0,
        memory_bytes=memory,
    )


def device_of(run: RunDirectory) -> str:
    """What `--device` would be for what `run` was trained on; `this` for a processor.

    Raises: UsageError for a GPU that the table does not have.
    """
    plan = choices_of(run)
    if not str(plan.get("device", "cpu")).startswith("cuda"):
        return "this"
    hardware = read_json(run.environment).get("hardware", {}) if run.environment.exists() else {}
    label = str(hardware.get("gpu") or "")
    if (name := named(label)) is None:
        raise UsageError(
            f"the ceilings of {label or 'its GPU'} are not known here", hint="name the nearest with --device"
        )
    return name


def choices_of(run: RunDirectory) -> Mapping[str, Any]:
    """What training chose by measuring."""
    return read_json(run.plan) if run.plan.exists() else {}
