"""What the samples alone tell before step 1: classes that counting finds, sets that differ, targets far from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import Classification, Config, Regression, SequenceToSequence, TokenClassification
from trimtab.data import LabelledTexts, MaskedSequences, PackedSequences, PreparedData, Sequences
from trimtab.evaluation import count_labels, count_sets, count_tags
from trimtab.evaluation.counting import FEWEST_DOCUMENTS, MOST_TOKENS, Tokens, copied, related, spread
from trimtab.evaluation.counting_tags import TaggedTexts
from trimtab.evaluation.neighbours import number_by_neighbours
from trimtab.evaluation.places import tells_number

PIECE: Final = 256
"""Tokens of a piece, where a text is no set of documents."""


def counting_facts(config: Config, data: PreparedData) -> dict[str, Any]:
    """`counting`, what counting runs of tokens tells of `labels`, or words of tags, and of the two `sets`, how many
    second texts are `copied` from the first, and how well they are `related`; how well a number is told by the token at
    one place, `placed`, or by rows that are `near`; `outliers` of numbers.

    Empty without `evaluation.yardsticks`, of a stream, and where there is too little to count. The counts are kept
    beside the tokens.
    """
    if not config.evaluation.yardsticks or "stream" in data.facts:
        return {}
    facts: dict[str, Any] = {}
    training, validation = data.training, data.validation
    if isinstance(config.task, Regression) and isinstance(training, LabelledTexts) and training.targets is not None:
        facts["outliers"] = outliers_of(training.targets)
    found = data.cached_json("counting-7", lambda: _counted(config, training, validation))
    return facts | ({"counting": found} if found else {})


def outliers_of(targets: NDArray[Any]) -> dict[str, float] | None:
    """Of the squared distances from the median: `share`, the part of the farthest hundredth of `targets` (0.085 of
    normal ones), and `twentieth`, that of the farthest twentieth (0.28); `farthest`, the largest distance over the
    median one. None where most targets are equal."""
    distance = np.abs(targets.astype(np.float64) - np.median(targets))
    usual = float(np.median(distance))
    if len(targets) < 20 or usual == 0.0:
        return None
    squares = np.sort(distance**2)
    hundredth, twentieth = (
        float(squares[-max(1, round(part * len(targets))) :].sum() / squares.sum()) for part in (0.01, 0.05)
    )
    return {"share": hundredth, "twentieth": twentieth, "farthest": float(distance.max()) / usual}


def _whole(texts: LabelledTexts, config: Config) -> Callable[[int], Tokens]:
    """A row with its second text where there is one."""
    if not isinstance(config.task, SequenceToSequence):
        return texts.row
    return lambda index: np.concatenate([texts.row(index)[: MOST_TOKENS // 2], texts.second_row(index)])


def _tagged(texts: LabelledTexts) -> TaggedTexts:
    """Rows with the tag of each token."""
    targets, (tokens, starts) = np.asarray(texts.targets), texts.stream

    def read(index: int) -> tuple[Tokens, NDArray[np.int64]]:
        begin, end = int(starts[index]), int(starts[index + 1]) - 1
        return tokens[begin:end], targets[begin:end]

    return read


def _counted(config: Config, training: Sequences, validation: Sequences) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(training, LabelledTexts) and isinstance(validation, LabelledTexts):
        whole = [_whole(one, config) for one in (training, validation)]
        found["sets"] = count_sets(whole[0], len(training), whole[1], len(validation))
        if isinstance(config.task, SequenceToSequence):
            found["copied"] = copied(training.row, training.second_row, len(training))
            found["related"] = related(training.row, training.second_row, len(training))
        is_one_of_classes = isinstance(config.task, Classification) and not config.task.multi_label
        if is_one_of_classes and training.targets is not None and validation.targets is not None:
            classes_N = np.asarray(training.targets)
            found["labels"] = count_labels(
                training.row, classes_N, int(classes_N.max()) + 1, validation.row, np.asarray(validation.targets)
            )
        if isinstance(config.task, TokenClassification):
            found["labels"] = count_tags(_tagged(training), len(training), _tagged(validation), len(validation))
        if isinstance(config.task, Regression) and training.targets is not None:
            targets_N = np.asarray(training.targets, np.float64)
            if targets_N.ndim == 1:
                taken = spread(len(training))
                found["placed"] = tells_number(training.row, taken, targets_N[taken])
                found["near"] = number_by_neighbours([training.row(at) for at in taken.tolist()], targets_N[taken])
    else:
        packed = [one.packed if isinstance(one, MaskedSequences) else one for one in (training, validation)]
        if all(isinstance(one, PackedSequences) for one in packed):
            streams = [one for one in packed if isinstance(one, PackedSequences)]
            ours, theirs = (_Documents(one) for one in streams)
            if min(len(ours), len(theirs)) < FEWEST_DOCUMENTS:  # as of a text in one file
                ours, theirs = (_Documents(one, np.arange(0, len(one.tokens), PIECE)) for one in streams)
            found["sets"] = count_sets(ours.row, len(ours), theirs.row, len(theirs))
    return {name: value for name, value in found.items() if value is not None}


class _Documents:
    """The documents of a stream, by number, each from its beginning; or pieces that begin at `starts`."""

    def __init__(self, packed: PackedSequences, starts: NDArray[np.int64] | None = None) -> None:
        self._tokens, self._starts = packed.tokens, packed.document_starts if starts is None else starts

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, index: int) -> Tokens:
        begin = int(self._starts[index])
        end = int(self._starts[index + 1]) - 1 if index + 1 < len(self) else len(self._tokens)
        return self._tokens[begin : min(end, begin + MOST_TOKENS)]
