"""Levels of losses that tell a fault in a log of another trainer, and sound ones beside them that do not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from cases import Array, case_of, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.reading.classes import usual_loss
from trimtab.doctor.rules import RULES
from trimtab.runs.history import History


def said(code: str, case: Case) -> list[Finding]:
    """What a rule says aloud."""
    return [one for one in RULES[code](case) if isinstance(one, Finding) and one.severity != "info"]


def codes(code: str, case: Case) -> list[str]:
    """The codes that a rule finds, remarks among them."""
    return [one.code for one in RULES[code](case) if isinstance(one, Finding)]


def log(loss: Array, evaluated: Array, **named: object) -> Case:
    """A log of another trainer: a training loss in each step and evaluations at equal distances, to the end."""
    at = np.linspace(0, len(loss), len(evaluated) + 1)[1:].astype(int)
    validation: Mapping[int, float] = dict(zip(at.tolist(), evaluated.tolist(), strict=True))
    case = case_of(loss, validation=validation, **named)  # type: ignore[arg-type]
    object.__setattr__(case, "target", "torch")
    return case


def towards(steps: int, start: float, end: float, within: float) -> Array:
    """From a level to another, in so many steps by a factor of e."""
    return end + (start - end) * np.exp(-np.arange(steps) / within)


def test_few_updates_of_a_loss_that_got_better_to_the_end_are_too_few() -> None:
    loss, rates = towards(40, 5.5, 2.5, 20) + 0.05 * noise_of(40), np.linspace(3e-3, 1e-4, 40)
    facts = {"epochs": 0.3}
    (found,) = said("stopped-too-early", log(loss, towards(8, 5.0, 2.5, 3), rates=rates, facts=facts))
    assert found.onset_step == 40
    assert said("stopped-too-early", log(loss, towards(8, 5.0, 2.5, 3), rates=rates)), "evaluated every five"
    assert not said("stopped-too-early", log(loss, towards(40, 5.0, 2.5, 15), rates=rates)), "perhaps epochs"
    tuned = log(loss, towards(8, 5.0, 2.5, 3), rates=rates / 10, facts=facts)
    assert not said("stopped-too-early", tuned), "at a rate of fine-tuning"
    assert "stopped-too-early" in codes("stopped-too-early", tuned), "but it is remarked"
    for first, is_new in ((0.006, True), (0.05, False)):
        taught = {"train/accuracy": np.linspace(first, 0.3, 40)}
        again = log(loss, towards(8, 5.0, 2.5, 3), rates=rates / 10, facts=facts, **taught)
        assert bool(said("stopped-too-early", again)) == is_new, "whatever the rate, if first answers were guesses"
    for second, is_new in ((0.24, True), (0.27, False)):
        told = log(loss, towards(8, 5.0, 2.5, 3), facts=facts)
        right = np.array([0.24, second, *np.linspace(0.28, 0.3, 6)])
        told.history.add("validation/accuracy", np.arange(5, 41, 5), right)
        assert bool(said("stopped-too-early", told)) == is_new, "without rates, if answers cost less and are the same"
    assert not said("stopped-too-early", log(loss / 4, towards(8, 1.2, 0.6, 3), rates=rates, facts=facts)), (
        "few classes"
    )


def test_losses_that_stand_little_below_their_start_are_a_plateau() -> None:
    loss, rates = towards(60, 2.8, 2.5, 4) + 0.02 * noise_of(60), np.full(60, 3e-3)
    stands, few = towards(12, 2.6, 2.5, 1), {"train/accuracy": np.full(60, 0.15)}
    (found,) = said("plateau", log(loss, stands, rates=rates, **few))
    assert "both losses stand still" in found.cause
    lower = towards(60, 2.8, 1.4, 4) + 0.02 * noise_of(60)
    assert not said("plateau", log(lower, towards(12, 2.0, 1.4, 1), rates=rates, **few))
    assert not said("plateau", log(loss, towards(12, 2.7, 2.5, 6), rates=rates, **few)), "still falls"
    assert not said("plateau", log(loss, stands, rates=rates)), "it may be fine-tuning"
    assert "plateau" in codes("plateau", log(loss, stands, rates=rates)), "which is remarked"
    assert not codes("plateau", log(loss, stands, rates=rates, **{"train/accuracy": np.full(60, 0.45)})), "knows more"


@pytest.mark.parametrize(("every", "seconds", "expected"), [(3, 9.0, True), (2, 9.0, False), (2, 0.03, True)])
def test_what_is_evaluated_between_two_rows_or_done_at_once_is_no_epoch(
    every: int, seconds: float, expected: bool
) -> None:
    loss, history = towards(40, 5.5, 2.5, 20), History()
    at = np.arange(every, 40, every)
    for name, steps, values in (
        ("train/loss", np.arange(2, 41, 2), loss[1::2]),
        ("learning_rate", np.arange(2, 41, 2), np.full(20, 3e-3)),
        ("step_seconds", np.arange(2, 41, 2), np.full(20, seconds)),
        ("validation/loss", at, loss[at - 1]),
    ):
        history.add(name, steps, values)
    assert bool(said("stopped-too-early", Case(history, target="torch"))) == expected


def test_a_training_loss_that_cannot_fall_below_smoothed_labels_is_over_regularised() -> None:
    loss = towards(40, 1.61, 1.6, 5) + 0.002 * noise_of(40)
    (found,) = said("over-regularised", log(loss, towards(8, 1.58, 1.52, 2)))
    assert "smoothed" in found.cause
    assert not said("over-regularised", log(loss, towards(8, 1.61, 1.6, 2)))
    worse = said("over-regularised", log(loss, towards(8, 1.55, 1.56, 2)))
    assert not any("smoothed" in one.cause for one in worse), "evaluations get worse"
    assert said("over-regularised", log(4 * loss, towards(8, 6.32, 6.08, 2))), "whatever its scale"


def test_a_short_log_whose_losses_stand_where_frequencies_lie_is_underfitting() -> None:
    loss, rates = towards(12, 3.9, 3.0, 1) + 0.01 * noise_of(12), np.full(12, 3e-3)
    assert said("underfitting", log(loss, towards(6, 3.1, 3.0, 1), rates=rates))
    assert not said("underfitting", log(loss, towards(6, 3.6, 3.0, 3), rates=rates))
    assert not said("underfitting", log(loss, towards(6, 3.1, 3.0, 1), rates=rates / 15)), "at a rate of fine-tuning"
    scatters = towards(60, 3.9, 3.0, 4) + np.array([[0.05], [0.5]]) * noise_of(60)
    low, high = (log(one, towards(12, 3.1, 3.0, 1), rates=np.full(60, 3e-3)) for one in scatters)
    assert said("underfitting", low)
    assert not said("underfitting", high), "batches are too small for any model"


def test_a_schedule_that_ends_in_the_first_rows_of_a_short_log_is_seen() -> None:
    loss, rates = towards(11, 4.0, 3.1, 2), np.array([2e-3, 1e-3] + [5e-5] * 9)
    assert said("decayed-too-early", log(loss, towards(11, 3.4, 3.1, 3), rates=rates))
    stairs = np.repeat([2e-3, 2e-4, 2e-5], [4, 4, 3])
    assert not said("decayed-too-early", log(loss, towards(11, 3.4, 3.1, 3), rates=stairs))


def test_a_gradual_fall_by_equal_parts_is_of_a_rate_that_is_too_low() -> None:
    loss, rates = np.linspace(4.4, 3.6, 12), np.full(12, 1e-4)
    named: dict[str, object] = {"rates": rates, "facts": {"epochs": 12}}
    assert said("learning-rate-too-low", log(loss, np.linspace(4.3, 3.6, 12), **named))
    at_once = np.concatenate([[4.4], np.linspace(3.8, 3.3, 11)])
    assert not said("learning-rate-too-low", log(at_once, np.linspace(3.9, 3.4, 12), **named))


def one_class(begin: float, end: float, evaluated: Array) -> Case:
    """A training loss near 0 beside accuracies from `begin` to `end`, in training and in evaluation."""
    loss, right = towards(60, 0.4, 0.02, 5), np.linspace(begin, end, 60)
    return log(loss, evaluated, **{"train/accuracy": right, "validation/accuracy": right})


def test_a_training_loss_too_low_for_its_accuracy_is_of_weighed_classes_where_evaluations_are_worse_than_guesses() -> (
    None
):
    assert said("class-collapse", one_class(0.22, 0.24, towards(10, 8.0, 4.0, 3)))
    assert not said("class-collapse", one_class(0.22, 0.24, towards(10, 1.6, 1.4, 3))), "focal, or a mean over all"
    assert not said("class-collapse", one_class(0.03, 0.24, towards(10, 8.0, 4.0, 3))), "it learns: a part is logged"


def test_a_validation_loss_that_falls_along_is_counted_otherwise_and_not_of_other_data() -> None:
    loss = towards(100, 4.0, 1.0, 20) + 0.01 * noise_of(100)
    facts = {"epochs": 1.0}
    assert said("validation-shift", log(loss, np.linspace(4.5, 5.5, 10), facts=facts))
    along = log(loss, 2.0 + towards(10, 4.0, 1.0, 2), facts=facts)
    assert not said("validation-shift", along)
    assert "validation-shift" in codes("validation-shift", along)


@pytest.mark.parametrize(("others", "expected"), [(20.0, False), (5.0, True)])
def test_wrong_answers_tell_how_many_classes_there_are_when_most_are_wrong(others: float, expected: bool) -> None:
    """Of bytes few come into question in the end, and of 256 a guess costs 5.5 all the same."""
    right, among = np.linspace(0.25, 0.6, 12), np.linspace(others, 5.0, 12)
    judged = np.array(
        [usual_loss(part, 2.0) + (1 - part) * np.log(few) for part, few in zip(right, among, strict=True)]
    )
    loss = np.concatenate([towards(20, 5.5, judged[0], 4), np.interp(np.arange(220), np.arange(12) * 20, judged)])
    case = log(loss, judged, rates=np.full(240, 1e-3))
    case.history.add("validation/accuracy", np.arange(20, 241, 20), right)
    assert bool(said("bad-initialization", case)) == expected


def test_an_accuracy_that_was_never_high_is_not_spoilt_by_wrong_labels() -> None:
    taught = {"train/accuracy": np.linspace(0.2, 0.99, 60)}
    rises = np.concatenate([[1.3], np.linspace(1.1, 4.0, 11)])
    for best, falls in ((0.8, True), (0.3, False)):
        case = log(towards(60, 1.6, 0.05, 12), rises, **taught)
        case.history.add("validation/accuracy", np.arange(5, 61, 5), np.linspace(best, best - 0.15, 12))
        assert bool(said("label-noise", case)) == falls


def test_an_accuracy_that_stands_at_chance_is_of_one_class_though_the_training_loss_falls() -> None:
    loss = towards(60, 1.8, 0.4, 5) + 0.01 * noise_of(60)
    for level, told in ((0.17, True), (0.4, False)):
        case = log(loss, 1.6 + 0.1 * noise_of(10))
        case.history.add("validation/accuracy", np.arange(6, 61, 6), np.full(10, level))
        assert bool(said("class-collapse", case)) == told


@pytest.mark.parametrize(
    ("first", "level", "moves", "told"),
    [(0.8, 1e-3, 0.0, True), (0.8, 1e-3, 0.02, False), (0.8, 0.7, 0.0, False), (0.2, 1e-3, 0.0, False)],
)
def test_wrong_answers_cost_ln_2_at_least_where_all_weigh_the_same(
    first: float, level: float, moves: float, told: bool
) -> None:
    """A loss that never was as high is none of answers: numbers may be logged with an accuracy."""
    case = log(towards(60, first, 1e-4, 5), level * (1.0 + 0.1 * noise_of(10)))
    case.history.add("validation/accuracy", np.arange(6, 61, 6), 0.2 + moves * noise_of(10, 1))
    assert any("weighs most" in one.cause for one in said("class-collapse", case)) == told


@pytest.mark.parametrize(("first", "told"), [(4.9, False), (3.9, True)])
def test_the_most_frequent_token_for_all_is_of_a_text_that_is_not_read(first: float, told: bool) -> None:
    case = log(towards(60, first, 3.3, 5) + 0.05 * noise_of(60), 3.3 + 0.001 * noise_of(10))
    case.history.add("validation/accuracy", np.arange(6, 61, 6), np.full(10, 0.25))
    assert bool(said("class-collapse", case)) == told


@pytest.mark.parametrize(("falls", "told"), [(0.0, True), (0.002, False)])
def test_evaluations_that_fall_one_after_the_other_are_of_a_model_that_learns(falls: float, told: bool) -> None:
    loss = towards(300, 4.0, 1.0, 10) + 0.03 * noise_of(300)
    case = log(loss, 1.0 - falls * np.arange(20) + 2e-4 * noise_of(20, 1), rates=np.full(300, 1e-3))
    assert bool(said("plateau", case)) == told
