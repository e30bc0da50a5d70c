"""Losses of vectors: what belongs together shall be nearer than what else there is in the batch.

Shape suffixes: B rows · N vectors · E numbers of a vector.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.objective.cross_entropy import wide
from trimtab.signals import IGNORED, LossTerms, Term


@final
class InfoNce(nn.Module):
    """Sum over pairs i of -log (exp(s_ii / t) / sum over j of exp(s_ij / t)), s_ij the product of first i and second j.

    The seconds of other rows are what a first is told from; those whose target is that of row i, as they hold the same
    text, are left out of the sum. With `symmetric` half of it is that, and half the same of seconds among firsts.
    A target is the number of what belongs together; IGNORED counts nothing. Not additive: more rows, more to tell from.

    Source: van den Oord et al. 2018, arXiv 1807.03748, eq. 4; symmetric: Radford et al. 2021, arXiv 2103.00020,
    figure 3.
    """

    term_names = ("info_nce",)

    def __init__(self, temperature: float = 0.05, *, symmetric: bool = True) -> None:
        super().__init__()
        self.temperature, self.symmetric = temperature, symmetric

    def forward(self, first_BE: Tensor, second_BE: Tensor, targets_B: Tensor, scale: Tensor | None = None) -> LossTerms:
        """The terms over all rows of a step; `scale` stands for 1 / temperature where that is learned."""
        counted_B, masked_BB = told_apart(targets_B)
        first_BE, second_BE = (replaced(vectors, counted_B) for vectors in (first_BE, second_BE))
        similar_BB = similarities(first_BE, second_BE)
        logits_BB = similar_BB / self.temperature if scale is None else similar_BB * scale
        logits_BB = logits_BB.masked_fill(masked_BB, float("-inf"))
        own_B = torch.arange(len(targets_B), device=targets_B.device)
        loss_B = F.cross_entropy(logits_BB, own_B, reduction="none")
        if self.symmetric:
            loss_B = (loss_B + F.cross_entropy(logits_BB.t(), own_B, reduction="none")) / 2
        loss_B = torch.where(counted_B, loss_B, 0.0)
        with torch.no_grad():
            right = ((rank_of_own(similar_BB, masked_BB) == 1) & counted_B).sum()
        return LossTerms((Term("info_nce", loss_B.sum(), additive=False),), loss_B.detach(), {"accuracy": right})


@final
class SupervisedContrastive(nn.Module):
    """Sum over texts i of -1/|P(i)| · sum over p in P(i) of log (exp(s_ip / t) / sum over a ≠ i of exp(s_ia / t)).

    P(i) are the other texts of the class of i; a text alone in its class gives 0 and counts. IGNORED counts nothing.
    Not additive: more texts, more to tell from.

    Source: Khosla et al. 2020, arXiv 2004.11362, eq. 2.
    """

    term_names = ("supervised_contrastive",)

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, vectors_BE: Tensor, targets_B: Tensor) -> LossTerms:
        """The terms over all texts of a step."""
        counted_B = targets_B != IGNORED
        vectors_BE = replaced(vectors_BE, counted_B)
        similar_BB = similarities(vectors_BE, vectors_BE)
        others_BB, same_BB = of_one_class(targets_B)
        # A row that nothing is told from is left as it is: all -inf would have no gradient but NaN.
        alone_B = ~others_BB.any(1)
        logits_BB = (similar_BB / self.temperature).masked_fill(~(others_BB | alone_B[:, None]), float("-inf"))
        log_probability_BB = logits_BB - torch.logsumexp(logits_BB, 1, keepdim=True)
        partners_B = same_BB.sum(1)
        loss_B = -torch.where(same_BB, log_probability_BB, 0.0).sum(1) / partners_B.clamp_min(1)
        with torch.no_grad():
            right = ((first_of_class(similar_BB, others_BB, same_BB) == 1) & (partners_B > 0)).sum()
        total = loss_B.sum()
        return LossTerms((Term("supervised_contrastive", total, additive=False),), loss_B.detach(), {"accuracy": right})


def told_apart(targets_B: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows are counted, and which first and second, [B, B], are nothing to tell apart, a row's own aside."""
    counted_B = targets_B != IGNORED
    own_BB = torch.eye(len(targets_B), dtype=torch.bool, device=targets_B.device)
    same_BB = targets_B[:, None] == targets_B[None]
    return counted_B, (same_BB | ~counted_B[None] | ~counted_B[:, None]) & ~own_BB


def of_one_class(targets_B: Tensor) -> tuple[Tensor, Tensor]:
    """[B, B]: which texts are others that are counted, and which of these are of the same class."""
    counted_B = targets_B != IGNORED
    own_BB = torch.eye(len(targets_B), dtype=torch.bool, device=targets_B.device)
    others_BB = counted_B[None] & counted_B[:, None] & ~own_BB
    return others_BB, others_BB & (targets_B[:, None] == targets_B[None])


def similarities(a_NE: Tensor, b_NE: Tensor) -> Tensor:
    """Products of every two, in their own precision whatever autocast says: they are divided by a small number."""
    with torch.autocast(a_NE.device.type, enabled=False):
        return a_NE @ b_NE.t()


def rank_of_own(similar_BB: Tensor, masked_BB: Tensor) -> Tensor:
    """The place, from 1, of a first's own second among all that it is told from; of equal ones the last."""
    own_B1 = similar_BB.diagonal()[:, None]
    return ((similar_BB >= own_B1) & ~masked_BB).sum(1)


def first_of_class(similar_BB: Tensor, others_BB: Tensor, same_BB: Tensor) -> Tensor:
    """The place, from 1, of the nearest text of the same class among all others; of equal ones the last."""
    nearest_B1 = similar_BB.masked_fill(~same_BB, float("-inf")).amax(1, keepdim=True)
    before_BB = (similar_BB >= nearest_B1) & others_BB & ~same_BB
    return before_BB.sum(1) + 1


def replaced(vectors_BE: Tensor, counted_B: Tensor) -> Tensor:
    """In fp32, and 0 in rows that are not counted, which may hold anything."""
    return torch.where(counted_B[:, None], wide(vectors_BE), 0.0)
