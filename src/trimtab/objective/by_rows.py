"""Cross-entropy on a processor, a few rows at a time, so that what lies between stays in its cache.

Shape suffixes: N rows · V classes.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trimtab.objective.first_largest import first_largest

_VALUES: Final = 1 << 19
"""Of logits at once: 2 MB in fp32."""


class _ByRows(torch.autograd.Function):
    """-log p of each target, differentiable, and whether it is the answer, which is not.

    The gradient is computed with the loss, while its rows are in the cache, for an upstream gradient of 1.
    """

    @staticmethod
    def forward(context: Any, logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        losses_N = logits_NV.new_empty(len(targets_N), dtype=torch.promote_types(logits_NV.dtype, torch.float32))
        hits_N = torch.zeros_like(targets_N, dtype=torch.bool)
        gradient_NV = torch.empty_like(logits_NV) if context.needs_input_grad[0] else None
        size = max(1, _VALUES // logits_NV.shape[-1])
        for start in range(0, len(targets_N), size):
            rows = slice(start, start + size)
            logits, targets = logits_NV[rows].to(losses_N.dtype), targets_N[rows, None]
            chances, highest, picked = logits.softmax(-1), logits.amax(-1), logits.gather(-1, targets).squeeze(-1)
            # The highest chance is at least 1/V, so that its logarithm is exact where that of the target's may not be.
            losses_N[rows] = (highest - picked) - chances.amax(-1).log()
            # A row whose target is not among the largest needs no search for the first of them.
            candidates = (picked == highest).nonzero().squeeze(-1)
            if len(candidates):
                hits_N[rows][candidates] = first_largest(logits[candidates]) == targets[candidates, 0]
            if gradient_NV is not None:
                gradient_NV[rows] = chances.scatter_add_(-1, targets, -torch.ones_like(picked)[:, None])
        context.save_for_backward(gradient_NV)
        context.mark_non_differentiable(hits_N)
        return losses_N, hits_N

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream_N: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (gradient_NV,) = context.saved_tensors
        return gradient_NV * upstream_N[:, None].to(gradient_NV.dtype), None


def cross_entropy_by_rows(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """-log p of each target [N], in fp32 or wider, and whether it is the first of the most probable classes [N].

    The gradient has the dtype of the logits. Once differentiable.
    """
    given: tuple[Tensor, Tensor] = _ByRows.apply(logits_NV, targets_N)  # type: ignore[no-untyped-call]
    return given
