"""What an examination says of the numbers it comes to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from trimtab.experiments.checks import (
    Check,
    Guess,
    Held,
    in_agreement,
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


def held(losses: np.ndarray, accuracy: float | None = None, training_loss: float = 0.1) -> Held:
    return Held(losses, np.ones(len(losses)), accuracy, 100, training_loss)


def test_shuffled_targets_are_judged_on_samples_that_were_not_trained_on() -> None:
    draw = np.random.default_rng(0).normal
    guess = Guess(np.full(100, 1.06), 47.0)
    loss = 1.08 + 0.1 * draw(size=100)
    # Both are learned by heart: the training loss is far lower with the right ones, and says nothing.
    check = judge_shuffled(held(loss, 0.48), held(loss + 0.02 * draw(size=100), 0.5, training_loss=0.9), guess)
    assert (check.verdict, check.code) == ("failed", "random-labels")
    assert "by heart" in check.text
    assert judge_shuffled(held(loss - 0.8, 0.9), held(loss), guess).verdict == "passed"
    # Better than shuffled, and no better than no input at all: not enough.
    assert judge_shuffled(held(loss, 0.48), held(loss + 0.5), guess).verdict == "unclear"
    # A loss that overconfidence spoils, and answers that are right.
    assert judge_shuffled(held(loss + 0.1, 0.9), held(loss + 0.6), guess).verdict == "passed"
    assert judge_shuffled(held(loss), held(loss + 0.5), None).verdict == "passed"
    assert judge_shuffled(held(loss * math.nan), held(loss), None).verdict == "unclear"


def test_no_check_contradicts_another() -> None:
    rate = judge_rate(range_test(None, None), 1e-3)
    told = {
        verdict: in_agreement([rate, Check("shuffled targets", verdict, "", code)])[0]  # type: ignore[arg-type]
        for verdict, code in (("passed", ""), ("failed", "random-labels"), ("unclear", ""))
    }
    assert [told[verdict].verdict for verdict in ("passed", "failed", "unclear")] == ["unclear", "unclear", "failed"]
    assert "find-lr" in told["passed"].text
    sound = judge_rate(range_test(2e-3, 0.1), 1e-3)
    assert in_agreement([sound, Check("shuffled targets", "passed", "")])[0] is sound


def test_modes_gradients_and_future() -> None:
    assert judge_modes(2.0, 2.0, 2.2).verdict == "passed"
    assert judge_modes(2.0, 2.1, 2.2).code == "evaluated-in-training-mode"
    assert judge_modes(3.0, 3.0, 2.0).verdict == "failed"
    assert judge_modes(3.0, 3.0, 2.0, 0.04).verdict == "failed"
    assert judge_modes(3.0, 3.0, 2.0, 0.4).verdict == "passed"
    assert judge_gradients([], [], [], ["a"], 3).verdict == "passed"
    assert judge_gradients(["a"], [], [], [], 3).code == "frozen-parameters"
    assert "b and 2 more" in judge_gradients([], list("cdefbgh"), [], [], 9).text
    assert judge_gradients([], ["a"], ["b"], [], 3).code == "nan-loss"
    assert judge_future(0.0, 5.0, 0.1, 4).verdict == "passed"
    assert judge_future(1e-2, 5.0, 0.1, 4).code == judge_future(0.0, 5.0, 1.0, 4).code == "target-leak"
    assert json.loads(json.dumps(judge_gradients(["a"], [], [], [], 3).to_json()))["verdict"] == "failed"
