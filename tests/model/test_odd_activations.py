"""Activation functions that people write otherwise: reading them never touches the model's own pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.model.activation_functions import activations_read
from trimtab.monitor.probes.activations import ActivationExamination


class Own(nn.ReLU):
    """Takes and gives more than torch's, and keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor, gate: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        self.kept.append(x)
        return super().forward(x) * (1.0 if gate is None else gate), x


class Odd(nn.Module):
    """What is between two matrices is handed in."""

    def __init__(self, between: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6, dtype=dtype), nn.Linear(6, 2, dtype=dtype)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.last(self.between(F.silu(self.first(x.to(self.first.weight.dtype)))))
        return answers


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = Own()

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.own(x, x)[0]
        return gated


@pytest.mark.parametrize(
    ("between", "seen"),
    [
        (Gated(), 2),
        (torch.vmap(F.relu), 1),
        (torch.func.vmap(torch.func.grad(lambda x: F.relu(x).sum())), 1),
        (lambda x: F.relu(x.to_sparse()).to_dense(), 1),
        (lambda x: F.relu((8 * x).int()).float(), 1),
        (torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU())), 1),
        (nn.PReLU(), 2),
        (nn.PReLU(dtype=torch.bfloat16), 2),
    ],
)
def test_odd_functions_end_no_pass_and_what_can_be_read_is(between: Callable[[Tensor], Tensor], seen: int) -> None:
    wide = next((one.dtype for one in between.parameters()), None) if isinstance(between, nn.Module) else None
    model, x = Odd(between, wide or torch.float32), torch.randn(4, 5, 3)
    whole, told, examination = model(x), [], ActivationExamination(0)
    with activations_read(model, lambda name, before, function, _: told.append((name, function(before)))):
        torch.testing.assert_close(model(x), whole)
    assert len(told) == seen
    with examination.attach(model):
        torch.testing.assert_close(model(x), whole)
    assert all(type(units.fractions) is tuple for units in examination._units.values())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_own_functions_run_as_often_as_without() -> None:
    gated = Gated()
    model = Odd(gated)
    with ActivationExamination(0).attach(model):
        model(torch.randn(5, 3))
    assert len(gated.own.kept) == 1


def test_what_cannot_be_read_leaves_out_its_units_alone() -> None:
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.PReLU(5)) for _ in range(2)))
    examination = ActivationExamination(0)
    with examination.attach(layers):
        layers(torch.randn(2, 5, 4))
    assert list(examination._units) == ["0", "1"]
    assert all(units.fractions is None for units in examination._units.values())
    assert set(examination._streams) == {"0", "1"}


def test_units_of_one_matrix_do_not_speak_for_those_of_another() -> None:
    """Two functions of the same width in a layer, of which the second gives nothing; run twice, they are the same."""
    layer = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    assert isinstance(layer[2], nn.Linear)
    nn.init.constant_(layer[2].bias, -50.0)
    nn.init.constant_(layer[0].bias, 1.0)
    model, examination = nn.ModuleList([layer]), ActivationExamination(0)
    with examination.attach(model):
        layer(torch.randn(8, 5, 16))
        layer(torch.randn(8, 5, 16))
    assert examination._units["0"].dead_fraction == 0.5


def test_experts_that_see_a_token_each_are_not_half_dead() -> None:
    layer = nn.ModuleList(nn.Sequential(nn.Linear(8, 32), nn.ReLU()) for _ in range(64))
    whole = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"experts": layer})])})
    experts, examination = whole["layers"][0]["experts"], ActivationExamination(0)

    def forward(x: Tensor) -> Tensor:
        return torch.stack([expert(token) for expert, token in zip(experts, x, strict=True)])

    whole["layers"][0].forward = forward
    with examination.attach(whole):
        whole["layers"][0](torch.randn(64, 1, 8))
    assert examination._units["layers.0"].dead_fraction < 0.1
