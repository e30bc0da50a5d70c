"""Parameters of one size are read together: the same readings, in a number of kernels that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trimtab.monitor.probes import groups
from trimtab.monitor.probes.activations import ActivationExamination
from trimtab.monitor.probes.gradients import GradientExamination
from trimtab.monitor.probes.groups import grouped, of_groups
from trimtab.monitor.probes.parameters import ParameterExamination
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy
from trimtab.signals import Batch, Examined


def of_parameters(tensors: Mapping[str, Tensor]) -> Examined:
    empty = torch.zeros(1, 2, dtype=torch.int64)
    return Examined(
        step=1,
        model=nn.Identity(),
        task=CausalLanguageModelingTask(CrossEntropy()),
        batch=Batch(empty, empty, empty.int(), empty.int(), torch.zeros(1), 2),
        output=torch.zeros(()),
        losses=torch.zeros(1, 2),
        loss=torch.zeros(()),
        gradients=tensors,
        weights=tensors,
        newest=lambda: (),
        text=str,
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 7, 40]), min_size=1, max_size=12), st.sampled_from([1, 6, 1000]))
def test_what_is_read_is_in_the_order_of_the_tensors(sizes: list[int], at_once: int) -> None:
    tensors = {f"t{index}": torch.full((size,), float(index)) for index, size in enumerate(sizes)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "AT_ONCE", at_once)
        found = grouped(tensors)
        seen: list[tuple[int, ...]] = []

        def read(names: Sequence[str], values_GN: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(tuple(values_GN.shape))
            return values_GN.sum(1), values_GN[:, :1]

        sums_P, firsts_P1 = of_groups(tensors, read)
    assert sorted(name for names in found for name in names) == sorted(tensors)
    assert all(rows == 1 or rows * size <= at_once for rows, size in seen)
    assert sums_P.tolist() == [index * size for index, size in enumerate(sizes)]
    assert firsts_P1.tolist() == [[index] for index in range(len(sizes))]


class Kernels(TorchDispatchMode):
    """Counts what would be launched on a device: no views."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.num += func.overloadpacket.__name__ not in ("detach", "view", "unbind", "unsqueeze", "slice", "select")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("build", [GradientExamination, ParameterExamination])
def test_more_parameters_of_the_same_sizes_take_no_more_kernels(build: Callable[[int], Any]) -> None:
    counts = []
    for num in (3, 60):
        generator = torch.Generator().manual_seed(0)
        tensors = {
            f"{index}.{size}": torch.randn(size, generator=generator) for index in range(num) for size in (5, 1030)
        }
        examination = build(0)
        examination.begin(0, tensors)
        examination.before(tensors)
        examination.read(of_parameters(tensors))
        with Kernels() as kernels:
            examination.before(tensors)
            examination.read(of_parameters(tensors))
        counts.append(kernels.num)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("build", [GradientExamination, ParameterExamination])
def test_a_group_finds_what_each_finds_alone(build: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        {f"{index}.{size}": torch.randn(size, generator=generator) for index in range(4) for size in (1, 900, 2100)}
        for _ in range(2)
    )
    found = []
    for at_once in (1, 1 << 24):
        monkeypatch.setattr(groups, "AT_ONCE", at_once)
        examination = build(3)
        examination.begin(0, first)
        examination.read(of_parameters(first))
        examination.before(first)
        readings = examination.read(of_parameters(second))
        found.append(({**readings.metrics, **readings.layers}, readings.histograms))
    (alone, histograms), (together, same) = found
    assert histograms == same
    assert list(alone) == list(together)
    assert [float(value) for value in together.values()] == pytest.approx(list(map(float, alone.values())), rel=1e-5)


class Doubles(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(2))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = self.layers[0](x_BTD)
        x_BTD = x_BTD.mul_(2.0) if self.in_place else x_BTD * 2.0
        last: Tensor = self.layers[1](x_BTD)
        return last


@pytest.mark.parametrize("in_place", [False, True])
def test_a_stream_that_changes_between_two_layers_is_measured_again(in_place: bool) -> None:
    """What a layer gives is what the next one gets, unless somebody writes into it."""
    torch.manual_seed(0)
    model, examination = Doubles(in_place), ActivationExamination(0)
    x_BTD = torch.randn(2, 3, 4)
    with torch.no_grad():
        middle = model.layers[0](x_BTD) * 2.0
        last = model.layers[1](middle)
        with examination.attach(model):
            model(x_BTD)
    layers = examination.read(of_parameters({})).layers
    growth = last.double().square().mean().sqrt() / middle.double().square().mean().sqrt()
    assert float(layers["layer/layers.1/residual_growth"]) == pytest.approx(float(growth), rel=1e-6)
