"""What counting runs of tokens tells, on rows whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trimtab.evaluation.counting import copied, count_labels, count_sets, features_of, related, spread
from trimtab.evaluation.places import tells_number

Rows = list[NDArray[np.int64]]


def rows(number: int, seed: int = 0, classes: int = 3, shift: int = 0) -> tuple[Rows, NDArray[np.int64]]:
    """Each class prefers tokens of its own, by half."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=number)
    made = [
        np.where(draw.random(30) < 0.5, draw.integers(40, size=30), 50 + 40 * k + draw.integers(40, size=30))
        for k in labels
    ]
    return [row + shift for row in made], labels


def counted(training: Rows, labels: NDArray[np.int64], seed: int = 1) -> dict[str, float | list[float]]:
    held_out, right = rows(100, seed)
    found = count_labels(training.__getitem__, labels, 3, held_out.__getitem__, right)
    assert found is not None
    return found


def test_classes_are_told_and_shuffled_ones_are_not() -> None:
    training, labels = rows(300)
    found = counted(training, labels)
    assert found["accuracy"] > 0.95
    assert found["validation_accuracy"] > 0.95
    assert found["sure_errors"][0] == 0
    assert found["telling"] < 0.8
    shuffled = counted(training, np.random.default_rng(3).permutation(labels))
    assert shuffled["accuracy"] < 0.45
    assert shuffled["sure_errors"][0] > 0.5


def test_wrong_labels_contradict_sure_answers() -> None:
    training, labels = rows(600)
    draw = np.random.default_rng(4)
    wrong = np.where(draw.random(600) < 0.2, (labels + draw.integers(1, 3, size=600)) % 3, labels)
    first, second = counted(training, wrong)["sure_errors"]
    assert first == pytest.approx(0.2, abs=0.08)
    assert second == pytest.approx(0.2, abs=0.08)


def test_a_token_that_tells_the_class_is_found() -> None:
    training, labels = rows(300)
    marked = [np.append(row, 900 + label) for row, label in zip(training, labels, strict=True)]
    assert counted(marked, labels)["telling"] == 1.0
    # One of a class of few texts stands for it by chance.
    few = np.where(np.arange(300) < 3, 2, np.arange(300) % 2)
    assert counted(training, few)["telling"] < 0.5


def test_a_place_that_tells_the_class_is_found() -> None:
    """A column among others of the same values, at either end; none where labels are shuffled or of the classes."""
    draw = np.random.default_rng(5)
    labels = draw.integers(0, 3, size=400)
    columns = draw.integers(10, 20, size=(400, 12))
    assert counted(list(columns), labels)["placed"] < 0.55
    for place in (3, 11):
        leaking = columns.copy()
        leaking[:, place] = labels + 12
        found = counted(list(leaking), labels)
        assert found["placed"] == 1.0
        assert found["telling"] < 0.8
        assert counted(list(leaking), draw.permutation(labels))["placed"] < 0.55
    texts = [
        np.append(row[: 3 + at % 9], 12 + label) for at, (row, label) in enumerate(zip(columns, labels, strict=True))
    ]
    assert counted(texts, labels)["placed"] == 1.0


def test_the_length_of_a_text_stands_at_no_place() -> None:
    draw = np.random.default_rng(8)
    labels = draw.integers(0, 3, size=300)
    texts = [draw.integers(10, 20, size=4 + 3 * label) for label in labels]
    assert counted(texts, labels)["placed"] < 0.55


def test_one_class_that_is_nearly_all_is_no_clue() -> None:
    labels = (np.arange(400) % 20 == 0).astype(np.int64)
    columns = np.random.default_rng(6).integers(10, 20, size=(400, 12))
    assert counted(list(columns), labels)["placed"] <= 0.6


