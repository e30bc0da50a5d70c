"""The head and the cross-entropy as one operation: logits are made, judged and turned into their gradient in place.

Shape suffixes: N tokens · D hidden size · V vocabulary, padded to a multiple of 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.objective.first_largest import first_largest
from trimtab.signals import IGNORED

try:  # Triton comes with torch's CUDA builds alone.
    from trimtab.objective import head_loss_kernel as _kernel
except ImportError:
    _kernel = None  # type: ignore[assignment]

VOCABULARY_MULTIPLE: Final = 64
"""Products of odd sizes are slow on tensor cores: 50,257 columns take 5 % more of a step than 50,304."""
CHUNK_BYTES: Final = 2 << 30
"""Of logits at once, unless a number of chunks is given."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The loss of a token: plain * (lse - logit of the target) + spread * (K lse - sum of logits), + z * lse².

    spread is smoothing / K, and plain is 1 - smoothing; over the others, spread is smoothing / (K - 1), and the share
    that would fall on the target goes back to it: plain is 1 - smoothing - spread.
    """

    smoothing: Tensor
    """0-dim, on the device, so that it may change in a captured step."""
    spreads: bool
    """False where smoothing is 0 and stays so."""
    over_others: bool
    z: Tensor
    """0-dim, fp32, on the device."""

    def divisor(self, num_classes: int) -> int:
        """Of the smoothing, for the share of one class."""
        return num_classes - 1 if self.over_others else num_classes


class _HeadLoss(torch.autograd.Function):
    """Sum of the weighted loss, differentiable; plain loss a token, log-sum-exp, smoothed loss and hits, which are not.

    The gradient is computed with the loss, while a row of logits is still in the cache, for an upstream gradient of
    1; backward multiplies with the real one. With chunks the logits of the whole batch never exist at once.
    """

    @staticmethod
    def forward(
        context: Any,
        features_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        weights: Weights,
        num_chunks: int | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        num_classes, num_tokens = weight_VD.shape[0], features_ND.shape[0]
        padding = -num_classes % VOCABULARY_MULTIPLE
        padded_VD = F.pad(weight_VD, (0, 0, 0, padding)) if padding else weight_VD
        needs_features, needs_weight = context.needs_input_grad[:2]
        with_gradient = needs_features or needs_weight
        features_gradient = torch.empty_like(features_ND) if needs_features else None
        weight_gradient: Tensor | None = None
        columns: list[tuple[Tensor, ...]] = []
        if num_chunks is None:
            num_chunks = -(-num_tokens * padded_VD.shape[0] * padded_VD.element_size() // CHUNK_BYTES)
        size = -(-num_tokens // num_chunks)
        for start in range(0, num_tokens, size):
            rows = slice(start, start + size)
            logits_NV = features_ND[rows] @ padded_VD.t()
            columns.append(judge(logits_NV, targets_N[rows], num_classes, weights, with_gradient))
            if features_gradient is not None:
                torch.mm(logits_NV, padded_VD, out=features_gradient[rows])
            if needs_weight:
                if num_chunks == 1:
                    weight_gradient = logits_NV.t() @ features_ND[rows]
                else:
                    weight_gradient = _added_in_fp32(weight_gradient, logits_NV.t(), features_ND[rows])
            del logits_NV
        plain_N, log_normalizer_N, smoothed_N, correct_N = (torch.cat(parts) for parts in zip(*columns, strict=True))
        if weight_gradient is not None:
            weight_gradient = weight_gradient[:num_classes]
        context.save_for_backward(features_gradient, weight_gradient)
        context.weight_dtype = weight_VD.dtype
        total = smoothed_N.sum() + weights.z * log_normalizer_N.square().sum()
        context.mark_non_differentiable(plain_N, log_normalizer_N, smoothed_N, correct_N)
        return total, plain_N, log_normalizer_N, smoothed_N, correct_N

    @staticmethod
    def backward(context: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        features_gradient, weight_gradient = context.saved_tensors
        if features_gradient is not None:
            features_gradient = _scaled(features_gradient, upstream)
        if weight_gradient is not None:
            weight_gradient = _scaled(weight_gradient, upstream).to(context.weight_dtype)
        return features_gradient, weight_gradient, None, None, None


def _added_in_fp32(sums: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """sums + a b, in fp32."""
    if a.is_cuda and a.dtype != torch.float32:
        if sums is None:
            return torch.mm(a, b, out_dtype=torch.float32)
        return torch.addmm(sums, a, b, out_dtype=torch.float32)
    product = a @ b
    product = product.to(torch.promote_types(product.dtype, torch.float32))
    return product if sums is None else sums.add_(product)


def _scaled(values: Tensor, factor: Tensor) -> Tensor:
    """`values` times `factor`, in place."""
    if _kernel is not None and values.is_cuda and values.is_contiguous() and factor.dtype == torch.float32:
        return _kernel.scale(values, factor)
    return values.mul_(factor)


def judge(
    logits_NV: Tensor, targets_N: Tensor, num_classes: int, weights: Weights, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """fp32 plain loss, log-sum-exp, smoothed loss, and hits of each row; rows that are not counted give 0.

    With `with_gradient` the logits are overwritten with the gradient of the weighted loss, 0 in padded columns.
    """
    if _kernel is not None and logits_NV.is_cuda:
        return _kernel.judge(logits_NV, targets_N, num_classes, weights, with_gradient)
    counted_N = targets_N != IGNORED
    logits = logits_NV[:, :num_classes].float()
    # Rows that are not counted may hold anything, even infinities: they are replaced, not multiplied by zero.
    logits = torch.where(counted_N[:, None], logits, 0.0)
    log_normalizer_N = torch.logsumexp(logits, -1)
    picked_N = logits.gather(-1, targets_N.clamp_min(0)[:, None]).squeeze(-1)
    # Of equal logits the first is the answer.
    correct_N = ((first_largest(logits) == targets_N) & counted_N).float()
    plain_N = torch.where(counted_N, log_normalizer_N - picked_N, 0.0)
    smoothing = weights.smoothing.to(logits.dtype)
    spread = smoothing / weights.divisor(num_classes)
    plain = 1.0 - smoothing - (spread if weights.over_others else 0.0)
    smoothed_N = plain_N * plain
    if weights.spreads:
        all_N = torch.where(counted_N, num_classes * log_normalizer_N - logits.sum(-1), 0.0)
        smoothed_N = smoothed_N + spread * all_N
    if with_gradient:
        factor_N = plain + spread * num_classes + 2.0 * weights.z * log_normalizer_N
        gradient = (logits - log_normalizer_N[:, None]).exp_().mul_(factor_N[:, None]).sub_(spread)
        gradient.scatter_add_(-1, targets_N.clamp_min(0)[:, None], -plain.expand(len(targets_N), 1))
        logits_NV[:, :num_classes] = torch.where(counted_N[:, None], gradient, 0.0)
        logits_NV[:, num_classes:] = 0.0
    return plain_N, torch.where(counted_N, log_normalizer_N, 0.0), smoothed_N, correct_N


def head_loss(
    features_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights: Weights, num_chunks: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Total (differentiable), plain loss a token, log-sum-exp, smoothed loss and hits (fp32, of each token).

    Products are in autocast's dtype, or in that of the features. Without `num_chunks` the logits of a chunk take
    CHUNK_BYTES at most. A target equal to IGNORED counts nothing.
    Source: own; the gradient in place as in Hsu et al. 2024, arXiv 2410.10989 (Liger kernels), section 3.2.
    """
    kind = features_ND.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_VD.dtype
    with torch.autocast(kind, enabled=False):
        given: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _HeadLoss.apply(  # type: ignore[no-untyped-call]
            features_ND.to(dtype), weight_VD.to(dtype), targets_N, weights, num_chunks
        )
    return given
