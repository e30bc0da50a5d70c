"""What an optimizer promises."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trimtab.optimizer import Optimizer
from trimtab.signals import Gradients


def check_optimizer(make: Callable[[nn.Module], Optimizer]) -> None:
    """It lowers a simple loss; a skipped update changes nothing, even with a gradient that is not finite; `scale`
    multiplies the gradient; a learning rate of 0 moves nothing; and with its state given back, by name, to a
    model whose weights were copied, it goes on to the same bits.
    """
    model, optimizer = _begin(make)
    first = _loss(model)
    for _ in range(50):
        _update(model, optimizer)
    assert _loss(model) < 0.9 * first, f"50 updates did not lower the loss: {first:.4f} to {_loss(model):.4f}"

    weights, state = _weights(optimizer), _copied(optimizer)
    optimizer.storage.zero_gradients()
    next(iter(optimizer.storage.gradients.values())).fill_(math.nan)
    optimizer.update(_gradients(optimizer, skip=1.0), _settings())
    assert _equal(weights, _weights(optimizer)), "a skipped update changed the weights"
    assert all(_equal(state[name], slots) for name, slots in _copied(optimizer).items()), (
        "a skipped update changed state"
    )

    _update(model, optimizer, learning_rate=0.0)
    assert _equal(weights, _weights(optimizer)), "a learning rate of 0 moved the weights"

    other_model, other = _begin(make)
    _update(other_model, other)  # so that its own state is not empty, and not what is loaded
    other_model.load_state_dict(model.state_dict())
    other.load_state_by_name(_copied(optimizer))
    for _ in range(5):
        _update(model, optimizer)
        _update(other_model, other)
    assert _equal(_weights(optimizer), _weights(other)), "with its state given back, it did not go on to the same bits"

    halved, whole = _begin(make), _begin(make)
    _update(*halved, factor=2.0, scale=0.5)
    _update(*whole)
    for name, weight in _weights(whole[1]).items():
        assert torch.allclose(weight, _weights(halved[1])[name], atol=1e-6), f"scale is not applied to {name}"


def _begin(make: Callable[[nn.Module], Optimizer]) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3))
    return model, make(model)


def _loss_tensor(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(32, 6, generator=generator), torch.randn(32, 3, generator=generator)
    loss: Tensor = (model(inputs) - targets).square().mean()
    return loss


def _loss(model: nn.Module) -> float:
    return float(_loss_tensor(model).detach())


def _settings(learning_rate: float = 0.01) -> dict[str, Tensor]:
    return {"learning_rate": torch.tensor(learning_rate), "weight_decay": torch.ones(())}


def _gradients(optimizer: Optimizer, *, scale: float = 1.0, skip: float = 0.0) -> Gradients:
    by_name = optimizer.storage.gradients
    norms = torch.stack([gradient.norm() for gradient in by_name.values()])
    return Gradients(by_name, norms, norms.norm(), torch.tensor(scale), torch.tensor(skip))


def _update(
    model: nn.Module, optimizer: Optimizer, *, learning_rate: float = 0.01, factor: float = 1.0, scale: float = 1.0
) -> None:
    optimizer.storage.zero_gradients()
    torch.autograd.backward(_loss_tensor(model) * factor)
    optimizer.update(_gradients(optimizer, scale=scale), _settings(learning_rate))


def _weights(optimizer: Optimizer) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in optimizer.storage.weights.items()}


def _copied(optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    return {n: {slot: t.clone() for slot, t in slots.items()} for n, slots in optimizer.state_by_name().items()}


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
