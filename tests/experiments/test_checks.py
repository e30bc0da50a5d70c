"""What an examination says of the numbers it comes to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from trimtab.experiments.checks import (
    judge_future,
    judge_gradients,
    judge_modes,
    judge_one_batch,
    judge_rate,
    judge_shuffled,
)
from trimtab.experiments.range_test import RangeTest


def range_test(suggestion: float | None, diverged: float | None, scale: float = 1.0) -> RangeTest:
    return RangeTest((), (), (), None, None, diverged, 2.0, suggestion, "why", scale)


@pytest.mark.parametrize(
    ("rate", "suggestion", "diverged", "verdict", "code"),
    [
        (1e-3, 2e-3, 0.1, "passed", ""),
        (1e-3, 2e-3, None, "passed", ""),
        (0.2, 2e-3, 0.1, "failed", "learning-rate-too-high"),
        (1e-5, 2e-3, 0.1, "failed", "learning-rate-too-low"),
        (1e-3, None, None, "failed", ""),
    ],
)
def test_the_rate(rate: float, suggestion: float | None, diverged: float | None, verdict: str, code: str) -> None:
    check = judge_rate(range_test(suggestion, diverged), rate)
    assert (check.verdict, check.code) == (verdict, code)


def test_a_rate_beyond_the_lowest_loss_is_too_high() -> None:
    test = RangeTest((), (), (), None, 0.05, None, 2.0, 5e-3, "why")
    assert judge_rate(test, 0.04).verdict == "passed"
    assert judge_rate(test, 0.5).code == "learning-rate-too-high"


def test_a_rate_is_compared_as_applied() -> None:
    assert judge_rate(range_test(1e-3, None, scale=100.0), 0.1).observed["suggestion"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([4.0, 2.0, 0.3], "passed"),
        ([4.0, 2.0, 1.5], "unclear"),
        ([4.0, 3.9, 3.8], "failed"),
        ([4.0, math.nan], "failed"),
    ],
)
def test_one_batch(losses: list[float], verdict: str) -> None:
    assert judge_one_batch(losses, 2).verdict == verdict


def test_shuffled_targets_are_compared_in_units_of_their_error() -> None:
    draw = np.random.default_rng(0).normal
    hard = draw(size=100) * 0.3  # what makes a batch hard is the same for both
    real, other = 2.0 + hard, 2.0 + hard + 0.02 * draw(size=100)
    assert judge_shuffled(real, other).verdict == "failed"
    assert judge_shuffled(real, other).code == "random-labels"
    assert judge_shuffled(real, other + 0.2).verdict == "passed"
    assert judge_shuffled(real, other + 0.018).verdict in ("unclear", "failed")
    assert judge_shuffled(real, other * math.nan).verdict == "unclear"


def test_modes_gradients_and_future() -> None:
    assert judge_modes(2.0, 2.0, 2.2).verdict == "passed"
    assert judge_modes(2.0, 2.1, 2.2).code == "evaluated-in-training-mode"
    assert judge_modes(3.0, 3.0, 2.0).verdict == "failed"
    assert judge_gradients([], [], [], ["a"], 3).verdict == "passed"
    assert judge_gradients(["a"], [], [], [], 3).code == "frozen-parameters"
    assert "b and 2 more" in judge_gradients([], list("cdefbgh"), [], [], 9).text
    assert judge_gradients([], ["a"], ["b"], [], 3).code == "nan-loss"
    assert judge_future(0.0, 5.0, 0.1, 4).verdict == "passed"
    assert judge_future(1e-2, 5.0, 0.1, 4).code == judge_future(0.0, 5.0, 1.0, 4).code == "target-leak"
    assert json.loads(json.dumps(judge_gradients(["a"], [], [], [], 3).to_json()))["verdict"] == "failed"
