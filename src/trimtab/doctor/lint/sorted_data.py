"""sorted-data: rows lie sorted by what is asked about them, and are not shuffled.

Looks for: neighbouring rows of one class much more often than by chance, or of numbers that go together, while
    `data.shuffle` is false.
Why: then each step sees one class, and the next ones another: the model forgets the first while it learns the second,
    and the loss goes up and down with the order.
Evidence: the fact `order`; without it, and with `data.shuffle`, nothing is said.
Remedy: shuffle.
False alarms: rows whose order is itself the lesson; a curriculum is one that is made on purpose.
Source: Bengio 2012, arXiv 1206.5533, section 2.2 (examples in random order).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding

_FAR = 0.25
"""Of the way from an order by chance to one that is sorted."""


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of rows that are a quarter of the way to sorted, or more."""
    order = facts.get("order")
    if order is None or config.data.shuffle:
        return
    expected, found = order["expected"], order["found"]
    if expected < 1.0 and found - expected >= _FAR * (1.0 - expected):
        yield LintFinding(
            "sorted-data",
            "warning",
            "data.shuffle",
            f"the rows lie sorted by their targets: neighbours agree by {found:.2f}, by chance by {expected:.2f}",
            "each step sees one kind of rows and the next steps another, so that what was learnt is forgotten",
            "data.shuffle=true",
            "Bengio 2012, arXiv 1206.5533, section 2.2",
        )
