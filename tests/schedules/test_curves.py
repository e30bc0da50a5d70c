"""Schedules against their closed forms, at every step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import (
    Budget,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    UnknownLengthError,
    WsdSchedule,
    load_config,
    steps_of,
)
from trimtab.errors import ConfigError
from trimtab.schedules import Constant, Cosine, Exponential, Linear, Polynomial, Wsd, build_schedule
from trimtab.testing import check_schedule

TOTAL = st.integers(2, 400)


@given(total=TOTAL, warmup=st.floats(0, 0.5), floor=st.floats(0, 1))
def test_laws(total: int, warmup: float, floor: float) -> None:
    """Full rate at the end of the warm-up, the floor exactly at the last step, falling in between."""
    warmup_steps = steps_of(warmup, total)
    for schedule in (
        Linear(total, warmup_steps, floor),
        Cosine(total, warmup_steps, floor),
        Polynomial(total, warmup_steps, floor, 3.0),
        Exponential(total, warmup_steps, max(floor, 1e-6)),
    ):
        check_schedule(schedule, total)
        factors = [schedule.factor(step) for step in range(total)]
        assert factors[-1] == pytest.approx(floor, abs=1e-6)
        assert factors[warmup_steps:] == sorted(factors[warmup_steps:], reverse=True)
        if warmup_steps:
            assert factors[warmup_steps - 1] == 1.0
            assert factors[0] == 1.0 / warmup_steps


def test_cosine_closed_form() -> None:
    schedule = Cosine(100, 10, 0.1)
    for step in range(10, 100):
        progress = (step - 9) / 90
        assert schedule.factor(step) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def test_linear_closed_form() -> None:
    schedule = Linear(50, 0, 0.0)
    assert [schedule.factor(step) for step in range(50)] == pytest.approx([1 - (step + 1) / 50 for step in range(50)])


@pytest.mark.parametrize("shape,fall", [("linear", lambda x: x), ("sqrt", math.sqrt)])
def test_wsd_closed_form(shape: str, fall: object) -> None:
    schedule = Wsd(100, 10, 20, shape, 0.1)
    assert [schedule.factor(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(schedule.factor(step) == 1.0 for step in range(10, 80))
    for step in range(80, 100):
        assert schedule.factor(step) == pytest.approx(1 - 0.9 * fall((step - 79) / 20))  # type: ignore[operator]


def test_constant() -> None:
    assert [Constant(4).factor(step) for step in (0, 3, 4, 1000)] == [0.25, 1.0, 1.0, 1.0]


def test_spans_count_steps_or_parts() -> None:
    assert build_schedule(ConstantSchedule(warmup=7), 100) == Constant(7)
    assert build_schedule(LinearSchedule(warmup=0.1), 200) == Linear(200, 20, 0.0)
    assert build_schedule(CosineSchedule(warmup=1000, floor=0.0), 100) == Cosine(100, 100, 0.0)
    assert build_schedule(WsdSchedule(warmup=0, decay=0.2), 50) == Wsd(50, 0, 10)


BUDGET = Budget(1000, tokens_per_step=4096, tokens_per_epoch=1_000_000)


@pytest.mark.parametrize(
    "span,steps",
    [
        (30, 30),
        (0.25, 250),
        ("30 steps", 30),
        ("409_600 tokens", 100),
        ("2e6 tokens", 488),
        ("0.5 epochs", 122),
        ("1 tokens", 1),
        ("0 epochs", 0),
        ("9 epochs", 1000),
    ],
)
def test_spans_have_units(span: int | float | str, steps: int) -> None:
    assert steps_of(span, BUDGET) == steps
    assert build_schedule(ConstantSchedule(warmup=span), BUDGET) == Constant(steps)


def test_a_length_that_is_not_known_is_said() -> None:
    with pytest.raises(UnknownLengthError, match=r"'0\.5 epochs'"):
        steps_of("0.5 epochs", Budget(1000, tokens_per_step=4096))
    with pytest.raises(UnknownLengthError):
        steps_of("5 tokens", 1000)


@pytest.mark.parametrize("span", ["5 hours", "tokens", "-1 steps", "5  steps", "'5 steps '"])
def test_other_texts_are_refused(span: str) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.warmup"):
        load_config(None, [f"schedule.warmup={span}"], environment={})
