"""Columns whose names no table knows, and which look like losses: what to map them to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_LOSS: Final = frozenset(
    {"loss", "losses", "objective", "obj", "cost", "criterion", "nll", "xent", "ce", "bce", "mse", "mae", "entropy"}
)
_NO_LOSS: Final = frozenset({"scale", "scaler", "weight", "weights", "coef", "coefficient", "lambda", "best", "min"})
"""What is said of a loss and is none, or is not that of the step."""
_HELD_OUT: Final = frozenset(
    {"val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing", "holdout", "heldout"}
)


def unnamed_losses(names: Iterable[str]) -> dict[str, str]:
    """Names that look like a training or a validation loss to "train/loss" and "validation/loss": one of each at most.

    Of several the shortest is taken: the others are mostly its parts.
    """
    found: dict[str, str] = {}
    for name in sorted(names, key=len):
        words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
        glued = next((word for word in words if word.endswith(("loss", "nll", "objective"))), None)
        if words & _NO_LOSS or (not words & _LOSS and glued is None):
            continue
        held_out = words & _HELD_OUT or (glued is not None and any(glued.startswith(word) for word in _HELD_OUT))
        ours = "validation/loss" if held_out else "train/loss"
        if ours not in found.values():
            found[name] = ours
    return found
