"""Every curve against torch's or transformers' own scheduler, at all steps, and beyond the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from trimtab.config import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    ExpRangeSchedule,
    InverseSquareRootSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PolynomialSchedule,
    ScheduleConfig,
    StepSchedule,
    TriangularSchedule,
    WarmRestartsSchedule,
    WsdSchedule,
)
from trimtab.schedules import build_schedule
from trimtab.testing import check_schedule

transformers = pytest.importorskip("transformers")
STEPS = 200


def rates(make: Callable[[torch.optim.Optimizer], Any], count: int) -> list[float]:
    """The rate after 0, 1, … calls of `step()`, for a full rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    found = []
    for _ in range(count):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


def ours(config: ScheduleConfig, steps: int = STEPS) -> list[float]:
    schedule = build_schedule(config, steps)
    return [schedule.factor(step) for step in range(steps)]


def wsd(optimizer: torch.optim.Optimizer) -> Any:
    return transformers.get_wsd_schedule(
        optimizer,
        num_warmup_steps=20,
        num_decay_steps=50,
        num_training_steps=STEPS,
        min_lr_ratio=0.0,
        decay_type="linear",
    )


SHIFTED: list[tuple[str, ScheduleConfig, Callable[[torch.optim.Optimizer], Any]]] = [
    (
        "constant",
        ConstantSchedule(warmup=20),
        lambda o: transformers.get_constant_schedule_with_warmup(o, 20),
    ),
    ("linear", LinearSchedule(warmup=20), lambda o: transformers.get_linear_schedule_with_warmup(o, 20, STEPS)),
    ("linear to a floor", LinearSchedule(warmup=0, floor=0.2), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, STEPS)),
    (
        "cosine",
        CosineSchedule(warmup=20, floor=0.1),
        lambda o: transformers.get_cosine_with_min_lr_schedule_with_warmup(o, 20, STEPS, min_lr_rate=0.1),
    ),
    ("cosine alone", CosineSchedule(warmup=0, floor=0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.1)),
    ("polynomial", PolynomialSchedule(warmup=0, power=3.0), lambda o: lr_scheduler.PolynomialLR(o, STEPS, 3.0)),
    (
        "polynomial with warm-up",
        PolynomialSchedule(warmup=20, floor=0.05),
        lambda o: transformers.get_polynomial_decay_schedule_with_warmup(o, 20, STEPS, lr_end=0.05, power=2.0),
    ),
    (
        "exponential",
        ExponentialSchedule(warmup=0, floor=0.02),
        lambda o: lr_scheduler.ExponentialLR(o, 0.02 ** (1 / STEPS)),
    ),
    (
        "inverse square root",
        InverseSquareRootSchedule(warmup=20),
        lambda o: transformers.get_inverse_sqrt_schedule(o, 20),
    ),
    (
        "inverse square root, timescale",
        InverseSquareRootSchedule(warmup=20, timescale=50),
        lambda o: transformers.get_inverse_sqrt_schedule(o, 20, timescale=50),
    ),
    ("wsd", WsdSchedule(warmup=20, decay=50), wsd),
    (
        "triangular",
        TriangularSchedule(rise=15, fall=25, floor=0.1),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 15, 25, cycle_momentum=False),
    ),
    (
        "triangular2",
        TriangularSchedule(rise=20, halved=True),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 20, mode="triangular2", cycle_momentum=False),
    ),
    (
        "exp_range",
        ExpRangeSchedule(rise=10, fall=30, final=0.2, floor=0.05),
        lambda o: lr_scheduler.CyclicLR(
            o, 0.05, 1.0, 10, 30, mode="exp_range", gamma=0.2 ** (1 / STEPS), cycle_momentum=False
        ),
    ),
]


@pytest.mark.parametrize("config,make", [case[1:] for case in SHIFTED], ids=[case[0] for case in SHIFTED])
def test_the_same_curve_one_step_on(config: ScheduleConfig, make: Callable[[torch.optim.Optimizer], Any]) -> None:
    """Theirs gives the first step what lies at the start, which is 0 for a warm-up; ours what lies at its end."""
    assert ours(config) == pytest.approx(rates(make, STEPS + 1)[1:], abs=1e-9)


def test_step_is_torch_from_the_first_step_on() -> None:
    ours_ = ours(StepSchedule(warmup=0, every=30, factor=0.5))
    assert ours_ == pytest.approx(rates(lambda o: lr_scheduler.StepLR(o, 30, 0.5), STEPS))


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_one_cycle_is_torch_from_the_first_step_on(shape: Any) -> None:
    strategy = "cos" if shape == "cosine" else shape
    theirs = rates(
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, STEPS, pct_start=0.3, anneal_strategy=strategy, cycle_momentum=False),
        STEPS,
    )
    assert ours(OneCycleSchedule(shape=shape)) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("growth,period", [(1, 40), (2, 25), (3, 20)])
def test_warm_restarts_is_torch_but_where_it_restarts(growth: int, period: int) -> None:
    """There torch is at the full rate again; ours has come to the floor, as the paper's equation does at T_cur = T."""
    theirs = rates(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, period, growth, 0.1), STEPS + 1)[1:]
    mine = ours(WarmRestartsSchedule(period=period, growth=growth, floor=0.1))
    ends, end, length = [], period, period
    while end <= STEPS:
        ends.append(end - 1)
        length *= growth
        end += length
    for step, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if step in ends:
            assert (a, b) == (pytest.approx(0.1), pytest.approx(1.0)), step
        else:
            assert a == pytest.approx(b), step


def test_warm_restarts_after_a_warmup() -> None:
    rise = ours(WarmRestartsSchedule(warmup=20, period=45))
    assert rise[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rise[20:] == pytest.approx(ours(WarmRestartsSchedule(period=45), 180))


def test_step_and_floor_after_a_warmup() -> None:
    factors = ours(StepSchedule(warmup=10, every=20, factor=0.5, floor=0.2), 100)
    assert factors[9:30] == [1.0] * 21
    assert [factors[step] for step in (30, 49, 50, 69, 70, 99)] == [0.5, 0.5, 0.25, 0.25, 0.2, 0.2]
    root = ours(InverseSquareRootSchedule(warmup=10, floor=0.5), 100)
    assert root[10:] == pytest.approx([max(0.5, math.sqrt(10 / (step + 1))) for step in range(10, 100)])


CONFIGS: list[ScheduleConfig] = [
    *(case[1] for case in SHIFTED),
    StepSchedule(),
    OneCycleSchedule(),
    OneCycleSchedule(warmup=0),
    OneCycleSchedule(warmup=1),
    OneCycleSchedule(warmup=1.0),
    WarmRestartsSchedule(),
    WarmRestartsSchedule(warmup=3, growth=2),
    InverseSquareRootSchedule(warmup=0),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("steps", [1, 2, 7, STEPS])
def test_conformance(config: ScheduleConfig, steps: int) -> None:
    check_schedule(build_schedule(config, steps), steps)
