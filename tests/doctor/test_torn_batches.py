"""Damaged batches one after the other, and jumps like them that updates did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, falling, noise_of

from trimtab.doctor.diagnose import diagnose

STEPS, AT = 400, 250
FACTS: dict[str, Any] = {"task": "causal_lm", "tokenizer": {"vocabulary_size": 257}}
RATES = 3e-3 * np.minimum(np.arange(1, STEPS + 1) / 20, 1.0)


def course(jump: list[float], gradients: list[float]) -> tuple[Array, Array]:
    """A loss that comes down from what a guess among 257 costs, and its gradients, both with what is given at `AT`."""
    loss = falling(STEPS, start=5.55, floor=2.0, noise=0.06)
    norms = 0.8 * np.exp(0.2 * noise_of(STEPS, 1))
    loss[AT : AT + len(jump)] = jump
    norms[AT : AT + len(gradients)] = gradients
    return loss, norms


def told(loss: Array, norms: Array, rates: Array = RATES) -> list[tuple[str, int]]:
    """What is said aloud, with its onset."""
    findings = diagnose(case_of(loss, rates=rates, facts=FACTS, grad_norm=norms)).findings
    return [(one.code, one.onset_step) for one in findings if one.severity != "info"]


# As recorded of own runs on text and classes whose files were damaged: with batches that are partly so at either end.
DAMAGED = {
    "two": ([6.9, 7.1], [7.0, 6.3]),
    "two of which one is partly so": ([8.2, 4.4], [25.8, 9.2]),
    "three": ([5.1, 6.0, 3.7], [2.9, 3.1, 1.2]),
    "gradients that hardly stand out": ([6.0, 6.0, 4.7], [2.0, 2.2, 1.3, 1.3]),
    "two and a little of the third": ([6.8, 6.5], [3.0, 2.9]),
    "seven": ([4.0, 6.5, 6.1, 6.0, 5.7, 5.7, 5.1], [2.5, 4.6, 4.1, 4.0, 2.5, 1.9, 1.4]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_batches_that_are_damaged_one_after_the_other(name: str) -> None:
    loss, norms = course(*DAMAGED[name])
    if "little" in name:
        loss[AT + 2] += 0.9
    assert told(loss, norms)[:1] == [("corrupt-batch", AT + 1)]
    finding = diagnose(case_of(loss, rates=RATES, facts=FACTS, grad_norm=norms)).findings[0]
    assert f"steps {AT + 1} to {AT + len(DAMAGED[name][0])}" in finding.cause


# What mends bit by bit; what is less than nonsense costs; gradients that stay, or that grew before.
THROWN = {
    "mends": ([6.9, 6.0, 5.1, 4.4, 3.8, 3.3, 2.9, 2.7], [7.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5]),
    "mends soon": ([6.9, 6.0, 3.4, 3.1, 2.8], [7.0, 6.0, 2.0, 1.5, 1.2]),
    "comes twice": ([6.9, 4.4, 6.8, 6.4], [7.0, 6.0, 6.5, 6.0]),
    "rises": ([3.0, 4.0, 5.0, 6.0, 6.5], [2.0, 3.0, 4.0, 6.0, 7.0]),
    "low": ([4.4, 4.5], [7.0, 6.3]),
    "gradients stay": ([6.9, 7.1], [7.0, 6.3, 5.0, 4.0, 2.0]),
    "gradients are as ever": ([6.9, 7.1], [1.0, 1.1, 0.4]),
}


@pytest.mark.parametrize("name", THROWN)
def test_a_jump_of_several_steps_that_weights_may_have_done(name: str) -> None:
    assert "corrupt-batch" not in dict(told(*course(*THROWN[name])))


def test_what_came_before_speaks_for_the_weights() -> None:
    loss, norms = course(*DAMAGED["two"])
    norms[AT - 4 : AT] = [2.6, 3.4, 2.2, 4.0]
    assert told(loss, norms)[0][0] == "loss-spike"
    loss, norms = course(*DAMAGED["two"])
    burst = np.where(np.arange(STEPS) == AT - 1, 20 * RATES, RATES)
    assert "corrupt-batch" not in dict(told(loss, norms, burst))
    case = case_of(loss, rates=RATES, facts=FACTS)
    assert "corrupt-batch" not in [one.code for one in diagnose(case).findings]  # whose gradients are not known


def test_steps_that_cost_much_now_and_then_are_the_nature_of_the_data() -> None:
    loss, norms = course(*DAMAGED["two"])
    for place in range(60, STEPS, 24):
        loss[place] += 2.4
    assert "corrupt-batch" not in dict(told(loss, norms))


def test_a_single_batch_is_told_beside_them() -> None:
    """As high as they are, it is another one, where at the top of a warm-up it would be no more than a jump."""
    loss, norms = course(*DAMAGED["two"])
    loss[26], norms[26] = 8.6, 80.0
    assert told(loss, norms)[:1] == [("corrupt-batch", 27)]


def test_a_jump_of_one_step_that_the_next_batch_still_feels_is_no_damaged_batch() -> None:
    """As recorded of images in a deep network at a rate of 0.02, without a warm-up: 5.3 amid 1.0, then 2.0."""
    for (after, gradient), expected in (
        ((3.2, 14.0), "loss-spike"),
        ((3.2, 0.9), "corrupt-batch"),
        ((2.2, 14.0), "corrupt-batch"),
    ):
        loss, norms = course([7.0, after], [13.8, gradient])
        assert told(loss, norms)[0] == (expected, AT + 1)


def test_single_batches_far_from_each_other_are_counted() -> None:
    loss, norms = course([7.0], [13.8])
    loss[AT + 70], norms[AT + 70] = 7.2, 14.0
    finding = diagnose(case_of(loss, rates=RATES, facts=FACTS, grad_norm=norms)).findings[0]
    assert finding.code == "corrupt-batch"
    assert finding.cause.endswith("the loss jumped in that step alone, and in 1 more")
