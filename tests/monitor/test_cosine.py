"""The cosine between successive gradients against plain calculations, and what it remembers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_step import make_batch, make_step
from torch import Tensor

from trimtab.config import Bf16, Fp16, Fp32
from trimtab.monitor.probes import GradientCosine
from trimtab.monitor.probes.cosine import places
from trimtab.optimizer import AdamW, parameter_groups
from trimtab.signals import Gradients, StepSignals
from trimtab.training import Step

ONE, NO = torch.ones(()), torch.zeros(())


def both(probe: GradientCosine, gradients: Mapping[str, Tensor], skip: Tensor = NO) -> list[float]:
    return probe.read(StepSignals(Gradients(gradients, NO, NO, ONE, skip), {}, {})).tolist()


def told(probe: GradientCosine, gradients: Mapping[str, Tensor], skip: Tensor = NO) -> float:
    return both(probe, gradients, skip)[0]


def plainly(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    a, b = (np.concatenate([g.double().numpy().ravel() for g in each.values()]) for each in (one, other))
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize(
    "precision,parameters,parts",
    [
        (Fp32(), torch.float32, 1),
        (Fp16(initial_scale=256.0), torch.float32, 3),
        (Bf16(), torch.bfloat16, 1),
        (Bf16(), torch.bfloat16, 2),
    ],
    ids=["fp32", "fp16 in parts", "bf16 weights", "bf16 weights in parts"],
)
def test_of_steps_against_a_plain_computation(precision: Any, parameters: torch.dtype, parts: int) -> None:
    """Also over micro-batches, under a loss scale that changes, and around a step that is skipped."""
    step = make_step(precision=precision, parameters=parameters)
    probe = GradientCosine(step.optimizer.storage.gradients, seed=0)
    step.probes, step._unread = (probe,), [torch.zeros(1)]
    found: list[dict[str, Tensor]] = []
    cosines: list[float] = []
    read = probe.read

    def kept(signals: StepSignals) -> Tensor:
        found.append({name: one.clone() for name, one in signals.gradients.by_name.items()})
        cosine, error = read(signals).tolist()
        assert error == 0.0 or math.isnan(cosine), "all values are seen"
        cosines.append(cosine)
        return torch.zeros(0)

    probe.read = kept  # type: ignore[method-assign]
    for number in range(1, 6):
        step.holds.fill_(float(number == 3))
        step.run([make_batch(2, number * 10 + part) for part in range(parts)], number)
        if step.precision.scaler is not None:
            step.precision.scaler.scale.mul_(0.5)
    expected = [plainly(found[a], found[b]) for a, b in ((0, 1), (1, 2), (1, 3), (3, 4))]
    assert math.isnan(cosines[0])
    assert cosines[1:] == pytest.approx(expected, abs=2e-6)
    assert len({round(value, 3) for value in expected}) == 4


def test_a_sample_is_right_within_its_error() -> None:
    """Parameters of different sizes and scales, of which one holds most values and another most of the gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes, scales = {"a": (1000, 300), "b": (64,), "c": (40, 500), "d": ()}, {"a": 1.0, "b": 9.0, "c": 20.0, "d": 50.0}
    errors, own = [], []
    for seed in range(30):
        first, noise = ({n: scales[n] * torch.randn(s, generator=generator) for n, s in shapes.items()} for _ in "ab")
        second = {name: first[name] * (seed / 15 - 1) + noise[name] for name in shapes}
        probe = GradientCosine(first, seed, most=4096)
        assert math.isnan(told(probe, first))
        cosine, error = both(probe, second)
        errors.append(cosine - plainly(first, second))
        own.append(error)
    assert np.std(errors) == pytest.approx(math.sqrt(np.mean(np.square(own))), rel=0.35)
    assert abs(np.mean(errors)) < 3.5 * np.std(errors) / math.sqrt(30)
    alike = {"a": torch.randn(600, 500, generator=generator)}
    probe = GradientCosine(alike, 0, most=10_000)
    told(probe, alike)
    assert both(probe, {"a": torch.randn(600, 500, generator=generator)})[1] == pytest.approx(0.01, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 60), max_size=3), min_size=1, max_size=8),
    seed=st.integers(0, 9),
    most=st.sampled_from([64, 1_000, 10**6]),
)
def test_places(shapes: list[list[int]], seed: int, most: int) -> None:
    named = {f"p{index}": torch.Size(shape) for index, shape in enumerate(shapes)}
    found = places(named, seed, most)
    taken = {name: range(*cut.indices(named[name].numel())) for name, cut in found.items()}
    total = sum(shape.numel() for shape in named.values())
    assert all(len(one) for one in taken.values())
    assert sum(map(len, taken.values())) == total if total <= most else sum(map(len, taken.values())) <= most
    for name, one in taken.items():
        assert one.step == 1 or math.gcd(one.step, named[name][-1]) == 1
    assert found == places(dict(reversed(named.items())), seed, most)


def test_what_is_not_finite_or_nothing() -> None:
    right, wrong = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([torch.inf, 1.0])}
    probe = GradientCosine(right, 0)
    told(probe, right)
    assert math.isnan(told(probe, wrong, ONE))
    assert told(probe, {"w": torch.tensor([4.0, 3.0])}) == pytest.approx(24 / 25)
    assert told(probe, {"w": torch.zeros(2)}) == 0.0
    assert told(probe, right) == 0.0
    assert told(probe, right) == pytest.approx(1.0)


def test_what_is_remembered_of_other_parameters_is_forgotten() -> None:
    some, more = {"w": torch.ones(3)}, {"w": torch.ones(3), "b": torch.ones(2)}
    probe = GradientCosine(some, 0)
    told(probe, some)
    state = {slot: tensor.clone() for slot, tensor in probe.state_by_name().items()}
    probe.follow(more)
    assert math.isnan(told(probe, more))
    assert told(probe, more) == pytest.approx(1.0)
    probe.load_state_by_name(state)
    assert math.isnan(told(probe, more)), "a state of others"
    again = GradientCosine(some, 0)
    again.load_state_by_name(state)
    assert told(again, {"w": -torch.ones(3)}) == pytest.approx(-1.0)
    again.load_state_by_name({})
    assert math.isnan(told(again, some))


def test_another_optimizer_is_followed() -> None:
    """It orders the parameters otherwise, and holds their gradients in other memory."""
    step: Step = make_step()
    groups = lambda: parameter_groups(step.model, 0.1)  # noqa: E731
    step._optimizers = (lambda: AdamW(groups()), lambda: AdamW(groups()[::-1]))
    probe = GradientCosine(step.optimizer.storage.gradients, 0)
    step.remembering = (probe,)
    step.use_optimizer(1)
    step.run([make_batch(2, 1)], 1)
    gradients = step.optimizer.storage.gradients
    assert list(gradients) == list(probe.places)
    told(probe, gradients)
    assert told(probe, gradients) == pytest.approx(1.0)
