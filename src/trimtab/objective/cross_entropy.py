"""Token cross-entropy."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.objective.head_loss import Weights, head_loss
from trimtab.signals import IGNORED, LossTerms, ModelOutput, Term


@final
class CrossEntropy(nn.Module):
    """Sum over counted tokens of -log p(target), in fp32, with label smoothing and z-loss if wanted.

    With smoothing eps over K classes, `spread="all"` puts eps/K on every class (torch's convention) and
    `spread="others"` puts eps/(K-1) on all but the target. The z-loss is the mean of log(Z)^2, with Z the
    sum of exp(logits), and keeps the logits from drifting.

    Source: Szegedy et al. 2016, arXiv 1512.00567, section 7; Chowdhery et al. 2022, arXiv 2204.02311, section 5.
    """

    z_factor: Tensor

    def __init__(
        self,
        label_smoothing: float = 0.0,
        spread: Literal["all", "others"] = "all",
        z_loss: float = 0.0,
        *,
        fused: Literal["auto", "on", "off"] = "auto",
        chunks: int = 1,
    ) -> None:
        super().__init__()
        self.fused, self.chunks = fused, chunks
        self.label_smoothing = label_smoothing
        self.spread = spread
        self.z_loss = z_loss
        # A device scalar, so that a controller's factor reaches a captured step.
        self.register_buffer("z_factor", torch.ones(()), persistent=False)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms that `forward` gives."""
        return ("cross_entropy", "z_loss") if self.z_loss > 0 else ("cross_entropy",)

    def fuses(self, output: ModelOutput) -> bool:
        """Whether `of_features` takes `output`: a head without bias, not fp16, and for auto CUDA."""
        head, features = output.head, output.features_BTD
        if self.fused == "off" or (self.fused == "auto" and not features.is_cuda):
            return False
        kind = features.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
        return isinstance(head, nn.Linear) and head.bias is None and dtype != torch.float16

    def of_features(self, features_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor) -> LossTerms:
        """What `forward` gives for the logits features · weightᵀ, as one operation."""
        num_classes, smoothing = weight_VD.shape[0], self.label_smoothing
        spread = smoothing / (num_classes if self.spread == "all" else num_classes - 1)
        # Over the others, the share that "all" puts on the target goes back to it.
        plain = 1.0 - smoothing - (0.0 if self.spread == "all" else spread)
        z = self.z_loss * self.z_factor
        total, plain_N, log_normalizer_N, smoothed_N, correct_N = head_loss(
            features_BTD.flatten(0, -2), weight_VD, targets_BT.flatten(), Weights(plain, spread, z), self.chunks
        )
        terms: tuple[Term, ...] = (Term("cross_entropy", total),)
        if self.z_loss > 0:
            # The gradient of both terms comes through the first, whose weight is 1; their values stay apart.
            terms = (
                Term("cross_entropy", smoothed_N.sum() + (total - total.detach())),
                Term("z_loss", log_normalizer_N.square().sum(), weight=z),
            )
        return LossTerms(terms, plain_N.view(targets_BT.shape), correct_N.sum())

    def forward(self, logits_BTV: Tensor, targets_BT: Tensor) -> LossTerms:
        """The terms over one micro-batch; targets equal to IGNORED count nothing."""
        logits_NV, targets_N = logits_BTV.float().flatten(0, -2), targets_BT.flatten()
        counted_N = targets_N != IGNORED
        if self.label_smoothing == 0.0 and self.z_loss == 0.0:
            plain_N = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="none")
            terms: tuple[Term, ...] = (Term("cross_entropy", plain_N.sum()),)
        else:
            # Ignored rows may hold anything, even infinities: they are replaced, not multiplied by zero.
            logits_NV = torch.where(counted_N[:, None], logits_NV, 0.0)
            log_normalizer_N = torch.logsumexp(logits_NV, -1)
            picked_N = logits_NV.gather(-1, targets_N.clamp_min(0)[:, None]).squeeze(-1)
            plain_N = torch.where(counted_N, log_normalizer_N - picked_N, 0.0)
            terms = (Term("cross_entropy", self._smoothed(plain_N, log_normalizer_N, logits_NV, counted_N).sum()),)
            if self.z_loss > 0:
                squared_N = torch.where(counted_N, log_normalizer_N.square(), 0.0)
                terms = (*terms, Term("z_loss", squared_N.sum(), weight=self.z_loss * self.z_factor))
        with torch.no_grad():
            # The target's logit against the largest one: cheaper than argmax, a tie counts as right.
            picked_N = logits_NV.gather(-1, targets_N.clamp_min(0)[:, None]).squeeze(-1)
            correct = ((picked_N >= logits_NV.amax(-1)) & counted_N).sum()
        return LossTerms(terms, plain_N.detach().view(targets_BT.shape), correct)

    def _smoothed(self, plain_N: Tensor, log_normalizer_N: Tensor, logits_NV: Tensor, counted_N: Tensor) -> Tensor:
        if self.label_smoothing == 0.0:
            return plain_N
        num_classes, smoothing = logits_NV.shape[-1], self.label_smoothing
        all_N = torch.where(counted_N, num_classes * log_normalizer_N - logits_NV.sum(-1), 0.0)
        if self.spread == "all":
            return (1.0 - smoothing) * plain_N + smoothing / num_classes * all_N
        return (1.0 - smoothing) * plain_N + smoothing / (num_classes - 1) * (all_N - plain_N)
