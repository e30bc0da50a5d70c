"""Faults of data and labels that logs of others show, each beside what it is told from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import case_of, noise_of
from test_textbook import first_of, of_others

from trimtab.doctor import Finding
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.rules import RULES


@pytest.mark.parametrize(("right", "first"), [(0.25, "class-collapse"), (0.97, "validation-shift")])
def test_a_training_loss_too_low_for_its_own_accuracy_is_of_classes_that_weigh_unevenly(
    right: float, first: str
) -> None:
    at = np.arange(1, 61)
    case = of_others(0.09 + 0.5 * np.exp(-at / 4) + 0.003 * noise_of(60))
    case.history.add("train/accuracy", at, right + 0.01 * noise_of(60, 1))
    steps = np.arange(5, 61, 5)
    case.history.add("validation/loss", steps, 3.0 + 0.02 * steps)
    case.history.add("validation/accuracy", steps, np.full(len(steps), 0.22) + 0.005 * noise_of(len(steps), 2))
    assert first_of(case) == first


@pytest.mark.parametrize(("moves", "collapsed"), [(0.0, True), (0.02, False)])
def test_an_accuracy_that_never_moves_is_of_one_answer(moves: float, collapsed: bool) -> None:
    at = np.arange(1, 61)
    case = of_others(0.05 + 1.4 * np.exp(-at / 2) + 0.002 * noise_of(60))
    steps = np.arange(5, 61, 5)
    case.history.add("validation/loss", steps, 5.0 + 0.05 * noise_of(len(steps), 1))
    case.history.add("validation/accuracy", steps, 0.22 + moves * noise_of(len(steps), 2))
    assert (first_of(case) == "class-collapse") is collapsed


@pytest.mark.parametrize(("gains", "first"), [(0.06, "overconfident"), (0.01, "overfitting")])
def test_a_loss_that_rises_beside_more_right_answers_is_too_sure_of_however_many_classes(
    gains: float, first: str
) -> None:
    at, start = np.arange(1, 401), float(np.log(300.0))
    loss = 1.5 + (start - 1.5) * np.exp(-at / 150) + 0.02 * noise_of(400)
    validation = start - 0.6 + np.linspace(0.0, 0.25, 12) + 0.003 * noise_of(12, 1)
    case = of_others(loss)
    steps = np.linspace(20, 400, 12).astype(int)
    case.history.add("validation/loss", steps, validation)
    case.history.add("validation/accuracy", steps, 0.2 + np.linspace(0.0, gains, 12) + 0.008 * noise_of(12, 3))
    assert first_of(case) == first
    assert "overconfident" in [finding.code for finding in diagnose(case).findings]


@pytest.mark.parametrize(("wanders", "few"), [(0.0, True), (0.3, False)])
def test_a_training_loss_that_scatters_as_its_batches_do_leaves_the_validation_set_to_blame(
    wanders: float, few: bool
) -> None:
    """Four rows between evaluations."""
    weights = wanders * np.repeat(noise_of(30, 5), 4)
    case = of_others(1.0 + 0.6 * np.exp(-np.arange(120) / 30) + 0.1 * noise_of(120) + weights)
    steps = np.arange(4, 121, 4)
    case.history.add("validation/loss", steps, 1.0 + 0.6 * np.exp(-steps / 30) + 0.4 * noise_of(30, 1))
    assert (first_of(case) == "validation-too-small") is few


@pytest.mark.parametrize(("learned", "noisy"), [(0.72, True), (0.97, False)])
def test_the_training_accuracy_tells_wrong_labels_from_smoothed_ones(learned: float, noisy: bool) -> None:
    at = np.arange(1, 21)
    floor = 1.25  # three tenths of the labels of ten classes
    loss = floor + (np.log(10.0) - floor) * np.exp(-(at - 1) / 3) + 0.02 * noise_of(20)
    case = of_others(loss)
    case.history.add("train/accuracy", at, learned - (learned - 0.1) * np.exp(-at / 2))
    steps = np.arange(2, 21, 2)
    case.history.add("validation/loss", steps, 0.55 + 1.5 * np.exp(-steps / 3))
    case.history.add("validation/accuracy", steps, 0.95 - 0.6 * np.exp(-steps / 2))
    assert (first_of(case) == "label-noise") is noisy


@pytest.mark.parametrize(("end", "pulled"), [(1.78, True), (1.3, False)])
def test_losses_that_both_rise_at_once_to_a_level_are_pulled_to_a_guess(end: float, pulled: bool) -> None:
    at = np.arange(1, 17)
    case = of_others(end - (end - 1.72) * np.exp(-at / 2) + 0.002 * noise_of(16))
    case.history.add("validation/loss", at, 1.775 - 0.2 * np.exp(-at / 2) + 0.001 * noise_of(16, 1))
    assert (first_of(case) == "over-regularised") is pulled


@pytest.mark.parametrize(("slope", "twice"), [(1.0, True), (2.2, False)])
def test_a_loss_that_falls_as_the_accuracy_rises_is_of_probabilities_of_however_many_classes(
    slope: float, twice: bool
) -> None:
    """The first row is a mean over many steps, and so no ln K."""
    at = np.arange(10, 210, 10)
    right = 0.58 + 0.08 * (1 - np.exp(-at / 60)) + 0.002 * noise_of(20)
    loss = 2.17 - 0.6 - slope * (right - 0.6) + 0.002 * noise_of(20, 1)
    case = of_others(loss + 0.05 * np.exp(-np.arange(20)))
    case.history.add("validation/loss", np.arange(1, 21), loss)
    case.history.add("validation/accuracy", np.arange(1, 21), right)
    assert (first_of(case) == "double-softmax") is twice


@pytest.mark.parametrize(("rate", "told"), [(3e-3, True), (1e-5, False)])
def test_a_small_rise_to_a_level_is_of_a_pull_where_the_weights_are_new(rate: float, told: bool) -> None:
    """And where they are not, of a rate that was warmed up again."""
    loss = 4.5 - 0.2 * np.exp(-((np.arange(33) - 2.0) ** 2) / 2)
    case = case_of(loss, rates=np.full(33, rate), validation=dict(enumerate([4.41, *[4.5] * 15], 2)))
    found = next(iter(RULES["over-regularised"](replace(case, target="text"))), None)
    assert (isinstance(found, Finding) and found.severity == "warning") == told
