"""AdamW in 8 bits: near AdamW, a quarter of its state, resumed to the same bits, and missed in one line."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trimtab.config import load_config
from trimtab.errors import ConfigError
from trimtab.optimizer import Optimizer, build_optimizer
from trimtab.signals import Gradients
from trimtab.testing import check_optimizer


def build(model: nn.Module, name: str, *settings: str) -> Optimizer:
    given = [f"optimizer.name={name}", "optimizer.weight_decay=0.1", *settings]
    return build_optimizer(load_config(None, given, environment={}).optimizer, model)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64), nn.LayerNorm(64), nn.Linear(64, 8))


def trained(optimizer: Optimizer, model: nn.Module, steps: range) -> list[float]:
    """The losses of a small classification."""
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(64, 64, generator=generator)
        loss = F.cross_entropy(model(inputs), inputs[:, :8].argmax(-1))
        optimizer.storage.zero_gradients()
        torch.autograd.backward(loss)
        one = torch.ones(())
        settings = {"learning_rate": torch.tensor(2e-3), "weight_decay": one}
        optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, torch.zeros(())), settings)
        losses.append(loss.item())
    return losses


def held(optimizer: Optimizer) -> int:
    """Bytes of the state, without the tables of bitsandbytes' 256 levels, which parameters share."""
    slots = [item for name, slots in optimizer.state_by_name().items() for item in slots.items() if name]
    return sum(tensor.nbytes for slot, tensor in slots if not slot.startswith("qmap"))


def test_a_hundred_steps_are_close_to_adamw_at_a_quarter_of_its_state() -> None:
    pytest.importorskip("bitsandbytes")
    models = [network(), network()]
    start = torch.cat([p.detach().flatten() for p in models[0].parameters()])
    full, small = build(models[0], "adamw"), build(models[1], "adamw_8bit")
    expected, losses = (trained(o, m, range(100)) for o, m in zip((full, small), models, strict=True))
    assert losses[-1] < 0.6 * losses[0]
    assert losses == pytest.approx(expected, rel=0.01)
    a, b = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models)
    # Not equal: what is rounded is seen.
    assert 1e-4 < float((a - b).norm() / (a - start).norm()) < 0.1
    assert 0.25 < held(small) / held(full) < 0.29
    state = small.state_by_name()["0.weight"]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8
    assert small.state_by_name()["0.bias"]["state1"].dtype == torch.float32


def test_it_keeps_the_promises_of_an_optimizer_in_8_and_in_32_bits() -> None:
    pytest.importorskip("bitsandbytes")
    check_optimizer(lambda model: build(model, "adamw_8bit"))
    check_optimizer(lambda model: build(model, "adamw_8bit", "optimizer.min_size=1"))
    check_optimizer(lambda model: build(model, "adamw_8bit", "optimizer.min_size=1", "optimizer.decay.target=0.5"))


def test_a_state_in_8_bits_is_resumed_to_the_same_bits() -> None:
    pytest.importorskip("bitsandbytes")
    model, other = network(), network()
    first, second = build(model, "adamw_8bit"), build(other, "adamw_8bit")
    trained(first, model, range(10))
    trained(second, other, range(3))
    other.load_state_dict(model.state_dict())
    kept = {n: {slot: t.clone() for slot, t in slots.items()} for n, slots in first.state_by_name().items()}
    second.load_state_by_name(kept)
    assert trained(first, model, range(10, 20)) == trained(second, other, range(10, 20))
    for name, slots in first.state_by_name().items():
        for slot, tensor in slots.items():
            assert torch.equal(tensor, second.state_by_name()[name][slot]), (name, slot)


def test_weight_decay_is_that_of_the_group_alone() -> None:
    """bitsandbytes' own default, 0.01, must not act where nothing is to be decayed."""
    pytest.importorskip("bitsandbytes")
    model = network()
    optimizer = build(model, "adamw_8bit", "optimizer.weight_decay=0.0")
    before = {name: weight.clone() for name, weight in optimizer.storage.weights.items()}
    one = torch.ones(())
    settings = {"learning_rate": torch.tensor(0.1), "weight_decay": one}
    optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, torch.zeros(())), settings)
    assert all(torch.equal(before[name], weight) for name, weight in optimizer.storage.weights.items())


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"optimizer\.name=adamw_8bit: needs bitsandbytes") as refused:
        build(network(), "adamw_8bit")
    assert refused.value.hint == "pip install 'trimtab[lowbit]'"
