"""`judge` of head_loss.py as one Triton kernel: one program a row, which reads its logits twice (the second time
mostly from the cache) and writes their gradient once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trimtab.signals import IGNORED

if TYPE_CHECKING:
    from trimtab.objective.head_loss import Weights

Kernel = Any


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _judge(  # type: ignore[no-untyped-def]
    logits, targets, plain, log_normalizer, smoothed, correct, z, smoothing,
    stride, num_classes, num_columns, divisor,
    IGNORED: tl.constexpr, LOWEST: tl.constexpr, SPREADS: tl.constexpr, OVER_OTHERS: tl.constexpr,
    GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    if target == IGNORED:
        tl.store(plain + row, 0.0)
        tl.store(log_normalizer + row, 0.0)
        tl.store(smoothed + row, 0.0)
        tl.store(correct + row, 0.0)
        if GRADIENT:
            for start in range(0, num_columns, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                tl.store(logits + columns, tl.zeros([BLOCK], logits.dtype.element_ty), mask=columns < num_columns)
        return
    picked = tl.load(logits + target).to(tl.float32)
    # One running maximum and sum a lane, joined at the end: no reduction across the row inside the loop.
    lane_high = tl.full([BLOCK], LOWEST, tl.float32)
    lane_sum = tl.zeros([BLOCK], tl.float32)
    lane_total = tl.zeros([BLOCK], tl.float32)
    # Where a lane's maximum stands first. Nothing in this loop waits for the target's logit.
    lane_first = tl.zeros([BLOCK], tl.int32)
    for start in range(0, num_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < num_classes
        value = tl.load(logits + columns, mask=inside, other=LOWEST).to(tl.float32)
        # One exponential a value, of the smaller over the larger. Lanes without a value vanish at the end.
        ratio = tl.exp(-tl.abs(value - lane_high))
        lane_sum = tl.where(value > lane_high, lane_sum * ratio + 1.0, lane_sum + ratio)
        lane_first = tl.where(value > lane_high, columns, lane_first)
        lane_high = tl.maximum(lane_high, value)
        if SPREADS:
            lane_total += tl.where(inside, value, 0.0)
    high = tl.max(lane_high, 0)
    normalizer = tl.sum(lane_sum * tl.exp(lane_high - high), 0)
    lse = high + tl.log(normalizer)
    loss = lse - picked
    plain_weight = 1.0
    spread_weight = 0.0
    if SPREADS:
        share = tl.load(smoothing).to(tl.float32)
        spread_weight = share / divisor
        plain_weight = 1.0 - share
        if OVER_OTHERS:
            plain_weight -= spread_weight
    weighted = plain_weight * loss
    factor = plain_weight + 2.0 * tl.load(z) * lse
    if SPREADS:
        weighted += spread_weight * (num_classes * lse - tl.sum(lane_total, 0))
        factor += spread_weight * num_classes
    tl.store(plain + row, loss)
    tl.store(log_normalizer + row, lse)
    tl.store(smoothed + row, weighted)
    first = tl.min(tl.where(lane_high == high, lane_first, num_columns), 0)
    tl.store(correct + row, tl.where(first == target, 1.0, 0.0))
    if GRADIENT:
        for start in range(0, num_columns, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            value = tl.load(logits + columns, mask=columns < num_classes, other=-float("inf")).to(tl.float32)
            gradient = factor * tl.exp(value - lse)
            if SPREADS:
                gradient -= tl.where(columns < num_classes, spread_weight, 0.0)
            gradient -= tl.where(columns == target, plain_weight, 0.0)
            tl.store(logits + columns, gradient.to(logits.dtype.element_ty), mask=columns < num_columns)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _scale(values, factor, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(values + offsets, mask=offsets < size).to(tl.float32) * tl.load(factor)
    tl.store(values + offsets, value.to(values.dtype.element_ty), mask=offsets < size)


def scale(values: Tensor, factor: Tensor) -> Tensor:
    """`values` times a 0-dim fp32 tensor, in place: torch takes three times as long for this mixture of dtypes."""
    kernel: Kernel = _scale
    kernel[(triton.cdiv(values.numel(), 2048),)](values, factor, values.numel(), BLOCK=2048, num_warps=4)
    return values


def judge(
    logits_NV: Tensor, targets_N: Tensor, num_classes: int, weights: Weights, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `judge` of head_loss.py."""
    num_tokens, num_columns = logits_NV.shape
    given = torch.empty(4, num_tokens, dtype=torch.float32, device=logits_NV.device)
    plain, log_normalizer, smoothed, correct = given.unbind()
    block = min(4096, triton.next_power_of_2(num_columns))
    kernel: Kernel = _judge
    kernel[(num_tokens,)](
        logits_NV, targets_N, plain, log_normalizer, smoothed, correct, weights.z, weights.smoothing,
        logits_NV.stride(0), num_classes, num_columns, weights.divisor(num_classes),
        IGNORED=IGNORED, LOWEST=-1e30, SPREADS=weights.spreads, OVER_OTHERS=weights.over_others, GRADIENT=with_gradient,
        BLOCK=block, num_warps=max(1, min(32, block // 128)),
    )  # fmt: skip
    return plain, log_normalizer, smoothed, correct
