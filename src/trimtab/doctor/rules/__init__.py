"""What a run's record shows: one rule a file, whose docstring is its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Finding, Withheld

__all__ = ["RULES", "Rule"]

Rule = Callable[[Case], Iterator[Finding | Withheld]]
"""What a rule has to say of a case: pure, and quick."""

RULES: dict[str, Rule] = {}
"""All rules by the code that they look for."""
