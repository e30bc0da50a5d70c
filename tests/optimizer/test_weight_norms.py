"""Weight decay towards a norm, against its definition, and over optimizers of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trimtab.config import load_config
from trimtab.errors import ConfigError
from trimtab.optimizer import Optimizer, WeightNormControl, build_optimizer
from trimtab.signals import Gradients
from trimtab.testing import check_optimizer


def build(model: nn.Module, *settings: str) -> Optimizer:
    return build_optimizer(load_config(None, list(settings), environment={}).optimizer, model)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 2))


def settings(rate: float = 0.01, decay: float = 1.0) -> dict[str, torch.Tensor]:
    return {"learning_rate": torch.tensor(rate), "weight_decay": torch.tensor(decay)}


def update(optimizer: Optimizer, gradient: float = 0.0, skip: float = 0.0, **given: Any) -> None:
    for tensor in optimizer.storage.gradients.values():
        tensor.fill_(gradient)
    one = torch.ones(())
    optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, torch.tensor(skip)), settings(**given))


@pytest.mark.parametrize("target", [0.5, 1.0, 2.0])
def test_without_gradients_a_parameter_goes_to_its_norm_and_keeps_its_direction(target: float) -> None:
    model = linear()
    begun = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build(model, f"optimizer.decay.target={target}", "optimizer.weight_decay=2.0")
    norm, initial = float(begun["0.weight"].norm()), float(begun["0.weight"].norm())
    for step in range(400):
        norm *= 1.0 - 0.01 * 2.0 * (1.0 - target * initial / norm)
        update(optimizer)
        if step in (0, 9, 99):
            assert float(optimizer.storage.weights["0.weight"].norm()) == pytest.approx(norm, rel=1e-5)
    for name in ("0.weight", "2.weight"):
        assert torch.allclose(optimizer.storage.weights[name], target * begun[name], rtol=1e-3, atol=1e-6)
    for name in ("0.bias", "1.weight", "2.bias"):
        assert torch.equal(optimizer.storage.weights[name], begun[name]), "what decay does not act on stays"


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "muon", "soap", "galore"])
def test_over_every_kind_of_optimizer(name: str) -> None:
    """The decay of its definition, and then what the optimizer does without decay."""
    given = [f"optimizer.name={name}", "optimizer.rates.factors={'2.*': 0.5}"]
    ours, plain = linear(), linear()
    controlled = build(ours, *given, "optimizer.weight_decay=0.3", "optimizer.decay.target=0.7")
    other = build(plain, *given, "optimizer.weight_decay=0.0")
    rate_of = {key: group.rate * 0.01 for group in other.groups for key in group.parameters}
    initial = {key: float(p.norm()) for key, p in other.storage.weights.items()}
    for step in range(5):
        update(controlled, 0.1 + step, decay=0.8)
        for key in ("0.weight", "2.weight"):
            weight = other.storage.weights[key]
            weight.mul_(1.0 - rate_of[key] * 0.3 * 0.8 * (1.0 - 0.7 * initial[key] / float(weight.norm())))
        update(other, 0.1 + step)
    for key, weight in other.storage.weights.items():
        assert torch.allclose(controlled.storage.weights[key], weight, rtol=1e-5, atol=1e-6), key
    decays = {key: group.weight_decay for group in controlled.groups for key in group.parameters}
    assert (decays["0.weight"], decays["0.bias"]) == (0.3, 0.0)


def test_it_keeps_the_promises_of_an_optimizer() -> None:
    check_optimizer(lambda model: build(model, "optimizer.decay.target=0.5"))
    check_optimizer(lambda model: build(model, "optimizer.name=muon", "optimizer.decay.target=0.5"))


def test_a_parameter_of_zeros_stays_finite() -> None:
    model = linear()
    nn.init.zeros_(model.get_parameter("2.weight"))
    optimizer = build(model, "optimizer.decay.target=1.0")
    update(optimizer)
    assert all(torch.isfinite(weight).all() for weight in optimizer.storage.weights.values())


def test_without_a_target_nothing_is_wrapped() -> None:
    assert not isinstance(build(linear()), WeightNormControl)


@pytest.mark.parametrize("name", ["adam", "sgd", "lamb", "schedule_free_adamw"])
def test_decay_inside_the_update_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.decay\.target is for weight decay apart from the gradient"):
        build(linear(), f"optimizer.name={name}", "optimizer.weight_decay=0.1", "optimizer.decay.target=0.5")
