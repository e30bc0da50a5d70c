"""A vector for each text.

Shape suffixes: B rows · T positions · S positions of a second text · E numbers of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.objective.contrastive import (
    InfoNce,
    SupervisedContrastive,
    first_of_class,
    of_one_class,
    rank_of_own,
    replaced,
    similarities,
    told_apart,
)
from trimtab.objective.tasks.parts import logits_of, token_inputs
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput

_FAR = 2.0
"""Uniformity: the factor t of the squared distance."""


@final
class ContrastiveTask:
    """Texts that belong together, as two texts of a row or as those of one class, shall have vectors that are near.

    The texts of pairs are read by one model in one pass: rows 2 i and 2 i + 1 are the first and the second of row i, so
    that several batches are one by putting their outputs one behind the other. Metrics, the loss among them, are of
    what is judged at once: among more texts it is harder to find the right one.
    """

    name = "contrastive"
    score_names = ("accuracy",)

    def __init__(self, objective: InfoNce | SupervisedContrastive) -> None:
        self.objective = objective

    @property
    def term_names(self) -> tuple[str, ...]:
        """The objective's."""
        return self.objective.term_names

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """tokens, positions, documents: of the texts, [B, T], or of both texts of each row, [2 B, longest]."""
        if batch.second_BS is None:
            return token_inputs(batch)
        longest = max(batch.tokens_BT.shape[1], batch.second_BS.shape[1])
        second_BS = F.pad(batch.second_BS, (0, longest - batch.second_BS.shape[1]), value=-1)
        real_BS = second_BS >= 0
        documents_BS = torch.where(real_BS, 0, -1).to(batch.document_ids_BT.dtype)
        places_S = torch.arange(longest, device=second_BS.device, dtype=batch.positions_BT.dtype)
        more = longest - batch.tokens_BT.shape[1]
        return {
            "tokens_BT": _in_turn(F.pad(batch.tokens_BT, (0, more)), second_BS.clamp_min(0)),
            "positions_BT": _in_turn(F.pad(batch.positions_BT, (0, more)), torch.where(real_BS, places_S, 0)),
            "document_ids_BT": _in_turn(F.pad(batch.document_ids_BT, (0, more), value=-1), documents_BS),
        }

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective over all rows of `batch`."""
        vectors = logits_of(output)
        if batch.second_BS is None:
            terms: LossTerms = self.objective(vectors, batch.targets)
        else:
            scale = output.scale() if isinstance(output, ModelOutput) and output.scale is not None else None
            terms = self.objective(vectors[0::2], vectors[1::2], batch.targets, scale)
        return terms

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The vectors [B, E] of the first texts."""
        vectors = logits_of(output)
        return vectors if batch.second_BS is None else vectors[0::2]

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Sums: loss; right ones, reciprocal ranks; squared distance and number of what belongs together; exp(-2
        distance²) and number of pairs of different texts."""
        vectors = logits_of(output)
        if batch.second_BS is None:
            others_BB, same_BB = of_one_class(batch.targets)
            counted_B = batch.targets != IGNORED
            vectors_BE = replaced(vectors, counted_B)
            rank_B = first_of_class(similarities(vectors_BE, vectors_BE), others_BB, same_BB)
            ranked_B = same_BB.any(1)
            distance_BB = _squared_distances(vectors_BE, vectors_BE)
            together = (torch.where(same_BB, distance_BB, 0.0).sum(), same_BB.sum())
            apart = _uniformity(distance_BB, others_BB)
        else:
            ranked_B, masked_BB = told_apart(batch.targets)
            first_BE, second_BE = (replaced(part, ranked_B) for part in (vectors[0::2], vectors[1::2]))
            rank_B = rank_of_own(similarities(first_BE, second_BE), masked_BB)
            own_B = _squared_distances(first_BE, second_BE).diagonal()
            together = (torch.where(ranked_B, own_B, 0.0).sum(), ranked_B.sum())
            others_BB, _ = of_one_class(batch.targets)
            others_BB = others_BB & ~masked_BB
            halves = [_uniformity(_squared_distances(part, part), others_BB) for part in (first_BE, second_BE)]
            apart = (halves[0][0] + halves[1][0], halves[0][1] + halves[1][1])
        sums = (
            terms.losses.sum(dtype=torch.float64),
            ((rank_B == 1) & ranked_B).sum(),
            torch.where(ranked_B, rank_B.double().reciprocal(), 0.0).sum(),
            *together,
            *apart,
        )
        return torch.stack([value.double() for value in sums])

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`; `accuracy`, how often what belongs to a text is the nearest, and `reciprocal_rank`, the mean of 1 /
        its place; `alignment`, the mean squared distance of what belongs together, and `uniformity`, the logarithm of
        the mean of exp(-2 distance²) over different texts, both of vectors of length 1: of both, less is better.

        What there is none of (a class with two texts, two texts that differ) has the metric NaN.
        Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.
        """
        loss, right, reciprocal, near, num_near, far, num_far = sums
        return {
            "loss": loss / count,
            "accuracy": right / count,
            "reciprocal_rank": reciprocal / count,
            "alignment": near / num_near if num_near else math.nan,
            "uniformity": math.log(far / num_far) if num_far and far > 0.0 else math.nan,
        }


def _in_turn(first: Tensor, second: Tensor) -> Tensor:
    """The rows of both, in turn."""
    return torch.stack((first, second), 1).flatten(0, 1)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """fp64 [N, M], of the vectors with length 1."""
    a, b = (F.normalize(vectors.double(), dim=-1) for vectors in (a, b))
    return (2.0 - 2.0 * similarities(a, b)).clamp_min(0.0)


def _uniformity(distance_BB: Tensor, which_BB: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of exp(-2 distance²) over pairs, and their number."""
    return torch.where(which_BB, (-_FAR * distance_BB).exp(), 0.0).sum(), which_BB.sum()