def test_a_column_that_tells_a_number_is_found_and_its_first_digit_tells_less() -> None:
    draw = np.random.default_rng(7)
    columns = draw.integers(0, 90, size=(800, 8))
    targets = columns[:, 2] * 0.3 + 5.0
    assert tells_number(list(columns).__getitem__, np.arange(800), targets) == pytest.approx(1.0)
    shuffled = tells_number(list(columns).__getitem__, np.arange(800), draw.permutation(targets))
    assert shuffled is not None
    assert shuffled < 0.2
    digits = np.array([[int(one) for one in f"{value:03d}"] for value in draw.integers(0, 1000, size=800)])
    first = tells_number(list(digits).__getitem__, np.arange(800), digits @ np.array([100.0, 10.0, 1.0]))
    assert first == pytest.approx(0.99, abs=0.003)
    assert tells_number(list(columns).__getitem__, np.arange(30), targets[:30]) is None
    assert tells_number(list(columns).__getitem__, np.arange(800), np.ones(800)) is None


def test_sets_of_one_kind_are_not_told_apart_and_others_are() -> None:
    ours, theirs = rows(120)[0], rows(40, 5)[0]
    same = count_sets(ours.__getitem__, 120, theirs.__getitem__, 40)
    assert same is not None
    assert same["documents"] == 40
    assert same["separability"] == pytest.approx(0.5, abs=0.2)  # of so few it deviates by 0.074
    other = rows(40, 6, shift=20)[0]
    found = count_sets(ours.__getitem__, 120, other.__getitem__, 40)
    assert found is not None
    assert found["separability"] > 0.9
    assert count_sets(ours.__getitem__, 120, other.__getitem__, 7) is None


def test_the_end_of_one_set_does_not_tell_the_begin_of_the_other_that_goes_on_there() -> None:
    """All documents are alike, but those at the border, which have one subject."""
    usual, subject = np.arange(30), np.arange(100, 130)
    ours, theirs = [usual] * 36 + [subject] * 4, [subject] * 4 + [usual] * 36
    found = count_sets(ours.__getitem__, 40, theirs.__getitem__, 40)
    assert found is not None
    assert found["separability"] == pytest.approx(0.5, abs=0.02)


def test_runs_are_told_from_their_tokens() -> None:
    one, other = features_of(np.array([1, 2, 3])), features_of(np.array([3, 2, 1]))
    assert len(one) == 6  # three tokens, two pairs, one of three
    assert len(np.intersect1d(one, other)) == 3
    assert len(features_of(np.array([], dtype=np.int64))) == 0


def test_answers_that_stand_in_the_question_are_counted() -> None:
    draw = np.random.default_rng(0)
    texts = [draw.integers(50, size=20) for _ in range(60)]
    inside = [text[5:10] if index % 4 else text[5:10][::-1] for index, text in enumerate(texts)]
    assert copied(texts.__getitem__, inside.__getitem__, 60) == pytest.approx(0.75)
    assert copied(texts.__getitem__, [text[:2] for text in texts].__getitem__, 60) is None
    assert copied(texts.__getitem__, texts.__getitem__, 60) is None  # to copy is the task


def test_pairs_that_were_shuffled_have_nothing_in_common() -> None:
    draw = np.random.default_rng(0)
    firsts = [draw.integers(60, size=12) for _ in range(400)]
    # A translation: other tokens, each of one of the first text.
    seconds = [500 + text[draw.integers(12, size=6)] for text in firsts]
    assert (related(firsts.__getitem__, seconds.__getitem__, 400) or 0.0) > 5
    for seed in range(5):
        shuffled = [seconds[index] for index in np.random.default_rng(seed).permutation(400)]
        found = related(firsts.__getitem__, shuffled.__getitem__, 400)
        assert found is not None
        assert abs(found) < 3
    assert related(firsts.__getitem__, seconds.__getitem__, 100) is None


