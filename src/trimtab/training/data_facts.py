"""What the samples alone tell before step 1: classes that counting finds, sets that differ, targets far from others."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import Classification, Config, Regression
from trimtab.data import LabelledTexts, MaskedSequences, PackedSequences, PreparedData, Sequences
from trimtab.evaluation import count_labels, count_sets
from trimtab.evaluation.counting import MOST_TOKENS, Tokens

_FAREST: Final = 0.01
"""Of the targets: those whose part of all squares is told."""


def counting_facts(config: Config, data: PreparedData) -> dict[str, Any]:
    """`counting`, what counting runs of tokens tells of `labels` and of the two `sets`; `outliers` of numbers.

    Empty without `evaluation.yardsticks`, of a stream, and where there is too little to count. The counts are kept
    beside the tokens.
    """
    if not config.evaluation.yardsticks or "stream" in data.facts:
        return {}
    facts: dict[str, Any] = {}
    training, validation = data.training, data.validation
    if isinstance(config.task, Regression) and isinstance(training, LabelledTexts) and training.targets is not None:
        facts["outliers"] = outliers_of(training.targets)
    found = data.cached_json("counting", lambda: _counted(config, training, validation))
    return facts | ({"counting": found} if found else {})


def outliers_of(targets: NDArray[Any]) -> dict[str, float] | None:
    """Of the squared distances from the median: `share`, the part of the farthest hundredth of `targets` (0.085 of
    normal ones); `farthest`, the largest distance over the median one. None where most targets are equal."""
    distance = np.abs(targets.astype(np.float64) - np.median(targets))
    usual = float(np.median(distance))
    if len(targets) < 20 or usual == 0.0:
        return None
    squares = np.sort(distance**2)
    most = max(1, round(_FAREST * len(targets)))
    return {"share": float(squares[-most:].sum() / squares.sum()), "farthest": float(distance.max()) / usual}


def _counted(config: Config, training: Sequences, validation: Sequences) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(training, LabelledTexts) and isinstance(validation, LabelledTexts):
        found["sets"] = count_sets(training.row, len(training), validation.row, len(validation))
        is_one_of_classes = isinstance(config.task, Classification) and not config.task.multi_label
        if is_one_of_classes and training.targets is not None and validation.targets is not None:
            classes_N = np.asarray(training.targets)
            found["labels"] = count_labels(
                training.row, classes_N, int(classes_N.max()) + 1, validation.row, np.asarray(validation.targets)
            )
    else:
        packed = [one.packed if isinstance(one, MaskedSequences) else one for one in (training, validation)]
        if all(isinstance(one, PackedSequences) for one in packed):
            ours, theirs = (_Documents(one) for one in packed if isinstance(one, PackedSequences))
            found["sets"] = count_sets(ours.row, len(ours), theirs.row, len(theirs))
    return {name: value for name, value in found.items() if value is not None}


class _Documents:
    """The documents of a stream, by number, each from its beginning."""

    def __init__(self, packed: PackedSequences) -> None:
        self._tokens, self._starts = packed.tokens, packed.document_starts

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, index: int) -> Tokens:
        begin = int(self._starts[index])
        end = int(self._starts[index + 1]) - 1 if index + 1 < len(self) else len(self._tokens)
        return self._tokens[begin : min(end, begin + MOST_TOKENS)]
