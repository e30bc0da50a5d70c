"""Cross-entropy over classes: of tokens, or of whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeGuard, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.errors import ConfigError
from trimtab.objective.by_rows import cross_entropy_by_rows
from trimtab.objective.first_largest import first_largest
from trimtab.objective.head_loss import Weights, head_loss
from trimtab.signals import IGNORED, LossTerms, ModelOutput, Term

HIGHEST_SMOOTHING: Final = 0.95


@final
class CrossEntropy(nn.Module):
    """Sum over counted targets of -log p(target), in fp32, with label smoothing and z-loss if wanted.

    With smoothing eps over K classes, `spread="all"` puts eps/K on every class (torch's convention) and
    `spread="others"` puts eps/(K-1) on all but the target. The z-loss is the mean of log(Z)^2, with Z the
    sum of exp(logits), and keeps the logits from drifting. `class_weights` stand before -log p of their class, the
    smoothed ones included, as in torch; the sum is divided by the number of targets, not by that of their weights.
    `mmce` is the weight of a term that is large where confidence and accuracy differ (`calibration_error`).

    Source: Szegedy et al. 2016, arXiv 1512.00567, section 7; Chowdhery et al. 2022, arXiv 2204.02311, section 5.
    """

    z_factor: Tensor
    smoothing: Tensor
    class_weights_V: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        spread: Literal["all", "others"] = "all",
        z_loss: float = 0.0,
        *,
        fused: Literal["auto", "on", "off"] = "auto",
        chunks: int | Literal["auto"] = "auto",
        class_weights: Sequence[float] | None = None,
        mmce: float = 0.0,
    ) -> None:
        super().__init__()
        self.mmce = mmce
        self.fused, self.chunks = fused, chunks
        self.label_smoothing = label_smoothing
        self.spread = spread
        self.z_loss = z_loss
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights_V", weights, persistent=False)
        # Device scalars, so that a controller's factor reaches a captured step; fp64, to round nothing in fp64 losses.
        self.register_buffer("z_factor", torch.ones(()), persistent=False)
        self.register_buffer("smoothing", torch.tensor(label_smoothing, dtype=torch.float64), persistent=False)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms that `forward` gives."""
        return ("cross_entropy", *(("z_loss",) if self.z_loss > 0 else ()), *(("mmce",) if self.mmce > 0 else ()))

    def set_smoothing_factor(self, factor: float) -> None:
        """Smooth with `label_smoothing` times `factor` from here on, at most 0.95; does not wait for the device."""
        self.smoothing.fill_(scaled_smoothing(self.label_smoothing, factor))

    def fuses(self, output: ModelOutput) -> bool:
        """Whether `of_features` takes `output`: plain head, no bias, no class weights, not fp16, and for auto CUDA."""
        head, features = output.head, output.features
        if self.class_weights_V is not None or self.mmce > 0:
            return False
        if self.fused == "off" or (self.fused == "auto" and not features.is_cuda):
            return False
        kind = features.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
        return is_plain(head) and head.bias is None and dtype != torch.float16

    def of_features(self, features: Tensor, weight_VD: Tensor, targets: Tensor) -> LossTerms:
        """What `forward` gives for the logits features · weightᵀ, as one operation."""
        self._spread_over(weight_VD.shape[0])  # refuses what cannot be spread
        z = self.z_loss * self.z_factor
        weights = Weights(self.smoothing, self.label_smoothing > 0.0, self.spread == "others", z)
        chunks = None if self.chunks == "auto" else self.chunks
        total, plain_N, log_normalizer_N, smoothed_N, correct_N = head_loss(
            features.flatten(0, -2), weight_VD, targets.flatten(), weights, chunks
        )
        terms: tuple[Term, ...] = (Term("cross_entropy", total),)
        if self.z_loss > 0:
            # The gradient of both terms comes through the first, whose weight is 1; their values stay apart.
            terms = (
                Term("cross_entropy", smoothed_N.sum() + (total - total.detach())),
                Term("z_loss", log_normalizer_N.square().sum(), weight=z),
            )
        return LossTerms(terms, plain_N.view(targets.shape), {"accuracy": correct_N.sum()})

    def forward(self, logits: Tensor, targets: Tensor) -> LossTerms:
        """The terms over one micro-batch; targets equal to IGNORED count nothing."""
        is_plain_loss = self.label_smoothing == 0.0 and self.z_loss == 0.0 and self.class_weights_V is None
        if is_plain_loss and self.mmce == 0.0 and logits.device.type == "cpu" and not torch.compiler.is_compiling():
            losses_N, hits_N = counted_by_rows(logits.flatten(0, -2), targets.flatten())
            plain = Term("cross_entropy", losses_N.sum())
            return LossTerms((plain,), losses_N.detach().view(targets.shape), {"accuracy": hits_N.sum()})
        logits_NV, targets_N, counted_N = counted_logits(logits, targets)
        if is_plain_loss:
            plain_N = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="none")
            terms: tuple[Term, ...] = (Term("cross_entropy", plain_N.sum()),)
        else:
            log_normalizer_N = torch.logsumexp(logits_NV, -1)
            picked_N = logits_NV.gather(-1, targets_N.clamp_min(0)[:, None]).squeeze(-1)
            plain_N = torch.where(counted_N, log_normalizer_N - picked_N, 0.0)
            terms = (Term("cross_entropy", self._smoothed(plain_N, log_normalizer_N, logits_NV, targets_N).sum()),)
            if self.z_loss > 0:
                squared_N = torch.where(counted_N, log_normalizer_N.square(), 0.0)
                terms = (*terms, Term("z_loss", squared_N.sum(), weight=self.z_loss * self.z_factor))
        if self.mmce > 0:
            error = calibration_error(logits_NV, targets_N, counted_N)
            terms = (*terms, Term("mmce", error * counted_N.sum(), weight=self.mmce, additive=False))
        with torch.no_grad():
            # Of equal logits the first is the answer, as for who predicts.
            correct = ((first_largest(logits_NV) == targets_N) & counted_N).sum()
        return LossTerms(terms, plain_N.detach().view(targets.shape), {"accuracy": correct})

    def _smoothed(self, plain_N: Tensor, log_normalizer_N: Tensor, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        weights_V, num_classes, smoothing = self.class_weights_V, logits_NV.shape[-1], self.smoothing
        if weights_V is not None:
            plain_N = plain_N * weights_V[targets_N.clamp_min(0)]
        if self.label_smoothing == 0.0:
            return plain_N
        if weights_V is None:
            all_N = num_classes * log_normalizer_N - logits_NV.sum(-1)
        else:
            all_N = weights_V.sum() * log_normalizer_N - logits_NV @ weights_V.to(logits_NV.dtype)
        all_N = torch.where(targets_N != IGNORED, all_N, 0.0)
        share = smoothing / self._spread_over(num_classes)
        return (1.0 - smoothing) * plain_N + share * (all_N if self.spread == "all" else all_N - plain_N)

    def _spread_over(self, num_classes: int) -> int:
        if self.spread == "all" or num_classes > 1:
            return num_classes if self.spread == "all" else num_classes - 1
        raise ConfigError("objective.spread others needs another class, and there is one", hint="objective.spread=all")


def counted_by_rows(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and hits [N], 0 and False in rows that are not counted, which may hold anything."""
    rows = (targets_N != IGNORED).nonzero().squeeze(-1)
    if len(rows) == len(targets_N):
        return cross_entropy_by_rows(logits_NV, targets_N)
    losses, hits = cross_entropy_by_rows(logits_NV.index_select(0, rows), targets_N[rows])
    losses_N = losses.new_zeros(len(targets_N)).index_copy(0, rows, losses)
    return losses_N, torch.zeros_like(targets_N, dtype=torch.bool).index_copy(0, rows, hits)


def counted_logits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Wide logits [N, V], 0 in rows that are not counted; targets [N]; which are counted [N].

    Such rows may hold anything, even infinities: they are replaced, not multiplied by zero, in the gradient, too.
    """
    targets_N = targets.flatten()
    counted_N = targets_N != IGNORED
    logits_NV = wide(logits).flatten(0, -2)
    # A CPU is asked at no cost, and spared a pass over all logits and one over their gradient; compiled code is not.
    if torch.compiler.is_compiling() or not (targets_N.is_cpu and bool(counted_N.all())):
        logits_NV = torch.where(counted_N[:, None], logits_NV, 0.0)
    return logits_NV, targets_N, counted_N


def calibration_error(logits_NV: Tensor, targets_N: Tensor, counted_N: Tensor) -> Tensor:
    """Maximum mean calibration error: sqrt(mean over pairs of (c_i - r_i) (c_j - r_j) exp(-|r_i - r_j| / 0.4)).

    r is the probability of the most probable class, and c whether it is right. Of the whole batch: the errors of parts
    do not add up to it. [N, N] in memory.
    Source: Kumar et al. 2018 (ICML), "Trainable calibration measures for neural networks from kernel mean embeddings",
    equation 5, with the Laplacian kernel and width of its section 5.
    """
    confidence_N = logits_NV.softmax(-1).amax(-1)
    right_N = first_largest(logits_NV.detach()) == targets_N
    off_N = torch.where(counted_N, right_N.to(confidence_N.dtype) - confidence_N, 0.0)
    kernel_NN = torch.exp((confidence_N[:, None] - confidence_N[None]).abs() / -0.4)
    mean = (off_N @ kernel_NN @ off_N) / counted_N.sum().clamp_min(1).square()
    return mean.clamp_min(torch.finfo(torch.float32).tiny).sqrt()


def is_plain(head: object) -> TypeGuard[nn.Linear]:
    """Whether calling `head` does nothing but multiply: no subclass, no hooks, no forward of its own."""
    return type(head) is nn.Linear and not (
        head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or "forward" in vars(head)
    )


def scaled_smoothing(label_smoothing: float, factor: float) -> float:
    """`label_smoothing` times `factor`, at most 0.95, or what is configured where that is more.

    Raises: ValueError for a negative factor.
    """
    if factor < 0.0:
        raise ValueError(f"factor must not be negative. Received: {factor}")
    return min(max(HIGHEST_SMOOTHING, label_smoothing), label_smoothing * factor)


def wide(x: Tensor) -> Tensor:
    """`x` in fp32, or in fp64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()
