"""Matrices of one shape that a rule takes stacked are updated as they would be one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from trimtab.optimizer import RuleOptimizer, muon, parameter_groups
from trimtab.signals import Gradients


def _model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.ModuleDict({"up": nn.Linear(6, 20, bias=False), "down": nn.Linear(20, 6, bias=False)}) for _ in "abcd"]
    # Four alike at equal distances, then one more behind a gap, and one that stands alone.
    return nn.ModuleList([*layers, nn.Linear(3, 5, bias=False), nn.Linear(6, 20, bias=False)])


def _trained(*, stacked: bool, skips: int | None = None) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], int]:
    model, rule = _model(), replace(muon(0.9), takes_stacks=stacked)
    optimizer = RuleOptimizer([(group, rule) for group in parameter_groups(model, 0.1)])
    settings = {"learning_rate": torch.tensor(0.02), "weight_decay": torch.tensor(1.0)}
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        optimizer.storage.flat_gradient.copy_(torch.randn(optimizer.storage.flat_gradient.shape, generator=generator))
        one = torch.ones(())
        skip = torch.tensor(float(step == skips))
        optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, skip), settings)
    weights = {name: tensor.clone() for name, tensor in optimizer.storage.weights.items()}
    return weights, optimizer.state_by_name(), len(optimizer._pieces)


@pytest.mark.parametrize("skips", [None, 2])
def test_stacked_or_one_by_one(skips: int | None) -> None:
    weights, state, pieces = _trained(stacked=True, skips=skips)
    alone, alone_state, alone_pieces = _trained(stacked=False, skips=skips)
    assert alone_pieces == 10
    assert pieces <= 5, "four up, four down, and what stands apart"
    assert state.keys() == alone_state.keys()
    for name, weight in weights.items():
        assert torch.allclose(weight, alone[name], rtol=1e-5, atol=1e-6), name
        assert state[name].keys() == alone_state[name].keys()
        assert torch.allclose(state[name]["momentum"], alone_state[name]["momentum"], rtol=1e-5, atol=1e-6), name


def test_state_goes_from_one_to_the_other() -> None:
    """So a checkpoint of an older version, which knew no stacks, is read."""
    _, alone, _ = _trained(stacked=False)
    model, rule = _model(), muon(0.9)
    optimizer = RuleOptimizer([(group, rule) for group in parameter_groups(model, 0.1)])
    optimizer.load_state_by_name(alone)
    for name, slots in optimizer.state_by_name().items():
        for slot, tensor in slots.items():
            assert torch.equal(tensor, alone[name][slot]), (name, slot)
