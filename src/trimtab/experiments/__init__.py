"""Questions that need trainings of their own to be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.experiments.range_test import RangeTest

if TYPE_CHECKING:
    from trimtab.experiments.learning_rate import find_learning_rate as find_learning_rate

__all__ = ["RangeTest", "find_learning_rate"]


def __getattr__(name: str) -> Any:
    # Late, so that a wrong option of `trimtab find-lr` is told before torch is loaded.
    if name == "find_learning_rate":
        from trimtab.experiments.learning_rate import find_learning_rate

        return find_learning_rate
    raise AttributeError(f"module 'trimtab.experiments' has no attribute {name!r}; it has: {', '.join(__all__)}")
