"""The step against plain re-computation: loss, gradients, accumulation, clipping, skipping, precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_step import join, make_batch, make_step
from torch.nn import functional as F

from trimtab.config import Bf16, Fp16
from trimtab.objective import CrossEntropy
from trimtab.signals import IGNORED, Batch
from trimtab.training import Step


def _gradients(step: Step, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """The gradient of a whole step, before the update."""
    num_tokens = sum(batch.count for batch in batches)
    step.set(inverse_targets=1.0 / num_tokens, inverse_sequences=1.0)
    step.begin()
    for batch in batches:
        step.accumulate(batch)
    return {name: gradient.clone() for name, gradient in step.optimizer.storage.gradients.items()}


def _row(step: Step) -> dict[str, float]:
    """The newest row of the ring, by column."""
    rows = step.ring.take().wait()
    return dict(zip(step.ring.columns, rows[-1], strict=True))


def test_loss_and_gradients_against_plain_recomputation() -> None:
    step, batch = make_step(), make_batch(4, 0, ignored=0.3)
    ours = _gradients(step, [batch])
    loss = float(step.settings["loss"])
    plain = make_step().model
    for parameter in plain.parameters():
        parameter.grad = None
    logits = plain(batch.tokens_BT).logits
    expected = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(ours[name], parameter.grad, rtol=1e-5, atol=1e-7), name


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    ignored=st.sampled_from([0.0, 0.4, 0.8]),
    seed=st.integers(0, 99),
)
def test_ragged_accumulation_equals_the_large_batch(rows: list[int], ignored: float, seed: int) -> None:
    batches = [make_batch(n, seed + i, ignored=ignored) for i, n in enumerate(rows)]
    if sum(batch.count for batch in batches) == 0:
        return
    objective = CrossEntropy(0.1, z_loss=1e-3)
    small = _gradients(make_step(objective=objective), batches)
    large = _gradients(make_step(objective=objective), [join(batches)])
    for name in small:
        scale = float(large[name].norm()) + 1e-12
        assert float((small[name] - large[name]).norm()) / scale < 1e-5, name
    total = torch.cat([(small[n] - large[n]).flatten() for n in small]).norm()
    assert float(total / torch.cat([large[n].flatten() for n in large]).norm()) < 1e-6


def test_a_step_is_clip_then_adamw() -> None:
    """Ten steps with accumulation against torch's own AdamW and clip_grad_norm_."""
    step, plain = make_step(), make_step().model
    decayed = [p for n, p in plain.named_parameters() if p.ndim > 1]
    others = [p for n, p in plain.named_parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=1e-2, betas=(0.9, 0.95)
    )
    for number in range(10):
        batches = [make_batch(2, 10 * number + k, ignored=0.2) for k in range(3)]
        step.run(batches, number + 1)
        batch = join(batches)
        optimizer.zero_grad()
        logits = plain(batch.tokens_BT).logits
        F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED).backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        row = _row(step)
        assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for (name, ours), theirs in zip(step.model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5), name


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(poison: float) -> None:
    step = make_step()
    step.run([make_batch(2, 0)], 1)
    before = {n: t.clone() for n, t in step.optimizer.storage.weights.items()}
    state = {n: {s: t.clone() for s, t in slots.items()} for n, slots in step.optimizer.state_by_name().items()}
    step.begin()
    step.accumulate(make_batch(2, 1))
    next(iter(step.optimizer.storage.gradients.values())).view(-1)[0] = poison
    step.update()
    assert _row(step)["skipped"] == 1.0
    for name, weight in step.optimizer.storage.weights.items():
        assert torch.equal(weight, before[name]), name
    for name, slots in step.optimizer.state_by_name().items():
        for slot, tensor in slots.items():
            assert torch.equal(tensor, state[name][slot]), (name, slot)
    step.run([make_batch(2, 2)], 3)
    assert _row(step)["skipped"] == 0.0


def test_the_loss_of_the_row_is_the_sum_of_weighted_terms() -> None:
    step = make_step(objective=CrossEntropy(z_loss=0.5))
    step.run([make_batch(2, 0), make_batch(3, 1)], 1)
    row = _row(step)
    assert row["train/loss"] == pytest.approx(
        row["train/loss/cross_entropy"] + 0.5 * row["train/loss/z_loss"], rel=1e-5
    )
    assert 0.0 <= row["train/accuracy"] <= 1.0


def test_dropout_is_a_pure_function_of_seed_step_and_micro_batch() -> None:
    batches = [make_batch(2, 0), make_batch(2, 1)]
    runs = []
    for disturb in (False, True):
        step = make_step(dropout=0.3)
        for number in (1, 2, 3):
            if disturb:
                torch.rand(7)
            step.run(batches, number)
        runs.append(step.ring.take().wait()[:, 0])
    assert np.array_equal(runs[0], runs[1])
    assert len(set(runs[0].tolist())) == 3


def test_bf16_stays_near_fp32() -> None:
    batches = [make_batch(4, 0)]
    exact, rough = _gradients(make_step(), batches), _gradients(make_step(precision=Bf16()), batches)
    a, b = (torch.cat([t.flatten() for t in g.values()]) for g in (exact, rough))
    assert b.dtype == torch.float32
    assert 1e-5 < float((a - b).norm() / a.norm()) < 0.05


def test_fp16_scales_unscales_and_halves_on_overflow() -> None:
    step = make_step(precision=Fp16(initial_scale=1024.0, growth_every=2))
    scaler = step.precision.scaler
    assert scaler is not None
    plain = make_step()
    for number in range(1, 4):
        step.run([make_batch(4, number)], number)
        plain.run([make_batch(4, number)], number)
        ours, exact = _row(step), _row(plain)
        assert ours["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.02)
        assert ours["skipped"] == 0.0
    assert float(scaler.scale) == 2048.0
    weights = {n: t.clone() for n, t in step.optimizer.storage.weights.items()}
    scaler.scale.fill_(2.0**24)
    step.run([make_batch(4, 9)], 4)
    assert _row(step)["skipped"] == 1.0
    assert float(scaler.scale) == 2.0**23
    assert all(torch.equal(t, weights[n]) for n, t in step.optimizer.storage.weights.items())
