"""Textbook cases in logs of others, each beside the sound or other one that it is told from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, falling, noise_of

from trimtab.doctor import Case
from trimtab.doctor.diagnose import diagnose


def first_of(case: Case) -> str:
    """What leads, where it is a warning or worse."""
    found = [one.code for one in diagnose(case).findings if one.severity != "info"]
    return found[0] if found else ""


def of_others(loss: Array, **named: Any) -> Case:
    case = case_of(loss, **named)
    return Case(case.history, {}, case.facts, "text")


@pytest.mark.parametrize(("before", "first"), [([1.0, 1.1, 1.6], "divergence"), ([1.0, 0.8, 0.7], "nan-loss")])
def test_a_loss_that_rose_until_it_was_no_number_has_diverged(before: list[float], first: str) -> None:
    assert first_of(of_others(np.array(before + [np.nan] * 40))) == first


@pytest.mark.parametrize(("power", "first"), [(1.5, "gradients-not-cleared"), (0.0, "divergence")])
def test_a_gradient_that_grows_like_a_power_to_the_end_is_a_sum(power: float, first: str) -> None:
    at = np.arange(1, 61)
    loss = np.where(at < 5, 4.0 - 0.2 * at, 30.0) * np.exp(0.1 * noise_of(60))
    norms = 5.0 * at**power * np.exp(0.08 * noise_of(60, 1))
    assert first_of(of_others(loss, grad_norm=norms)) == first


@pytest.mark.parametrize(("rate", "first"), [(2e-3, "bad-initialization"), (0.5, "")])
def test_few_classes_are_seen_in_the_end_unless_the_rate_threw_the_first_loss_up(rate: float, first: str) -> None:
    at = np.arange(1, 61)
    loss = 1.46 + 7.0 * np.exp(-at / 3) + 0.01 * noise_of(60)
    case = of_others(loss, rates=np.full(60, rate))
    steps = np.arange(6, 61, 6)
    case.history.add("validation/loss", steps, 1.46 + 7.0 * np.exp(-steps / 3) + 0.02 * noise_of(10, 1))
    case.history.add("validation/accuracy", steps, 0.48 - 0.4 * np.exp(-steps / 5))
    assert first_of(case) == first


@pytest.mark.parametrize(("total", "first"), [(600, "stopped-too-early"), (200, "")])
def test_a_state_file_tells_that_a_run_ended_before_its_plan(total: int, first: str) -> None:
    loss = falling(150)
    case = of_others(
        loss,
        rates=np.full(150, 1e-3),
        validation={step: float(falling(150, noise=0.0)[step - 1]) for step in (50, 100, 150)},
        total_steps=total,
        facts={"log": {"max_steps": total}, "planned_steps": total},
    )
    assert first_of(case) == first


@pytest.mark.parametrize("steps", [600, 590])
def test_a_cosine_that_hardly_came_down_may_have_been_stopped(steps: int) -> None:
    at = np.arange(1, steps + 1)
    case = of_others(
        falling(steps, noise=0.05),
        rates=1e-3 * (0.5 + 0.5 * np.cos(np.pi * at / 3_000)),
        validation={int(step): float(falling(steps, noise=0.0)[step - 1]) for step in range(60, steps + 1, 60)},
    )
    told = next(one for one in diagnose(case).findings if one.code == "schedule-mismatch")
    assert (told.severity, told.confidence < 0.6) == ("info", True)


@pytest.mark.parametrize(("falls", "first"), [(True, "loss-spike"), (False, "divergence")])
def test_a_spike_that_is_nearly_made_good_and_still_falls_has_not_left(falls: bool, first: str) -> None:
    at = np.arange(1, 61)
    loss = 2.3 + 2.3 * np.exp(-at / 4) + 0.05 * noise_of(60)
    after = np.arange(20)
    loss[40:] += 42.0 * np.exp(-after / (4 if falls else 2)) + (3.0 * np.exp(-after / 12) if falls else 3.0)
    assert first_of(of_others(loss)) == first


def test_a_slice_that_is_first_judged_late_makes_no_other_data_of_overfitting() -> None:
    at, judged = np.arange(1, 301), np.arange(20, 301, 20)
    loss = 0.2 + 4.2 * np.exp(-at / 20)
    case = of_others(loss, validation={int(step): 3.0 + 0.012 * (step - 20) for step in judged})
    case.history.add("training_slice/loss", judged, loss[judged - 1])
    assert first_of(case) == "overfitting"
