"""What each setting acts on: the weights, or only how long a run is, how it is judged, or what is written of it."""

from __future__ import annotations

from typing import Any, Final, Literal

Acts = Literal["weights", "chance", "data", "length", "numerics", "judgement", "machine", "nothing"]
"""The weights; which of many equal runs it is; what is learned from; how long; how numbers are computed; how the run
is judged, and not the run; where it ran; none of these."""

ACTS_ON: Final[tuple[tuple[str, Acts], ...]] = (
    ("seed", "chance"),
    ("name", "nothing"),
    ("lint.", "nothing"),
    ("sinks", "nothing"),
    ("alerts.", "nothing"),
    ("hardware.", "nothing"),
    ("privacy.", "nothing"),
    ("profile.", "nothing"),
    ("logging.", "nothing"),
    ("doctor.live", "nothing"),
    ("evaluation.", "judgement"),
    ("data.validation", "judgement"),
    ("checkpoint.metric", "judgement"),
    ("checkpoint.", "nothing"),
    ("data.prefetch", "nothing"),
    ("data.workers", "nothing"),
    ("data.sequence_length", "weights"),
    ("data.", "data"),
    ("training.steps", "length"),
    ("stopping.", "length"),
    ("training.watchdog_seconds", "nothing"),
    ("training.precision.", "numerics"),
    ("training.compile", "numerics"),
    ("training.capture", "numerics"),
    ("training.device", "numerics"),
    ("training.threads", "numerics"),
    ("training.deterministic", "numerics"),
    ("training.attention", "numerics"),
    ("training.fused_activation", "numerics"),
    ("training.packed_attention", "numerics"),
    ("training.recompute", "numerics"),
    ("training.memory_budget_bytes", "numerics"),
)
"""The beginning of a setting's name, and what it acts on; the first that fits holds, all others act on the weights."""

DEFINES_LOSS: Final = (
    "objective.name",
    "objective.delta",
    "objective.quantile",
    "objective.temperature",
    "task.mask_rate",
)
"""Settings that say what the loss of an evaluation is: where one differs, losses cannot be compared."""
_MEASURED_AS: Final = {"focal": "cross_entropy", "binary_cross_entropy": "cross_entropy", "rmse": "mse"}
"""Objectives of which evaluations tell another loss: the plain one, without weights, smoothing and powers."""


def loss_of(setting: str, value: Any) -> Any:
    """What a setting of `DEFINES_LOSS` makes of the loss: equal for objectives that are measured alike."""
    return _MEASURED_AS.get(value, value) if setting == "objective.name" else value


def acts_on(setting: str) -> Acts:
    """What a setting acts on."""
    return next((kind for prefix, kind in ACTS_ON if setting == prefix or _under(setting, prefix)), "weights")


def _under(setting: str, prefix: str) -> bool:
    return setting.startswith(prefix if prefix.endswith(".") else (f"{prefix}.", f"{prefix}_"))
