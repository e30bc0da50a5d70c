"""AdamW as one Triton kernel: reads gradient, weight and moments once, writes them and the narrow copy once."""

from __future__ import annotations

import math
from typing import Any, Final

import triton
import triton.language as tl
from torch import Tensor

_BLOCK: Final = 1024

Kernel = Any


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _update(  # type: ignore[no-untyped-def]
    weight, narrow, gradient, momentum, square, learning_rate, decay_factor, scale, skip, applied,
    size, weight_decay, rate_factor, log_beta1, log_beta2, keep1, keep2, epsilon,
    NARROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    if tl.load(skip) != 0.0:
        return
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < size
    count = tl.load(applied)
    # 1 - beta^count loses all but a few digits in fp32 while count is small.
    correction1 = (1.0 - tl.exp(count.to(tl.float64) * log_beta1)).to(tl.float32)
    correction2 = (1.0 - tl.exp(count.to(tl.float64) * log_beta2)).to(tl.float32)
    rate = tl.load(learning_rate) * rate_factor
    g = tl.load(gradient + offsets, mask=inside, other=0.0).to(tl.float32) * tl.load(scale)
    m = tl.load(momentum + offsets, mask=inside, other=0.0)
    v = tl.load(square + offsets, mask=inside, other=0.0)
    w = tl.load(weight + offsets, mask=inside, other=0.0)
    m += (g - m) * keep1
    v += (g * g - v) * keep2
    w *= 1.0 - rate * weight_decay * tl.load(decay_factor)
    w -= rate * tl.div_rn(m, correction1) / (tl.sqrt_rn(tl.div_rn(v, correction2)) + epsilon)
    tl.store(momentum + offsets, m, mask=inside)
    tl.store(square + offsets, v, mask=inside)
    tl.store(weight + offsets, w, mask=inside)
    if NARROW:
        tl.store(narrow + offsets, w.to(narrow.dtype.element_ty), mask=inside)


def update(
    weight: Tensor,
    narrow: Tensor | None,
    gradient: Tensor,
    momentum: Tensor,
    square: Tensor,
    *,
    learning_rate: Tensor,
    decay_factor: Tensor,
    scale: Tensor,
    skip: Tensor,
    applied: Tensor,
    weight_decay: float,
    rate_factor: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    """One update of flat tensors; 0-dim tensors are read on the device. `applied` counts this update already."""
    kernel: Kernel = _update
    size = weight.numel()
    kernel[(triton.cdiv(size, _BLOCK),)](
        weight, weight if narrow is None else narrow, gradient, momentum, square,
        learning_rate, decay_factor, scale, skip, applied, size, weight_decay, rate_factor,
        math.log(beta1) if beta1 else -math.inf, math.log(beta2) if beta2 else -math.inf,
        1.0 - beta1, 1.0 - beta2, epsilon,
        NARROW=narrow is not None, BLOCK=_BLOCK, num_warps=4,
    )  # fmt: skip
