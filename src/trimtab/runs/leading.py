"""The metrics of evaluations that a run's task makes one look at first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def leading_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """As `facts` name them, the one that chooses the best checkpoint first; none where nobody says."""
    told = facts.get("leading")
    return tuple(map(str, told)) if isinstance(told, list | tuple) else ()
