"""Running means of the weights: against torch's AveragedModel, by hand in float64, and what leaves them alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trimtab.config import Budget, EmaConfig, SwaConfig
from trimtab.errors import ConfigError
from trimtab.optimizer import (
    FlatStorage,
    ParameterGroup,
    PerTensorStorage,
    Storage,
    WeightAverage,
    build_average,
    equal,
    exponential,
)
from trimtab.optimizer import average as average_module

APPLIED, SKIPPED, ON, OFF = torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0), torch.tensor(0.0)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3, bias=False))


def storage_of(layout: str, of: nn.Module, dtype: torch.dtype = torch.float32) -> Storage:
    groups = [
        ParameterGroup("matrices", 0.1, {n: p for n, p in of.named_parameters() if p.ndim > 1}),
        ParameterGroup("rest", 0.0, {n: p for n, p in of.named_parameters() if p.ndim < 2}),
    ]
    return FlatStorage(groups, dtype) if layout == "flat" else PerTensorStorage(groups)


def move(storage: Storage, step: int) -> dict[str, Tensor]:
    """Another value for every weight, as an update would give; gives them in float64."""
    generator = torch.Generator().manual_seed(step)
    for name in sorted(storage.weights):
        weight = storage.weights[name]
        weight.copy_(torch.randn(weight.shape, generator=generator) + step)
    storage.refresh()
    return {name: weight.double() for name, weight in storage.weights.items()}


def averaged(average: WeightAverage) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in average.tensors().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("layout", ["flat", "per_tensor"])
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_against_torch(layout: str, kind: str) -> None:
    ours = model()
    theirs = copy.deepcopy(ours)
    # torch's own names for both: the first update copies the weights.
    reference = (
        AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9)) if kind == "ema" else AveragedModel(theirs)
    )
    storage = storage_of(layout, ours)
    average = WeightAverage(storage, kind, exponential(0.9, warmup=False) if kind == "ema" else equal())
    for step in range(30):
        move(storage, step)
        theirs.load_state_dict(ours.state_dict())
        average.update(APPLIED, ON)
        reference.update_parameters(theirs)
    expected = dict(reference.module.named_parameters())
    assert averaged(average).keys() == expected.keys()
    for name, tensor in averaged(average).items():
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, expected[name], rtol=1e-6, atol=1e-6), name


def test_the_mean_is_that_of_float64() -> None:
    storage = storage_of("flat", model())
    average = WeightAverage(storage, "swa", equal())
    sums: dict[str, Tensor] = {}
    for step in range(200):
        weights = move(storage, step)
        sums = {name: sums.get(name, 0.0) + weight for name, weight in weights.items()}
        average.update(APPLIED, ON)
    for name, tensor in average.tensors().items():
        assert torch.allclose(tensor.double(), sums[name] / 200, rtol=2e-6, atol=1e-5), name


@given(
    decay=st.floats(0.0, 0.9999),
    warmup=st.booleans(),
    every=st.integers(1, 4),
    skips=st.lists(st.booleans(), min_size=1, max_size=24),
    start=st.integers(0, 8),
)
@settings(max_examples=40, deadline=None)
def test_ema_by_hand(decay: float, warmup: bool, every: int, skips: list[bool], start: int) -> None:
    """Of every `every`-th applied update after `start` steps, in float64; a skipped step counts for nothing."""
    storage = storage_of("per_tensor", nn.Linear(2, 1))
    average = WeightAverage(storage, "ema", exponential(decay, warmup=warmup), every=every, start=start)
    expected: dict[str, Tensor] = {}
    applied = taken = 0
    for step, skipped in enumerate(skips, start=1):
        before = {name: weight.double() for name, weight in storage.weights.items()}
        weights = before if skipped else move(storage, step)
        average.update(SKIPPED if skipped else APPLIED, ON if step > start else OFF)
        if skipped or step <= start:
            continue
        applied += 1
        if applied % every:
            continue
        keep = min(decay, (1 + taken) / (10 + taken)) if warmup else decay
        keep = keep if taken else 0.0
        expected = {n: keep * expected.get(n, torch.zeros(())) + (1 - keep) * weight for n, weight in weights.items()}
        taken += 1
    assert average.has_begun == bool(taken)
    assert {name: int(count) for name, count in average.counts().items()} == {"applied": applied, "taken": taken}
    found = average.tensors()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["flat", "per_tensor"])
def test_beside_a_device_nothing_is_read(layout: str) -> None:
    """On torch's meta device a tensor has no value: whoever would wait for one fails."""
    storage = storage_of(layout, model().to("meta"))
    for share in (exponential(0.9), equal()):
        average = WeightAverage(storage, "ema", share, every=3)
        average.update(SKIPPED.to("meta"), ON.to("meta"))
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            _ = average.has_begun


