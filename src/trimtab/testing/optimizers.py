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
    multiplies the gradient; a learning rate of 0 moves nothing; with its state given back, by name, to a model whose
    weights were copied, it goes on to the same bits; and where a group has weight decay, it acts on that group alone,
    times the setting `weight_decay`.
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

    # Several: the first step of many an optimizer is the same for any size of the gradient.
    scaled, whole = _begin(make), _begin(make)
    for scale in (0.5, 8.0, 0.125, 1.0, 64.0, 0.25):
        _update(*scaled, factor=1.0 / scale, scale=scale)
        _update(*whole)
    for name, weight in _weights(whole[1]).items():
        assert torch.allclose(weight, _weights(scaled[1])[name], atol=1e-5), f"scale is not applied to {name}"

    if any(group.weight_decay for group in whole[1].groups):
        _check_decay(make)


def _check_decay(make: Callable[[nn.Module], Optimizer]) -> None:
    """One update without a gradient, from the beginning."""
    moved: dict[float, dict[str, float]] = {}
    for factor in (0.0, 0.5, 1.0):
        _, optimizer = _begin(make)
        before = _weights(optimizer)
        optimizer.storage.zero_gradients()
        optimizer.update(_gradients(optimizer), _settings(weight_decay=factor))
        after = _weights(optimizer)
        moved[factor] = {name: float((weight - after[name]).norm()) for name, weight in before.items()}
        for group in optimizer.groups:
            for name in group.parameters:
                decays = factor * group.weight_decay > 0 and bool(before[name].any())
                what = "decays, though its group does not" if not decays else "does not decay, though its group does"
                assert (moved[factor][name] > 0) == decays, f"{name} {what} (the setting weight_decay is {factor})"
                if decays:
                    assert float(after[name].norm()) < float(before[name].norm()), f"decay makes {name} larger"
    for name, whole in moved[1.0].items():
        assert moved[0.5][name] <= whole * (1.0 + 1e-4), f"half of the weight decay moves {name} farther than all of it"


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


def _settings(learning_rate: float = 0.01, weight_decay: float = 1.0) -> dict[str, Tensor]:
    return {"learning_rate": torch.tensor(learning_rate), "weight_decay": torch.tensor(weight_decay)}


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
