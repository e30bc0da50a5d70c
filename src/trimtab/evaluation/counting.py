"""What counting runs of tokens tells of labelled texts, and of two sets: marks that need no model.

A text is the set of its runs of one to four tokens, hashed. Classes are told by naive Bayes.
Shape suffixes: N texts · F hashed runs · K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.neighbours import Told, by_neighbours
from trimtab.evaluation.places import tells_class

Tokens = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

FEATURES: Final = 1 << 15
RUNS: Final = 4
MOST_TEXTS: Final = 4_000
MOST_TOKENS: Final = 512
"""Of a text its beginning is counted."""
MOST_CLASSES: Final = 200
FEWEST_TEXTS: Final = 40
HASHED: Final = 1024
MOST_PAIRS: Final = 2_000
FEWEST_PAIRS: Final = 200
FEWEST_DOCUMENTS: Final = 8
"""On each side: with fewer it is their subjects that tell two sets apart."""
FEWEST_OF_CLASS: Final = 10
"""Texts: of fewer some run stands for the class by chance."""
FOLDS: Final = 5
STRETCHES: Final = 10
"""Of the documents of a set, in their order."""
_SMOOTHING: Final = 0.3
_GOLDEN: Final = (5**0.5 - 1) / 2
"""Its multiples fill the unit interval evenly."""


def count_labels(
    rows: Callable[[int], Tokens],
    classes_N: NDArray[np.int64],
    num_classes: int,
    validation: Callable[[int], Tokens],
    validation_N: NDArray[np.int64],
) -> dict[str, Any] | None:
    """How well counting tells the class of a text that was not counted; None of too few texts or too many classes.

    - `by`: runs of tokens, by naive Bayes, or the nearest rows, of rows of one length where these tell more
    - `accuracy`, over five folds of the training texts; `majority`, the share of the most frequent class
    - `sure_errors`: of the surest quarter of the answers, and of the next, the part that the label contradicts
    - `validation_accuracy`, of all training texts on the validation texts, and `validation_texts`
    - `telling`: how well one run of tokens alone stands for a class, the part of the class's texts that have it less
      that of all others; the lowest of all classes but the hardest
    - `placed`: the same of a token at one place, as in a column of a table
    Source: own; clues of single words after Gururangan et al. 2018, arXiv 1803.02324. The difference is Youden's J.
    """
    if num_classes < 2 or num_classes > MOST_CLASSES or len(classes_N) < FEWEST_TEXTS:
        return None
    taken, held_out = spread(len(classes_N)), spread(len(validation_N))
    texts, judged = [rows(index) for index in taken.tolist()], [validation(index) for index in held_out.tolist()]
    wanted, judged_N = classes_N[taken], validation_N[held_out]
    sets = [features_of(one) for one in texts]
    counts_KF = _counts(sets, wanted, num_classes)
    by_runs = _by_runs(sets, wanted, counts_KF, judged, judged_N)
    near = by_neighbours(texts, wanted, judged, judged_N)
    told = by_runs if near is None or near.accuracy <= by_runs.accuracy else near
    surest = np.argsort(-told.sure_N, kind="stable")
    quarter = max(1, len(sets) // 4)
    return {
        "by": "runs of tokens" if told is by_runs else "the nearest rows",
        "texts": len(sets),
        "accuracy": told.accuracy,
        "majority": float(np.bincount(wanted, minlength=num_classes).max() / len(wanted)),
        "sure_errors": [
            1.0 - float(told.right_N[part].mean()) for part in (surest[:quarter], surest[quarter : 2 * quarter])
        ],
        "validation_texts": len(judged),
        "validation_accuracy": float(told.elsewhere_M.mean()),
        "telling": _telling(counts_KF, wanted, num_classes),
        "placed": tells_class(rows, taken, wanted),
    }


def _by_runs(
    sets: list[NDArray[np.int64]],
    wanted: NDArray[np.int64],
    counts_KF: Floats,
    judged: list[Tokens],
    judged_N: NDArray[np.int64],
) -> Told:
    """Naive Bayes on runs of tokens, in folds, and of all on other texts."""
    num_classes = len(counts_KF)
    right, margins = np.zeros(len(sets), dtype=np.bool_), np.zeros(len(sets))
    folds = np.arange(len(sets)) % FOLDS
    for fold in range(FOLDS):
        inside = np.flatnonzero(folds == fold)
        rest_KF = counts_KF - _counts([sets[index] for index in inside], wanted[inside], num_classes)
        texts_K = np.bincount(wanted[folds != fold], minlength=num_classes)
        for index, answer, margin in _answers(rest_KF, texts_K, sets, inside):
            right[index], margins[index] = answer == wanted[index], margin
    texts_K = np.bincount(wanted, minlength=num_classes)
    answers = _answers(counts_KF, texts_K, [features_of(one) for one in judged], np.arange(len(judged)))
    return Told(right, margins, np.array([answer == judged_N[at] for at, answer, _ in answers], np.bool_))


def count_sets(
    training: Callable[[int], Tokens], num_training: int, validation: Callable[[int], Tokens], num_validation: int
) -> dict[str, Any] | None:
    """How well counting tells a document of the validation set from one of the training set: `separability`, the
    chance that of two the right one looks more like it, 0.5 where they are alike; None of too few documents.

    As many of each side are compared, at most 400, each stretch of them by counts of all but itself and the two beside
    it, on both sides, where the first and the last are neighbours, as one set may go on in the other: neighbours are of
    one subject, above all where they are pieces of one text, and must not tell each other.
    """
    size = min(num_training, num_validation, 400)
    if size < FEWEST_DOCUMENTS:
        return None
    sets: list[NDArray[np.int64]] = []
    for read, number in ((training, num_training), (validation, num_validation)):
        sets += [features_of(read(index)) for index in spread(number, size)]
    sides = np.repeat([0, 1], size)
    counts_2F = _counts(sets, sides, 2)
    folds = np.tile(np.arange(size) * STRETCHES // size, 2)
    likeness = np.zeros(len(sets))
    for fold in np.unique(folds).tolist():
        inside = np.flatnonzero(folds == fold)
        near = np.flatnonzero((folds - fold + 1) % STRETCHES <= 2)
        rest_2F = counts_2F - _counts([sets[index] for index in near], sides[near], 2)
        logs_2F = _logs(rest_2F)
        ratio_F = logs_2F[1] - logs_2F[0]
        for index in inside:
            # The mean, as long texts are no surer than many short ones.
            likeness[index] = ratio_F[sets[index]].mean() if len(sets[index]) else 0.0
    # Of documents that are equally like it neither comes first: there may be the same ones on both sides.
    _, places_N, ties = np.unique(likeness, return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(ties) - (ties - 1) / 2)[places_N]
    ranks = float(rank_N[size:].sum()) - size * (size + 1) / 2
    return {"separability": ranks / size**2, "documents": size}


def copied(first: Callable[[int], Tokens], second: Callable[[int], Tokens], number: int) -> float | None:
    """The part of second texts that stand in the first, token by token; of texts of three tokens at least that are not
    the first as it is, which is a task of its own. None where these are few."""
    pairs = [(first(index), second(index)) for index in spread(number)]
    pairs = [(one, other) for one, other in pairs if len(other) >= 3 and not np.array_equal(one, other)]
    if len(pairs) < FEWEST_TEXTS:
        return None
    return float(np.mean([_stands_in(other, one) for one, other in pairs]))


def _stands_in(part: Tokens, text: Tokens) -> bool:
    size = len(part)
    starts = np.flatnonzero(text[: max(0, len(text) - size + 1)] == part[0])
    return any(np.array_equal(text[start : start + size], part) for start in starts.tolist())


def related(first: Callable[[int], Tokens], second: Callable[[int], Tokens], number: int) -> float | None:
    """How much better second texts go with their own first texts than with those of others, in standard errors: near 0
    where they were shuffled; None of too few pairs.

    What goes together is counted in every other pair, by pointwise mutual information of runs of tokens, and tried on
    the rest: halves of a file may be of different subjects. The other one is the nearest before it whose first text is
    another, as a text may stand there with several answers. Source: own; the measure is that of Church and Hanks 1990,
    Computational Linguistics 16(1).
    """
    taken = spread(number, MOST_PAIRS)
    if len(taken) < FEWEST_PAIRS:
        return None
    ones_NH, others_NH = (_presence([features_of(read(index)) % HASHED for index in taken]) for read in (first, second))
    counted, tried = slice(0, None, 2), slice(1, None, 2)
    together_HH = ones_NH[counted].T @ others_NH[counted]
    expected_HH = np.outer(ones_NH[counted].sum(0), others_NH[counted].sum(0)) / len(ones_NH[counted])
    # Rare runs go together by chance: 1 more of each draws them to 0.
    gain_HH = np.log((together_HH + 1.0) / (expected_HH + 1.0))
    ones_NH, others_NH = ones_NH[tried], others_NH[tried]
    changes = np.flatnonzero((ones_NH != np.roll(ones_NH, 1, 0)).any(1))
    if not len(changes):
        return None
    before = changes[np.searchsorted(changes, np.arange(len(ones_NH)), side="right") - 1] - 1
    scores_NH = ones_NH @ gain_HH
    gained = (scores_NH * (others_NH - others_NH[before])).sum(1) / np.maximum(ones_NH.sum(1), 1.0)
    error = float(gained.std()) / len(gained) ** 0.5
    return float(gained.mean()) / error if error > 0 else None


def _presence(sets: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    there_NH = np.zeros((len(sets), HASHED), dtype=np.float32)
    for row, features in enumerate(sets):
        there_NH[row, features] = 1.0
    return there_NH


def features_of(tokens: Tokens) -> NDArray[np.int64]:
    """The different runs of one to `RUNS` tokens in a text, hashed to [0, FEATURES)."""
    text = tokens[:MOST_TOKENS].astype(np.uint64)
    found = [np.empty(0, dtype=np.uint64)]
    run = np.zeros(len(text), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for size in range(1, min(RUNS, len(text)) + 1):
            run = run[: len(text) - size + 1] * np.uint64(0x9E3779B97F4A7C15) + text[size - 1 :] + np.uint64(size)
            mixed = (run ^ (run >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            found.append(mixed >> np.uint64(49))
    return np.unique(np.concatenate(found)).astype(np.int64)


def _counts(sets: list[NDArray[np.int64]], classes: NDArray[np.int64], num_classes: int) -> Floats:
    """In how many texts of each class a run stands."""
    counts_KF = np.zeros((num_classes, FEATURES))
    for features, one in zip(sets, classes.tolist(), strict=True):
        counts_KF[one, features] += 1.0
    return counts_KF


def _logs(counts_KF: Floats) -> Floats:
    smoothed_KF = counts_KF + _SMOOTHING
    logs: Floats = np.log(smoothed_KF) - np.log(smoothed_KF.sum(1, keepdims=True))
    return logs


def _answers(
    counts_KF: Floats, texts_K: NDArray[np.int64], sets: list[NDArray[np.int64]], which: NDArray[np.int64]
) -> Iterator[tuple[int, int, float]]:
    """Number, class, and how sure it is, of each text: the lead over the next class for each run."""
    prior_K = np.log(np.maximum(texts_K, 0.5) / max(1, texts_K.sum()))
    logs_FK = np.ascontiguousarray(_logs(counts_KF).T)  # what a run says of all classes stands together in memory
    for index in which.tolist():
        features = sets[index]
        scores_K = prior_K + logs_FK[features].sum(0)
        second, first = np.partition(scores_K, -2)[-2:]
        yield index, int(scores_K.argmax()), float(first - second) / max(1, len(features)) ** 0.5


def _telling(counts_KF: Floats, classes_N: NDArray[np.int64], num_classes: int) -> float:
    texts_K = np.bincount(classes_N, minlength=num_classes)
    others_KF, rest_K = counts_KF.sum(0) - counts_KF, texts_K.sum() - texts_K
    clue_KF = counts_KF / np.maximum(texts_K, 1)[:, None] - others_KF / np.maximum(rest_K, 1)[:, None]
    best_K = np.where(texts_K >= FEWEST_OF_CLASS, clue_KF.max(1), 0.0)[texts_K > 0]
    return float(np.sort(best_K)[1]) if len(best_K) > 1 else 0.0


def spread(number: int, most: int = MOST_TEXTS) -> NDArray[np.int64]:
    """At most so many of [0, number), one of each of as many equal parts; not at the same place of each, as rows may
    take turns."""
    if number <= most:
        return np.arange(number)
    begins = np.arange(most + 1, dtype=np.int64) * number // most
    return begins[:-1] + (np.arange(most) * _GOLDEN % 1.0 * np.diff(begins)).astype(np.int64)
