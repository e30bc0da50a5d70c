"""Against loops of plain torch, and to the same bits after a pause."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab import MixedPrecisionTrainer

Batches = list[tuple[Tensor, Tensor]]


def model_of(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(11, 16), nn.Linear(16, 16), nn.Dropout(dropout), nn.ReLU(), nn.Linear(16, 11))


def batches_of(number: int, seed: int = 1) -> Batches:
    """Of 4 and 2 rows in turn, with targets that do not count."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(number):
        tokens, targets = torch.randint(0, 11, (2, 4 - index % 2 * 2, 5), generator=generator)
        targets[0, : 1 + index % 3] = -100
        found.append((tokens, targets))
    return found


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_updates_are_those_of_plain_torch_over_the_whole_batch(precision: Any) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    ours, theirs = model_of(), model_of()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.5, 0.9)
    trainer = MixedPrecisionTrainer(ours, torch.optim.SGD(ours.parameters(), 0.5, 0.9), precision=precision)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=precision == "fp16")
    for step in range(4):
        batches = batches_of(3, seed=step)
        loss = trainer.train_step(*batches)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=precision != "fp32"):
            logits = torch.cat([theirs(tokens).flatten(0, 1) for tokens, _ in batches])
        expected = F.cross_entropy(logits.float(), torch.cat([targets.flatten() for _, targets in batches]))
        torch.autograd.backward(scaler.scale(expected))
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        # Sums of 16-bit products differ by their order alone.
        close = {"rtol": 1e-5, "atol": 1e-6} if precision == "fp32" else {"rtol": 2e-2, "atol": 2e-3}
        torch.testing.assert_close(loss, expected.detach(), **close)
        torch.testing.assert_close(weights(ours), weights(theirs), **close)
    assert all(p.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_update_that_is_not_finite_is_left_out(precision: Any) -> None:
    model = model_of()
    trainer = MixedPrecisionTrainer(model, torch.optim.AdamW(model.parameters()), precision=precision)
    before, scale = weights(model), trainer.loss_scale
    handle = model[1].register_forward_hook(lambda module, inputs, output: output * torch.inf)
    trainer.train_step(*batches_of(1))
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert trainer.loss_scale == (scale / 2 if precision == "fp16" else 1.0)
    assert not trainer.optimizer.state
    trainer.train_step(*batches_of(1))
    assert not torch.equal(before[0], weights(model)[0])


def test_a_scale_that_overflows_is_halved_until_it_fits() -> None:
    model = model_of()
    trainer = MixedPrecisionTrainer(
        model, torch.optim.SGD(model.parameters(), 0.1), precision="fp16", initial_scale=2.0**30
    )
    before = weights(model)
    for _ in range(20):
        trainer.train_step(*batches_of(2))
    assert trainer.loss_scale < 2.0**30
    assert not torch.equal(before[0], weights(model)[0])


def test_a_checkpoint_holds_all_that_goes_on() -> None:
    def made() -> MixedPrecisionTrainer:
        model = model_of(dropout=0.3)
        return MixedPrecisionTrainer(model, torch.optim.AdamW(model.parameters(), 0.01), precision="fp16")

    whole, data = made(), batches_of(9)
    whole.train_epoch(data[:5], accumulation_steps=2)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    rest = whole.train_epoch(data[5:], accumulation_steps=2)
    again = made()
    torch.manual_seed(99)
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert again.train_epoch(data[5:], accumulation_steps=2) == rest
    assert all(torch.equal(a, b) for a, b in zip(weights(whole.model), weights(again.model), strict=True))
    other = model_of()
    with pytest.raises(ValueError, match="made with a loss scale, and precision is fp32"):
        MixedPrecisionTrainer(other, torch.optim.SGD(other.parameters()), precision="fp32").load_state_dict(
            whole.state_dict()
        )


def test_the_last_window_is_not_dropped_and_one_without_targets_changes_nothing() -> None:
    model = model_of()
    trainer = MixedPrecisionTrainer(model, torch.optim.SGD(model.parameters(), 0.1), precision="fp32")
    assert len(trainer.train_epoch(batches_of(5), accumulation_steps=2)) == 3
    before = weights(model)
    tokens, targets = batches_of(1)[0]
    assert trainer.train_step((tokens, torch.full_like(targets, -100))).item() == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_what_is_refused() -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match=r"precision must be one of auto, bf16, fp16, fp32. Received: 'half'"):
        MixedPrecisionTrainer(model, optimizer, precision="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one batch"):
        MixedPrecisionTrainer(model, optimizer).train_step()
    with pytest.raises(ValueError, match=r"accumulation_steps must be at least 1. Received: 0"):
        MixedPrecisionTrainer(model, optimizer).train_epoch([], accumulation_steps=0)
    with pytest.raises(ValueError, match=r"0.weight is not. Call model.float"):
        MixedPrecisionTrainer(model.half(), optimizer)
