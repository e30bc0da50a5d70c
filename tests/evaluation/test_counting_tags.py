"""What counting words tells of their tags, on texts whose answer is known."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trimtab.evaluation.counting_tags import count_tags, independent

Text = tuple[NDArray[np.int64], NDArray[np.int64]]
KINDS = 5


def texts(number: int, seed: int = 0, length: int = 20, *, kinds: int = KINDS, words: int = 10) -> list[Text]:
    """Words of two tokens, of which the second one tells the tag; the second one has none."""
    draw, made = np.random.default_rng(seed), []
    for _ in range(number):
        tags = np.minimum(draw.integers(kinds + 2, size=length), kinds - 1)
        tokens = np.stack([draw.integers(words, size=length), 50 + tags], axis=1).ravel()
        made.append((tokens, np.stack([tags, np.full(length, -100)], axis=1).ravel()))
    return made


def changed(those: list[Text], change: Any) -> list[Text]:
    made = [(tokens, tags.copy()) for tokens, tags in those]
    for _, tags in made:
        tags[tags >= 0] = change(tags[tags >= 0])
    return made


def noisy(those: list[Text], part: float, seed: int = 5) -> list[Text]:
    draw = np.random.default_rng(seed)
    return changed(
        those,
        lambda tags: np.where(
            draw.random(len(tags)) < part, (tags + draw.integers(1, KINDS, size=len(tags))) % KINDS, tags
        ),
    )


def counted(training: list[Text], validation: list[Text]) -> dict[str, Any]:
    found = count_tags(training.__getitem__, len(training), validation.__getitem__, len(validation))
    assert found is not None
    return found


def test_tags_are_told_by_their_words_and_shuffled_ones_are_not() -> None:
    found = counted(texts(200), texts(50, 1))
    assert found["accuracy"] > 0.97
    assert found["validation_accuracy"] > 0.97
    assert found["sure_errors"] == [0.0, 0.0]
    assert (found["texts"], found["positions"], found["validation_texts"]) == (200, 4000, 50)
    assert found["majority"] == pytest.approx(3 / 7, abs=0.03)
    draw = np.random.default_rng(2)
    found = counted(*(changed(those, draw.permutation) for those in (texts(200), texts(50, 1))))
    for which in ("accuracy", "validation_accuracy"):
        assert found[which] < found["majority"] + 0.03
    assert found["sure_errors"][0] > 0.95 - found["majority"]
    assert found["answers"] > 0.7 * found["positions"]


def test_the_word_before_and_the_word_after_tell_too() -> None:
    for by in (1, -1):
        moved = [
            (tokens, np.stack([np.roll(tags[::2], by), tags[1::2]], axis=1).ravel()) for tokens, tags in texts(400)
        ]
        assert counted(moved, moved[:50])["accuracy"] > 0.85


def test_wrong_tags_of_training_alone_leave_those_of_validation_told() -> None:
    found = counted(noisy(texts(300), 0.4), texts(60, 1))
    assert found["accuracy"] == pytest.approx(0.6, abs=0.04)
    assert found["validation_accuracy"] > 0.9
    assert found["validation_precision"] > 0.9
    assert found["sure_errors"] == pytest.approx([0.4, 0.4], abs=0.05)
    assert found["answers"] > 0.8 * found["positions"]


def test_a_set_with_more_of_an_easy_tag_is_told_no_more_precisely() -> None:
    """Half of the words of the other tags are of no tag in particular."""

    def blurred(those: list[Text], seed: int) -> list[Text]:
        draw = np.random.default_rng(seed)
        return [
            (np.where((tokens >= 51) & (draw.random(len(tokens)) < 0.5), 99, tokens), tags) for tokens, tags in those
        ]

    training, validation = blurred(texts(400), 3), blurred(changed(texts(100, 1), lambda tags: tags * 0), 4)
    easy = [(np.where(tokens >= 50, 50, tokens), tags) for tokens, tags in validation]
    found = counted(training, easy)
    assert found["validation_accuracy"] > found["accuracy"] + 0.1
    mixed = counted(training, blurred(texts(100, 1), 4) + easy)
    assert mixed["validation_accuracy"] > mixed["accuracy"] + 0.1
    assert mixed["validation_precision"] < mixed["accuracy"] + 0.1


def test_what_decides_a_whole_text_counts_as_one_answer() -> None:
    """Each text has tags of one of two languages, which no word tells."""
    draw = np.random.default_rng(6)
    languages = [
        (tokens, np.where(tags < 0, tags, tags % 2 + 2 * one))
        for (tokens, tags), one in zip(texts(300), draw.integers(2, size=300), strict=True)
    ]
    found = counted(languages, languages[:50])
    assert found["answers"] < 0.3 * found["positions"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), copies=st.integers(2, 9))
def test_copies_of_an_answer_add_none(seed: int, copies: int) -> None:
    """And answers that have nothing to do with their texts count as about as many as they are."""
    draw = np.random.default_rng(seed)
    right = draw.random(400) < draw.uniform(0.2, 0.8)
    once = independent(right, np.arange(400))
    assert once == pytest.approx(400, rel=0.01)
    assert independent(np.repeat(right, copies), np.repeat(np.arange(400), copies)) == pytest.approx(once)
    loose = draw.random(4000) < 0.7
    assert independent(loose, np.arange(4000) // 10) == pytest.approx(4000, rel=0.3)
    assert independent(np.ones(40, np.bool_), np.arange(40) // 4) == 40


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 99), names=st.permutations(range(KINDS)))
def test_names_of_tags_and_tokens_change_nothing(seed: int, names: list[int]) -> None:
    training, validation = noisy(texts(60, seed), 0.2), texts(20, seed + 1)
    found = counted(training, validation)
    other = counted(*(changed(those, lambda tags: np.array(names)[tags]) for those in (training, validation)))
    assert other["accuracy"] == pytest.approx(found["accuracy"], abs=0.01)  # of two as likely ones the first is said
    assert other["validation_accuracy"] == pytest.approx(found["validation_accuracy"], abs=0.02)
    numbered = [[(tokens * 7 + 3, tags) for tokens, tags in those] for those in (training, validation)]
    assert counted(*numbered)["accuracy"] == pytest.approx(found["accuracy"], abs=0.01)  # but for equal hashes


def test_too_little_is_not_counted() -> None:
    few, many = texts(39), texts(60)
    assert count_tags(few.__getitem__, 39, many.__getitem__, 60) is None
    untagged = changed(many, lambda tags: tags * 0 - 100)
    for training, validation in ((untagged, many), (many, untagged)):
        assert count_tags(training.__getitem__, 60, validation.__getitem__, 60) is None
    one = changed(many, lambda tags: tags * 0)
    assert count_tags(one.__getitem__, 60, one.__getitem__, 60) is None


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [9, 150])
def test_long_texts_take_seconds(kinds: int) -> None:
    draw = np.random.default_rng(0)
    long = [(draw.integers(30_000, size=512), draw.integers(kinds, size=512)) for _ in range(4_000)]
    begun = time.process_time()
    counted(long, long[:400])
    assert time.process_time() - begun < 20.0