def test_what_is_computed_without_the_host_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU every update goes over all weights, and those that are not taken count with a share of 0."""
    flags = [APPLIED, SKIPPED, APPLIED, APPLIED, APPLIED, SKIPPED, SKIPPED, APPLIED, APPLIED, APPLIED, APPLIED]
    found = []
    for on_device in (False, True):
        storage = storage_of("flat", model())
        average = WeightAverage(storage, "ema", exponential(0.9), every=3)
        if on_device:
            monkeypatch.setattr(average_module, "_is_on_host", lambda tensor: False)
        for step, skip in enumerate(flags):
            move(storage, step)
            average.update(skip, ON)
        found.append((averaged(average), int(average.counts()["taken"])))
    assert found[0][1] == found[1][1] == 2
    assert same(found[0][0], found[1][0])


@pytest.mark.parametrize("layout", ["flat", "per_tensor"])
def test_inside_the_model_has_the_average_and_afterwards_its_own_bits(layout: str) -> None:
    ours = model()
    storage = storage_of(layout, ours)
    average = WeightAverage(storage, "swa", equal())
    for step in range(3):
        move(storage, step)
        average.update(APPLIED, ON)
    own = {name: weight.clone() for name, weight in ours.state_dict().items()}
    with average.evaluation_weights():
        assert same(dict(ours.state_dict()), averaged(average))
        assert not same(dict(ours.state_dict()), own)
    assert same(dict(ours.state_dict()), own)


def test_bf16_weights_are_averaged_in_fp32() -> None:
    """The masters are averaged, not the copies; steps below bf16's spacing are not lost."""
    ours = nn.Linear(4, 4, bias=False)
    nn.init.ones_(ours.weight)
    storage = FlatStorage([ParameterGroup("all", 0.0, {"weight": ours.weight})], torch.bfloat16)
    average = WeightAverage(storage, "swa", equal())
    for step in range(4):
        storage.weights["weight"].fill_(1.0 + step * 1e-4)
        storage.refresh()
        average.update(APPLIED, ON)
    assert float(ours.weight.detach().float().mean()) == 1.0
    assert float(average.tensors()["weight"].mean()) == pytest.approx(1.00015, abs=1e-6)
    with average.evaluation_weights():
        assert ours.weight.dtype == torch.bfloat16
        assert float(storage.weights["weight"].mean()) == pytest.approx(1.00015, abs=1e-6)


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_state_goes_on_to_the_same_bits(stop: int) -> None:
    whole, left, resumed = (storage_of("flat", model()) for _ in range(3))
    averages = [WeightAverage(one, "ema", exponential(0.95), every=2) for one in (whole, left, resumed)]
    for step in range(9):
        for storage, average in (
            (whole, averages[0]),
            (left if step < stop else resumed, averages[1 + (step >= stop)]),
        ):
            if step == stop and average is averages[2]:
                average.load(averaged(averages[1]), {n: t.clone() for n, t in averages[1].counts().items()})
            move(storage, step)
            average.update(APPLIED, ON)
    assert same(averaged(averages[0]), averaged(averages[2]))
    assert same(averages[0].counts(), averages[2].counts())


def test_without_counts_it_begins_anew() -> None:
    storage = storage_of("flat", model())
    average = WeightAverage(storage, "swa", equal())
    move(storage, 1)
    average.update(APPLIED, ON)
    average.load({}, {})
    assert not average.has_begun
    assert average.tensors() == {}
    weights = move(storage, 2)
    average.update(APPLIED, ON)
    assert all(torch.equal(tensor.double(), weights[name]) for name, tensor in average.tensors().items())


def test_what_belongs_to_the_average_is_made_once_for_each() -> None:
    ours = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2, affine=False))
    storage = PerTensorStorage([ParameterGroup("all", 0.0, {"0.weight": ours[0].weight})])
    average = WeightAverage(storage, "swa", equal())
    made: list[float] = []

    def renew() -> None:
        made.append(float(ours[0].weight.detach().sum()))
        buffers["1.running_mean"].fill_(made[-1])

    buffers = {"1.running_mean": ours[1].running_mean}
    average.belongs(buffers, renew)
    for value in (1.0, 3.0):
        storage.weights["0.weight"].fill_(value)
        average.update(APPLIED, ON)
        for _ in range(2):
            with average.evaluation_weights():
                assert float(buffers["1.running_mean"][0]) == made[-1]
            assert float(average.tensors()["1.running_mean"][0]) == made[-1]
            assert float(buffers["1.running_mean"][0]) == 0.0, "the plain weights' own"
    assert made == [4.0, 8.0]


def test_from_the_configuration() -> None:
    storage = storage_of("flat", model())
    budget = Budget(1000, 10, 5000)
    swa = build_average(SwaConfig(start=0.75, every="0.1 epochs"), storage, budget)
    assert swa is not None
    assert (swa.kind, swa.start) == ("swa", 750)
    half = build_average(EmaConfig(half_life=50, every=5, warmup=False), storage, budget)
    assert half is not None
    for step in range(5 * 11):
        storage.weights["0.weight"].fill_(1.0 if step < 5 else 0.0)
        half.update(APPLIED, ON)
    assert float(half.tensors()["0.weight"][0, 0]) == pytest.approx(0.5, abs=1e-6), "after ten averages, 50 updates"
    with pytest.raises(ConfigError, match="no update is left to be averaged: the first would be 1,050 of 1,000"):
        build_average(SwaConfig(start=950, every=100), storage, budget)
