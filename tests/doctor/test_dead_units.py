"""Units that are dead by the gradients alone: of modules of one's own, in runs too short for an examination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import case_of, cosine
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.rules import RULES

STEPS = 120


class Net(nn.Module):
    """Two hidden layers under a head; `cut` takes the head off what is before it."""

    def __init__(self, *, cut: bool = False, only: int = 8, function: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.cut, self.only, self.function = cut, only, function
        self.first, self.second, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.function(self.first(x * (torch.arange(8) < self.only)))
        hidden = self.function(self.second(hidden))
        return self.head(hidden.detach() if self.cut else hidden)


def trained(net: nn.Module, spoil: Callable[[Any, int], None] = lambda net, step: None) -> Case:
    """A regression by plain descent, with the norms of all gradients in windows of six steps."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    names = tuple(f"layer/{name}/grad_norm" for name, _ in net.named_parameters())
    losses: list[float] = []
    norms: list[list[float]] = []
    sizes: list[list[float]] = []
    for step in range(1, STEPS + 1):
        spoil(net, step)
        x = torch.randn(32, 8, generator=generator)
        loss = F.mse_loss(net(x)[:, 0], x[:, 0].abs() + 0.1 * torch.randn(32, generator=generator))
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        norms.append([0.0 if one.grad is None else float(one.grad.norm()) for one in net.parameters()])
        sizes.append([float(one.detach().norm()) for one in net.parameters()])
    case = case_of(np.array(losses), rates=cosine(STEPS), facts={"task": "regression"})
    for end in range(6, STEPS + 1, 6):
        measured = [*np.array(norms[end - 6 : end]).mean(axis=0), *np.array(sizes[end - 6 : end]).mean(axis=0)]
        case.history.layers.append(end, (*names, *(one.replace("grad", "weight") for one in names)), np.array(measured))
    return case


def said(case: Case) -> Finding | None:
    return next((one for one in RULES["dead-units"](case) if isinstance(one, Finding)), None)


def killed_at(when: int) -> Callable[[Net, int], None]:
    def spoil(net: Net, step: int) -> None:
        if step == when:
            with torch.no_grad():
                net.second.bias.fill_(-50.0)

    return spoil


@pytest.mark.parametrize("when", [1, 40])
def test_units_that_are_dead_lead_and_explain_what_gets_no_gradient(when: int) -> None:
    torch.manual_seed(0)
    case = trained(Net(), killed_at(when))
    told = said(case)
    assert told is not None
    assert told.severity == "warning"
    assert "nothing goes into head" in told.cause
    assert abs(told.onset_step - when) <= 6
    assert ("began dead" in told.remedies[0].summary) == (when == 1)
    first = diagnose(case, "run").findings[0]
    assert first.code == "dead-units"


def test_a_head_that_is_cut_off_is_frozen_and_not_dead() -> None:
    torch.manual_seed(0)
    case = trained(Net(cut=True))
    assert said(case) is None
    assert diagnose(case, "run").findings[0].code == "frozen-parameters"


def test_units_that_live_and_inputs_that_are_zero_are_not_dead() -> None:
    torch.manual_seed(0)
    assert said(trained(Net())) is None
    assert said(trained(Net(only=0))) is None  # nothing comes in: the first matrix gets nothing, all others learn


def test_units_that_come_back_are_not_dead() -> None:
    def spoil(net: Net, step: int) -> None:
        if step in (20, 80):
            with torch.no_grad():
                net.second.bias.fill_(-50.0 if step == 20 else 0.1)

    torch.manual_seed(0)
    assert said(trained(Net(), spoil)) is None


def test_units_that_are_as_good_as_dead_are_told_from_small_weights() -> None:
    """GELU far below zero gives and passes on a hundred-thousandth, and so do small weights, which are not dead."""
    torch.manual_seed(0)
    far_below, small = Net(function=F.gelu), Net(function=F.gelu)
    with torch.no_grad():
        for one in (far_below.first, far_below.second):
            one.bias.fill_(-5.0)
        for one in (small.first, small.second, small.head):
            one.weight.mul_(1e-4)
            one.bias.zero_()
    told = said(trained(far_below))
    assert told is not None
    assert "next to nothing goes into head" in told.cause
    assert said(trained(small)) is None


class Beside(nn.Module):
    """What is told beside the input is always nothing, and a second head answers no question."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.told = nn.Linear(8, 16), nn.Linear(4, 16)
        self.head, self.second_head = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(F.relu(self.first(x) + self.told(x.new_zeros(len(x), 4))))
        return answer


class Fading(nn.Module):
    """So small weights that what goes in, and what comes back, fades from layer to layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(12)), nn.Linear(8, 1)
        for one in (*self.layers, self.head):
            assert isinstance(one, nn.Linear)
            nn.init.normal_(one.weight, std=0.05)
            nn.init.zeros_(one.bias)

    def forward(self, x: Tensor) -> Tensor:
        for one in self.layers:
            x = torch.tanh(one(x))
        answer: Tensor = self.head(x)
        return answer


@pytest.mark.parametrize(("build", "leads"), [(Beside, "frozen-parameters"), (Fading, "vanishing-gradients")])
def test_inputs_of_nothing_and_gradients_that_fade_are_no_dead_units(
    build: Callable[[], nn.Module], leads: str
) -> None:
    torch.manual_seed(0)
    case = trained(build())
    assert said(case) is None
    assert diagnose(case, "run").findings[0].code == leads
