"""What rises in a log of another trainer for good, for a while, or as its schedule plans."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Array, case_of, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.rules import RULES


def found(code: str, loss: Array, **named: object) -> list[Finding]:
    """What a rule finds in another trainer's log."""
    case: Case = case_of(loss, **named)  # type: ignore[arg-type]
    object.__setattr__(case, "target", "torch")
    return [one for one in RULES[code](case) if isinstance(one, Finding)]


@pytest.mark.parametrize(
    ("start", "floor", "end", "severity"),
    [
        (2.3, 0.5, 2.2, "warning"),
        (2.3, 0.5, 2.6, "error"),
        (2.3, 0.5, 5.0, "error"),
        (0.69, 0.2, 1.5, "error"),
        (2.1, 1.6, 2.2, "error"),
        (4.6, 3.0, 6.5, "error"),
        (10.8, 7.0, 13.0, "error"),
        (10.8, 7.0, 10.7, "warning"),  # as high as a guess
        (10.8, 3.5, 7.5, "info"),
        (1.4, 1.0, 4.0, "player"),  # one that begins to lose had hardly gained, and scatters
    ],
)
def test_a_loss_that_had_gained_much_and_leaves_is_a_divergence_however_high_it_goes(
    start: float, floor: float, end: float, severity: str
) -> None:
    at = np.arange(160.0)
    left = (end - floor) * -np.expm1(-np.maximum(at - 90, 0) / 10)
    scatter = 0.25 if severity == "player" else 0.04 * min(max(floor, 0.3), 3.0)
    loss = floor + (start - floor) * np.exp(-at / 18) + left + scatter * noise_of(160)
    (one,) = found("divergence", loss, rates=np.full(160, 1e-3))
    assert one.severity == ("info" if severity == "player" else severity)


def test_the_mean_loss_of_a_player_that_loses_by_and_by_is_a_remark() -> None:
    at = np.arange(200.0)
    loss = 0.9 + 0.3 * np.exp(-at / 8) + 2.2 * (at / 200) + 0.04 * noise_of(200)
    assert [one.severity for one in found("divergence", loss, rates=np.full(200, 2e-4))] == ["info"]


@pytest.mark.parametrize("restarts", [True, False])
def test_a_norm_that_grows_in_each_cycle_is_no_sum_where_the_rate_restarts_and_a_remark_elsewhere(
    restarts: bool,
) -> None:
    part = np.arange(200) % 40 / 40
    norms = (1 + 1.6 * part) * np.exp(0.06 * noise_of(200))
    rates = 5e-4 * (1 + np.cos(np.pi * part)) if restarts else np.full(200, 1e-3)
    loss = 2 + 1.5 * np.exp(-np.arange(200) / 60) + 0.03 * noise_of(200, seed=1)
    said = [one.severity for one in found("gradients-not-cleared", loss, rates=rates, grad_norm=norms)]
    assert said == ([] if restarts else ["info"])


def test_a_loss_that_creeps_up_and_comes_back_is_remarked() -> None:
    at = np.arange(200.0)
    bump = np.where(at < 132, 1.2 * np.clip((at - 120) / 12, 0, 1), 1.2 * np.exp(-(at - 132) / 4))
    loss = 3.2 + 7.3 * (1 + at / 8) ** -0.6 + bump + 0.08 * noise_of(200)
    (one,) = found("loss-spike", loss, rates=np.full(200, 6e-4))
    assert (one.severity, "crept" in one.cause) == ("info", True)


def test_evaluations_that_rise_where_the_rate_restarts_are_no_sign_of_a_high_rate() -> None:
    at = np.arange(60)
    part = at % 10 / 10
    judged = 0.5 + 1.2 * np.exp(-at / 25) + 0.25 * np.exp(-6 * part) * (at >= 10)
    loss, validation = judged - 0.1 + 0.01 * noise_of(60), judged + 0.015 * noise_of(60, seed=1)
    rates = 0.05 * (1 + np.cos(np.pi * part))
    named = {"validation": dict(enumerate(validation.tolist(), start=1))}
    assert not found("learning-rate-too-high", loss, rates=rates, **named)
    assert found("learning-rate-too-high", loss, rates=np.full(60, 0.1), **named)


@pytest.mark.parametrize("grows", [True, False])
def test_a_speed_tells_no_length_of_a_step(grows: bool) -> None:
    speed = np.linspace(5.2e4, 3.6e4, 120) * (1 + 0.01 * noise_of(120))
    more = {"user/batch_tokens": np.repeat([512.0, 1024.0, 2048.0], 40)} if grows else {}
    said = found("throughput-decay", np.full(120, 2.0), tokens_per_second=speed, **more)
    assert [one.evidence[0].metric for one in said] == ([] if grows else ["tokens_per_second"])
    assert not any("a step took" in one.evidence[0].text for one in said)
