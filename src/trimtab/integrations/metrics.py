"""Metrics that another trainer logs, under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trimtab.runs.importers.cells import number
from trimtab.runs.importers.names import meaning, words
from trimtab.runs.importers.vocabulary import EPOCHS, SIDES, STEPS, TIMES

_MEASURED_HERE: Final = ("learning_rate", "step_seconds", "data_seconds", "memory_bytes")
_COSTS: Final = ("runtime", "samples_per_second", "steps_per_second", "jit_compilation_time", "model_preparation_time")


def of_training(logged: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a training log; unknown ones as `user/<name>`, what is measured here left out."""
    values: dict[str, float] = {}
    for name, cell in logged.items():
        value = _scalar(cell)
        plain = words(name)
        if value is None or plain in STEPS or plain in EPOCHS or plain in TIMES or _side(plain) == "validation":
            continue
        known = meaning(name)
        ours = known.ours if known is not None else f"user/{name}"
        if ours not in _MEASURED_HERE:
            values.setdefault(ours, value * ((known.factor if known else None) or 1.0))
    return values


def of_evaluation(logged: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation: `eval_loss` is validation/loss, `eval_news_loss` validation/news/loss."""
    values: dict[str, float] = {}
    for name, cell in logged.items():
        value = _scalar(cell)
        plain = words(name)
        first, _, rest = plain.partition("_")
        if value is None or _side(plain) != "validation" or plain.endswith(_COSTS):
            continue
        known = meaning(name)
        if known is not None:
            ours = known.ours
        elif first in SIDES:
            one, _, metric = rest.rpartition("_")
            ours = f"validation/{one}/{metric}" if one and metric in ("loss", "accuracy", "perplexity") else rest
            ours = ours if ours.startswith("validation/") else f"validation/{rest}"
        else:
            ours = f"validation/{plain.rpartition('_')[0]}"
        values.setdefault(ours, value)
    return values


def _side(plain: str) -> str | None:
    parts = plain.split("_")
    sides = {SIDES[part] for part in (parts[0], parts[-1]) if part in SIDES}
    return "validation" if sides & {"validation", "test"} else "train" if sides else None


def _scalar(cell: Any) -> float | None:
    """A number from a number or a tensor of one; a tensor on a device is waited for."""
    if hasattr(cell, "item"):
        if getattr(cell, "numel", lambda: 1)() != 1:
            return None
        cell = cell.item()
    return number(cell) if not isinstance(cell, str) else None
