"""Which part of a run's validation documents its training set has, too: a loss measured there is learned by heart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

FEW: Final = 0.01
"""A smaller part is frequent by nature, such as greetings."""

MANY: Final = 0.1
"""From there on a loss is not held against another."""


def leaked_documents(facts: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> tuple[float, float]:
    """How many are in it as they are, and how many nearly so, by the facts of a run; 0 where that is not known."""
    near = _number(facts, "duplicates", "near", "leaked")
    identity = facts.get("identity")
    kept = identity.get("config.data.duplicates.near") if isinstance(identity, Mapping) else None
    dropped = (settings or {}).get("data.duplicates.near", kept) == "drop"
    return _number(facts, "leakage"), 0.0 if dropped else near


def leaked_share(
    facts: Mapping[str, Any], settings: Mapping[str, Any] | None = None, *, least: float = FEW
) -> float | None:
    """The part, up to 1, where it is worth telling; None where it is not, or not known."""
    documents, leaked = _number(facts, "validation", "documents"), sum(leaked_documents(facts, settings))
    if not documents or leaked < max(1.0, least * documents):
        return None
    return min(leaked / documents, 1.0)


def _number(facts: Mapping[str, Any], *path: str) -> float:
    value: Any = facts
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
