"""Questions that need trainings of their own to be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.experiments.checks import Check
from trimtab.experiments.proof import Outcome, Proof
from trimtab.experiments.range_test import RangeTest

if TYPE_CHECKING:
    from trimtab.experiments.examining import examine as examine
    from trimtab.experiments.learning_rate import find_learning_rate as find_learning_rate
    from trimtab.experiments.proving import prove as prove

__all__ = ["Check", "Outcome", "Proof", "RangeTest", "examine", "find_learning_rate", "prove"]


def __getattr__(name: str) -> Any:
    # Late, so that a wrong option of a command is told before torch is loaded.
    if name == "find_learning_rate":
        from trimtab.experiments.learning_rate import find_learning_rate

        return find_learning_rate
    if name == "examine":
        from trimtab.experiments.examining import examine

        return examine
    if name == "prove":
        from trimtab.experiments.proving import prove

        return prove
    raise AttributeError(f"module 'trimtab.experiments' has no attribute {name!r}; it has: {', '.join(__all__)}")
