"""Answers that are guesses to the end, beside those that are not, in logs of others."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Array, noise_of
from test_textbook import first_of, of_others

from trimtab.doctor import Case
from trimtab.doctor.diagnose import ask
from trimtab.runs.history import Series

LEVEL = float(np.log(4.0))
AT = np.arange(1, 401)


def evaluated(loss: Array, validation: Array, right: float, **facts: float) -> Case:
    """A log of four classes with evaluations of 500 samples."""
    case = of_others(loss, facts=facts)
    steps = np.linspace(20, 400, len(validation)).astype(int)
    case.history.add("validation/loss", steps, validation)
    right_N = np.round((right + 0.01 * noise_of(len(steps), 3)) * 500) / 500
    case.history.add("validation/accuracy", steps, right_N)
    return case


@pytest.mark.parametrize(("right", "first"), [(0.25, "random-labels"), (0.7, "overfitting")])
def test_what_is_learned_by_heart_within_many_epochs_is_not_learned_at_once(right: float, first: str) -> None:
    loss = 0.4 + (LEVEL - 0.4) * np.exp(-AT / 100) + 0.02 * noise_of(400)
    validation = LEVEL + np.linspace(0.0, 0.6, 8) + 0.01 * noise_of(8, 1)
    assert first_of(evaluated(loss, validation, right, epochs=100.0)) == first


@pytest.mark.parametrize(("fell", "told"), [(0.0, True), (0.05, False)])
def test_losses_that_stand_at_what_guessing_costs_are_told(fell: float, told: bool) -> None:
    loss = LEVEL + 0.02 * noise_of(400)
    validation = LEVEL - np.linspace(-0.01, fell, 12) + 0.01 * noise_of(12, 1)
    said = list(ask("random-labels", evaluated(loss, validation, 0.25)))
    assert len(said) == told


@pytest.mark.parametrize(("right", "told"), [(0.25, True), (0.33, False)])
def test_what_guessing_costs_is_told_by_evaluations_where_the_first_loss_is_off(right: float, told: bool) -> None:
    loss = LEVEL + 0.5 * np.exp(-AT / 5) + 0.02 * noise_of(400)  # near that of seven classes
    validation = LEVEL + 0.01 + 0.005 * noise_of(12, 1)
    said = list(ask("random-labels", evaluated(loss, validation, right)))
    assert bool(said) is told


def answers(right: Array) -> Case:
    """Losses that stand at what guessing costs, and how many of 500 answers are right."""
    case = evaluated(LEVEL + 0.02 * noise_of(400), LEVEL + 0.01 + 0.01 * noise_of(len(right), 1), 0.25)
    at = case.history.series["validation/loss"].steps
    told = Series()
    told.append(at, right)
    case.history.replace("validation/accuracy", told)
    return case


def test_labels_are_judged_neither_by_a_model_that_says_one_class_nor_by_one_that_told_them_once() -> None:
    guesses = 0.25 + 0.002 * np.array([5, -7, 3, 9, -4, 0, 6, -2, 1, 8, -5, 2])
    assert list(ask("random-labels", answers(guesses)))
    one_class = np.where(np.arange(12) % 3, 0.272, 0.22)
    assert not list(ask("random-labels", answers(one_class)))
    once = np.concatenate([[0.8], guesses[1:]])
    assert not list(ask("random-labels", answers(once)))
