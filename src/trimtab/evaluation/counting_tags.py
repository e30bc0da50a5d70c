"""What counting words tells of their tags: how well, and how often where it is sure, before any model is there.

A word is a tagged token with those up to the next tagged one, as the first token of a word has its tag. Tags are told
by naive Bayes of four signs: the word, its beginning, the word before and the one after.
Shape suffixes: P tagged positions · N texts · K tags · F hashed signs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.counting import FEWEST_TEXTS, FOLDS, MOST_CLASSES, MOST_TOKENS, Floats, Tokens, spread

Integers = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]
TaggedTexts = Callable[[int], tuple[Tokens, Integers]]
"""The tokens of a text by its number, and the tag of each; a negative one is none."""

SIGNS: Final = 1 << 16
MOST_SCORES: Final = 1 << 22
"""Positions times tags that are judged; more are counted."""
BY_PRIOR: Final = 4.0
"""A sign that was seen so often is believed by half, and one that was never seen says nothing: less of it learns wrong
tags by heart."""
BEGINNING: Final = 2
"""Tokens: the first may be a space."""
_MIX: Final = 0x9E3779B97F4A7C15
_ODD: Final = 0xBF58476D1CE4E5B9


def count_tags(
    training: TaggedTexts, num_training: int, validation: TaggedTexts, num_validation: int
) -> dict[str, Any] | None:
    """How well counting tells the tags of texts that were not counted; None of too few texts or too many tags.

    As `count_labels`, of tagged positions instead of texts: `accuracy` over five folds of the training texts,
    `majority`, `sure_errors` and `validation_accuracy`, with `texts` and `validation_texts`. And

    - `positions`, `validation_positions`: how many were judged
    - `answers`, `validation_answers`: as how many independent ones these count. Positions of one text are right
      together, so that their share scatters from text to text by more than chance; an error of `answers` independent
      ones is as large (the standard error of a ratio over clusters; Kish 1965, Survey Sampling: the effective size)
    - `validation_precision`: of each answer on the validation texts, weighed by how often it is given on the training
      texts, as one set may have more of an easy tag
    """
    if num_training < FEWEST_TEXTS:
        return None
    ours, theirs = _Tagged.of(training, num_training), _Tagged.of(validation, num_validation)
    if not len(ours.tags_P) or not len(theirs.tags_P):
        return None
    num_tags = 1 + int(max(ours.tags_P.max(), theirs.tags_P.max()))
    if num_tags < 2 or num_tags > MOST_CLASSES:
        return None
    judged = _judged(ours, num_tags)
    folds_P = ours.texts_P % FOLDS
    scores_PK = np.zeros((len(judged), num_tags), dtype=np.float32)
    held_out = _judged(theirs, num_tags)
    held_out_PK = np.zeros((len(held_out), num_tags), dtype=np.float32)
    prior_K = np.bincount(ours.tags_P, minlength=num_tags) / len(ours.tags_P)
    for signs_P, others_P in zip(ours.signs, theirs.signs, strict=True):
        counts_FK = _counts(signs_P, ours.tags_P, num_tags)
        held_out_PK += _says(counts_FK, prior_K)[others_P[held_out]]
        for fold in range(FOLDS):
            inside, asked = folds_P == fold, folds_P[judged] == fold
            rest_FK = counts_FK - _counts(signs_P[inside], ours.tags_P[inside], num_tags)
            scores_PK[asked] += _says(rest_FK, prior_K)[signs_P[judged[asked]]]
    log_prior_K = np.log(np.maximum(prior_K, 0.5 / len(ours.tags_P)))
    answers_P, margins_P = _answers(scores_PK + log_prior_K)
    right_P = answers_P == ours.tags_P[judged]
    told_P, _ = _answers(held_out_PK + log_prior_K)
    elsewhere_P = told_P == theirs.tags_P[held_out]
    surest = np.argsort(-margins_P, kind="stable")
    quarter = max(1, len(surest) // 4)
    return {
        "texts": len(np.unique(ours.texts_P)),
        "positions": len(judged),
        "answers": independent(right_P, ours.texts_P[judged]),
        "accuracy": float(right_P.mean()),
        "majority": float(prior_K.max()),
        "sure_errors": [
            1.0 - float(right_P[part].mean()) for part in (surest[:quarter], surest[quarter : 2 * quarter])
        ],
        "validation_texts": len(np.unique(theirs.texts_P)),
        "validation_positions": len(held_out),
        "validation_answers": independent(elsewhere_P, theirs.texts_P[held_out]),
        "validation_accuracy": float(elsewhere_P.mean()),
        "validation_precision": _precision(elsewhere_P, told_P, np.bincount(answers_P, minlength=num_tags)),
    }


def independent(right_P: NDArray[np.bool_], texts_P: Integers) -> float:
    """As how many independent answers those of some texts count, at most as many as they are: the variance of one over
    that of their mean, which is of the sums of whole texts."""
    _, at_P = np.unique(texts_P, return_inverse=True)
    mean = float(right_P.mean())
    off_N = np.bincount(at_P, right_P - mean)
    if len(off_N) < 2:
        return 1.0
    squares = float((off_N**2).sum()) * len(off_N) / (len(off_N) - 1)
    return min(float(len(right_P)), mean * (1.0 - mean) * len(right_P) ** 2 / squares) if squares > 0 else len(right_P)


@final
@dataclass(frozen=True, slots=True)
class _Tagged:
    """The tagged positions of a set: the text of each, its tag, and its signs."""

    texts_P: Integers
    tags_P: Integers
    signs: tuple[Integers, ...]

    @classmethod
    def of(cls, read: TaggedTexts, number: int) -> _Tagged:
        """Of texts that are spread over the set, each from its beginning."""
        read_texts = [read(index) for index in spread(number).tolist()]
        rows = [(tokens[:MOST_TOKENS], tags[:MOST_TOKENS]) for tokens, tags in read_texts]
        lengths_N = np.array([len(tokens) for tokens, _ in rows], dtype=np.int64)
        tokens = np.concatenate([np.empty(0, np.uint64), *(row.astype(np.uint64) for row, _ in rows)])
        tags = np.concatenate([np.empty(0, np.int64), *(row for _, row in rows)]).astype(np.int64)
        texts = np.repeat(np.arange(len(rows)), lengths_N)
        begins_P = np.flatnonzero(tags >= 0)
        texts_P = texts[begins_P]
        ends_P = np.minimum(np.append(begins_P[1:], len(tokens)), np.cumsum(lengths_N)[texts_P])
        words_P = _words(tokens, begins_P, ends_P)
        same_P = np.append(texts_P[1:] == texts_P[:-1], False)  # whether the next one is of the same text
        after_P = np.where(same_P, np.roll(words_P, -1), np.uint64(0))
        before_P = np.where(np.roll(same_P, 1), np.roll(words_P, 1), np.uint64(0))
        beginnings_P = _words(tokens, begins_P, np.minimum(begins_P + BEGINNING, ends_P))
        signs = (words_P, beginnings_P, before_P, after_P)
        return cls(texts_P, tags[begins_P], tuple((sign >> np.uint64(48)).astype(np.int64) for sign in signs))


def _words(tokens: NDArray[np.uint64], begins_P: Integers, ends_P: Integers) -> NDArray[np.uint64]:
    """A hash of the tokens from each begin to its end: a polynomial modulo 2^64, as the difference of two sums."""
    powers = np.concatenate([np.ones(1, np.uint64), np.full(len(tokens), _ODD, np.uint64)]).cumprod(dtype=np.uint64)
    inverse = np.uint64(pow(_ODD, -1, 1 << 64))
    backwards = np.concatenate([np.ones(1, np.uint64), np.full(len(tokens), inverse)]).cumprod(dtype=np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(tokens) * powers[:-1], dtype=np.uint64)])
    return _mixed((sums[ends_P] - sums[begins_P]) * backwards[begins_P])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (values + np.uint64(1)) * np.uint64(_MIX)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(_ODD)
    return mixed ^ (mixed >> np.uint64(32))


def _judged(tagged: _Tagged, num_tags: int) -> Integers:
    return spread(len(tagged.tags_P), max(1, MOST_SCORES // num_tags))


def _counts(signs_P: Integers, tags_P: Integers, num_tags: int) -> Floats:
    counts_FK = np.bincount(signs_P * num_tags + tags_P, minlength=SIGNS * num_tags)
    return counts_FK.reshape(SIGNS, num_tags).astype(np.float64)


def _says(counts_FK: Floats, prior_K: Floats) -> Scores:
    """What a sign adds to the logarithm of each tag: how much more often it is seen with it than the tag is at all."""
    floor_K = np.maximum(prior_K, 0.5 / max(1.0, float(counts_FK.sum())))
    total_F1 = counts_FK.sum(1, keepdims=True)
    ratio_FK = (counts_FK / floor_K + BY_PRIOR) / (total_F1 + BY_PRIOR)
    said_FK: Scores = np.log(ratio_FK.astype(np.float32))
    return said_FK


def _answers(scores_PK: Scores) -> tuple[Integers, Floats]:
    """The tag of each position, and by how much it leads."""
    second_P, first_P = np.partition(scores_PK, -2, axis=1)[:, -2:].T
    return scores_PK.argmax(1), (first_P - second_P).astype(np.float64)


def _precision(right_P: NDArray[np.bool_], answers_P: Integers, weights_K: Integers) -> float:
    """Of the answers that are given at all."""
    number_K = np.bincount(answers_P, minlength=len(weights_K))
    precision_K = np.bincount(answers_P, right_P, minlength=len(weights_K)) / np.maximum(number_K, 1)
    given_K = np.where(number_K > 0, weights_K, 0)
    return float((precision_K * given_K).sum() / max(int(given_K.sum()), 1))
