"""What targets look like before anything is trained on them: balance, order, contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import Classification, Regression, SequenceToSequence, TaskConfig
from trimtab.data.corpora import Document
from trimtab.signals import TargetFacts

_FEWEST: Final = 20
"""Rows of which an order can be told."""


def target_health(
    task: TaskConfig, rows: Sequence[Document], targets: NDArray[Any], facts: TargetFacts
) -> dict[str, Any]:
    """Facts of the training `targets` of `rows`, as JSON values: `balance` of classes, `order` of classes or numbers,
    and `contradictions`, texts that stand there with different targets.

    `order` compares a row with the one after it: `found` is the part of equal classes, or of second texts that begin
    with the same word, or the correlation of the ranks of numbers, and `expected` that of an order by chance. Of the
    numbers themselves a few that are far away, as damaged rows in a row are, would be nearly all of it.
    """
    told: dict[str, Any] = {}
    if facts.classes and facts.total:
        told["balance"] = _balance(facts)
    is_class = isinstance(task, Classification) and not task.multi_label
    if is_class or isinstance(task, Regression):
        if len(targets) >= _FEWEST:
            told["order"] = _order_of_classes(targets) if is_class else _order_of_numbers(targets)
        told["contradictions"] = _contradictions(rows, targets)
    if isinstance(task, SequenceToSequence) and len(rows) >= _FEWEST:
        told["order"] = _order_of_classes(_first_words(rows))
    return told


def _first_words(rows: Sequence[Document]) -> NDArray[Any]:
    """Numbers of the words that second texts begin with, in any order."""
    numbers: dict[str, int] = {}
    words = ((str(row.fields[0]).split(maxsplit=1) or [""])[0] for row in rows)
    return np.array([numbers.setdefault(word, len(numbers)) for word in words], dtype=np.int64)


def _balance(facts: TargetFacts) -> dict[str, Any]:
    """The most and the least frequent class, each with its part of all targets."""
    counts = dict(zip(facts.classes, facts.counts, strict=True))
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    total = max(1, sum(facts.counts))
    return {
        "most": most,
        "most_share": counts[most] / total,
        "least": least,
        "least_share": counts[least] / total,
        "never": [name for name, count in counts.items() if not count][:20],
    }


def _order_of_classes(targets: NDArray[Any]) -> dict[str, float]:
    shares = np.bincount(targets) / len(targets)
    return {"found": float((targets[1:] == targets[:-1]).mean()), "expected": float((shares**2).sum())}


def _order_of_numbers(targets: NDArray[Any]) -> dict[str, float]:
    _, place, counts = np.unique(targets, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - 0.5 * (counts + 1))[place.reshape(-1)] - 0.5 * (len(targets) - 1)
    return {"found": float((ranks[1:] * ranks[:-1]).mean() / (ranks**2).mean()), "expected": 0.0}


def _contradictions(rows: Sequence[Document], targets: NDArray[Any]) -> int:
    asked: dict[str, Any] = {}
    contradicted: set[str] = set()
    for row, target in zip(rows, targets.tolist(), strict=True):
        if asked.setdefault(row.text, target) != target:
            contradicted.add(row.text)
    return len(contradicted)