@pytest.mark.parametrize("answers", [1, 5, 20])
def test_a_text_with_several_answers_is_no_other_text(answers: int) -> None:
    draw = np.random.default_rng(1)
    texts = [draw.integers(60, size=12) for _ in range(1000 // answers)]
    firsts = [text for text in texts for _ in range(answers)]
    seconds = [500 + text[draw.integers(12, size=6)] for text in firsts]
    assert (related(firsts.__getitem__, seconds.__getitem__, 1000) or 0.0) > 5
    # Nothing goes with anything where there is one first text alone.
    assert related([texts[0]].__getitem__, seconds.__getitem__, 0) is None
    assert related(lambda _: texts[0], seconds.__getitem__, 1000) is None


def test_a_file_of_two_subjects_one_after_the_other_has_pairs() -> None:
    draw = np.random.default_rng(2)
    firsts = [1000 * (index >= 200) + draw.integers(60, size=12) for index in range(400)]
    seconds = [500 + text[draw.integers(12, size=6)] for text in firsts]
    assert (related(firsts.__getitem__, seconds.__getitem__, 400) or 0.0) > 5


@pytest.mark.parametrize("distinct", [1, 3, 20])
def test_the_same_documents_on_both_sides_are_of_one_kind(distinct: int) -> None:
    draw = np.random.default_rng(3)
    texts = [draw.integers(500, size=4) for _ in range(distinct)]
    sides = [[texts[index] for index in draw.integers(distinct, size=number)] for number in (1000, 200)]
    found = count_sets(sides[0].__getitem__, 1000, sides[1].__getitem__, 200)
    assert found is not None
    assert found["separability"] == pytest.approx(0.5, abs=0.1 if distinct > 1 else 1e-9)


def test_empty_documents_tell_nothing() -> None:
    draw = np.random.default_rng(4)
    sides = [[draw.integers(40, size=30 * draw.integers(2)) for index in range(number)] for number in (800, 400)]
    found = count_sets(sides[0].__getitem__, 800, sides[1].__getitem__, 400)
    assert found is not None
    assert found["separability"] == pytest.approx(0.5, abs=0.08)


def test_rows_that_take_turns_are_all_looked_at() -> None:
    """One of each hundred, where each hundredth is of one class."""
    for turns in (2, 10, 100):
        taken = spread(40_000, 400) % turns
        counts = np.bincount(taken, minlength=turns) * turns / 400
        assert counts.min() > 0.4
        assert counts.max() < 1.6
    assert len(set(spread(40_001, 4_000).tolist())) == 4_000
    assert (np.diff(spread(4_100, 4_000)) > 0).all()


def test_pieces_of_one_text_do_not_tell_each_other() -> None:
    """Eight pieces in a row are of one subject, of which there are many: so are those that are held out at the end."""
    draw = np.random.default_rng(2)

    def pieces(subjects: int, common: int = 0) -> Rows:
        words = [draw.integers(1_000, size=12) for _ in range(subjects)]
        both = [np.append(words[at // 8], common + np.arange(12)) for at in range(8 * subjects)]
        return [draw.choice(one, size=60) for one in both]

    ours, theirs, others = pieces(200), pieces(20), pieces(20, common=2_000)
    found = count_sets(ours.__getitem__, len(ours), theirs.__getitem__, len(theirs))
    assert found is not None
    assert found["separability"] == pytest.approx(0.5, abs=0.2)  # of 20 subjects; told by neighbours it was 0.96
    found = count_sets(ours.__getitem__, len(ours), others.__getitem__, len(others))
    assert found is not None
    assert found["separability"] > 0.9


@pytest.mark.parametrize("share", [0.45, 0.48])
def test_a_place_that_tells_half_of_the_numbers_tells_not_all(share: float) -> None:
    """Nothing was sold in shops that were shut: what the others sold is not told by that."""
    draw = np.random.default_rng(8)
    shut = draw.random(2000) < share
    columns = np.column_stack([shut, draw.integers(10, 20, size=(2000, 5))])
    told = tells_number(list(columns).__getitem__, np.arange(2000), np.where(shut, 0.0, 5.0 + draw.normal(size=2000)))
    assert told is not None
    assert told < 0.95


def test_the_only_place_in_which_texts_differ_is_no_leak() -> None:
    """A curve of one variable, as it is read between two tokens that are always the same."""
    variable = np.random.default_rng(9).integers(10, 74, size=800)
    rows = np.column_stack([np.ones(800), variable, np.full(800, 2)]).astype(np.int64)
    assert tells_number(list(rows).__getitem__, np.arange(800), np.sin(variable / 20)) == 0.0
    assert counted(list(rows), (variable > 40).astype(np.int64))["placed"] == 0.0
