"""Levels joined by ramps, against the closed form at every step."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import AccumulationSchedule, Config, PiecewiseSchedule, load_config
from trimtab.errors import ConfigError
from trimtab.schedules import Piecewise, Stairs, build_schedule, build_stairs
from trimtab.testing import check_schedule


def test_every_step_by_hand() -> None:
    schedule = Piecewise(20, (1.0, 0.2, 0.6), (8, 14), 4, "linear", warmup_steps=2)
    expected = [0.5] + [1.0] * 7 + [0.8, 0.6, 0.4, 0.2, 0.2, 0.2] + [0.3, 0.4, 0.5, 0.6, 0.6, 0.6]
    assert [schedule.factor(step) for step in range(20)] == pytest.approx(expected)
    cosine = Piecewise(20, (1.0, 0.2), (8,), 4)
    ramp = [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(1, 5)]
    assert [cosine.factor(step) for step in range(8, 12)] == pytest.approx(ramp)
    assert Piecewise(20, (1.0, 0.2), (8,), 0).factor(8) == 0.2, "a jump"
    assert Piecewise(10, (1.0, 0.0), (8,), 50, "linear").factor(9) == 0.0, "a ramp ends with its part"
    assert schedule.factor(1000) == 0.6


PARTS = st.lists(st.tuples(st.floats(0.01, 1.0), st.integers(1, 40)), min_size=1, max_size=5)


@given(parts=PARTS, join=st.integers(0, 50), shape=st.sampled_from(["linear", "cosine"]), warmup=st.integers(0, 10))
def test_it_is_the_closed_form_and_joins_continuously(
    parts: list[tuple[float, int]], join: int, shape: str, warmup: int
) -> None:
    levels = tuple(level for level, _ in parts)
    lengths = [length for _, length in parts]
    starts = tuple(int(start) for start in warmup + np.cumsum(lengths)[:-1])
    total = warmup + sum(lengths)
    schedule = Piecewise(total, levels, starts, join, shape, warmup)
    expected = [levels[0] * (i + 1) / warmup for i in range(warmup)] + [levels[0]] * lengths[0]
    for before, after, length in zip(levels, levels[1:], lengths[1:], strict=False):
        ramp = min(join, length)
        x = np.arange(1, ramp + 1) / max(1, ramp)
        x = x if shape == "linear" else (1 - np.cos(np.pi * x)) / 2
        expected += [*(before + (after - before) * x), *[after] * (length - ramp)]
    factors = [schedule.factor(step) for step in range(total)]
    assert factors == pytest.approx(expected)
    for (before, after), length, start in zip(pairwise(levels), lengths[1:], starts, strict=True):
        ramp = max(1, min(join, length))
        steepest = abs(after - before) * (1.0 if shape == "linear" else math.pi / 2) / ramp
        part = factors[start - 1 : start + ramp]
        assert max(abs(a - b) for a, b in pairwise(part)) <= steepest * (1 + 1e-6) + 1e-12
    check_schedule(schedule, total)


def test_the_configuration_builds_it_in_every_unit() -> None:
    config = PiecewiseSchedule.model_validate(
        {"warmup": 10, "levels": [1.0, 0.3, 0.05], "lengths": [0.5, "30 steps"], "join": 0.1, "shape": "linear"}
    )
    assert build_schedule(config, 100) == Piecewise(100, (1.0, 0.3, 0.05), (60, 90), 10, "linear", 10)
    growth = AccumulationSchedule.model_validate({"factors": [1, 2, 8], "lengths": [0.25, 0.25]})
    assert build_stairs(growth, 100) == Stairs((1, 2, 8), (25, 50))
    assert build_stairs(None, 100).value(70) == 1


@given(values=st.lists(st.integers(1, 9), min_size=1, max_size=4), data=st.data(), steps=st.integers(1, 60))
def test_stairs_and_their_mean(values: list[int], data: st.DataObject, steps: int) -> None:
    starts = sorted(data.draw(st.lists(st.integers(1, 80), min_size=len(values) - 1, max_size=len(values) - 1)))
    stairs = Stairs(tuple(values), tuple(starts))
    given_values = [stairs.value(step) for step in range(steps)]
    assert stairs.mean(steps) == pytest.approx(np.mean(given_values))
    assert given_values == [values[sum(start <= step for start in starts)] for step in range(steps)]


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["schedule={name: piecewise, levels: [1, 0.5]   , lengths: []}"], "lengths must be one fewer than levels"),
        (["schedule={name: piecewise, levels: [0, 1], lengths: [0.5]}"], "begins with 0: the first steps would train"),
        (["schedule={name: piecewise, levels: [1, 2], lengths: [0.5]}"], "schedule.levels"),
        (["schedule={name: piecewise, levels: [1, 0.5], lengths: [0]}"], "must be longer than 0"),
        (["training.accumulation_schedule={factors: [1, 2, 4]}"], "lengths must be one fewer than factors"),
        (["training.accumulation_schedule={factors: [0, 2]}"], "at least 1"),
        (
            ["training.accumulation_schedule={factors: [1, 2]}", "schedule.warmup='1e5 tokens'"],
            "schedule counts tokens",
        ),
        (["training.accumulation_schedule={lengths: ['1 epochs']}"], "training.accumulation_schedule counts tokens"),
        *(
            (["training.accumulation_schedule={factors: [1, 2]}", setting], said)
            for setting, said in (
                ("optimizer_switch={at: '1e5 tokens', to: {name: sgd}}", "optimizer_switch counts tokens"),
                ("averaging={name: swa, start: '1 epochs'}", "averaging counts tokens"),
                ("averaging={name: ema, half_life: '1e5 tokens'}", "averaging counts tokens"),
                ("training.quantize={name: int8, start: '1e5 tokens'}", "training.quantize counts tokens"),
                (
                    "optimizer.rates.schedules={'*': {name: linear, warmup: '1e5 tokens'}}",
                    "optimizer.rates.schedules.* counts tokens",
                ),
            )
        ),
        (["dropout_schedule.name=linear"], "dropout_schedule has no effect: every rate of model.dropout is 0"),
        (
            ["dropout_schedule.name=linear", "model={name: custom, target: 'a:b'}", "training.compile=on"],
            "would compile it anew",
        ),
    ],
)
def test_what_is_wrong_is_said(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides, environment={})
    assert said in str(caught.value)


def test_a_batch_that_grows_has_several_micro_batches_at_some_step() -> None:
    measured = ["logging.noise_scale.every=5"]
    with pytest.raises(ConfigError, match="compares the micro-batches of a step"):
        load_config(None, measured, environment={})
    grown = load_config(None, [*measured, "training.accumulation_schedule={factors: [1, 2]}"], environment={})
    assert grown.has_parts


def test_dropout_may_begin_at_nothing() -> None:
    late: dict[str, Any] = {"name": "piecewise", "warmup": 0, "levels": [0.0, 1.0], "lengths": [0.5], "join": 0.1}
    model = {"name": "decoder", "dropout": {"residual": 0.2}}
    config = Config.model_validate({"dropout_schedule": late, "model": model})
    assert config.dropout_schedule is not None
    schedule = build_schedule(config.dropout_schedule, 100)
    assert [schedule.factor(step) for step in (0, 49, 59, 99)] == [0.0, 0.0, 1.0, 1.0]
