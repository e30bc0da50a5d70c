"""One class of several, of a whole text or of each token; and several labels at once.

Shape suffixes: B sequences · V classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.objective.binary import BinaryCrossEntropy
from trimtab.objective.calibration import BINS, calibration_error, reliability_sums
from trimtab.objective.tasks.parts import ClassObjective, ClassTask, Judged, logits_of
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput

Floats = NDArray[np.float64]


@final
class ClassificationTask(ClassTask):
    """One class of `num_classes` for each target: a text (`classification`) or a token (`token_classification`)."""

    def __init__(
        self, objective: ClassObjective, num_classes: int, name: Literal["classification", "token_classification"]
    ) -> None:
        super().__init__(objective)
        self.num_classes, self.name = num_classes, name

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss, for each class how often it was hit, predicted, and right, and what `reliability_sums` gives:
        [1 + 3 V + 3 K]."""
        counted = batch.targets != IGNORED
        target, logits = batch.targets.clamp_min(0), logits_of(output)
        confidence, predicted = logits.float().softmax(-1).max(-1).values, logits.argmax(-1)
        hits = counted & (target == predicted)
        counts = [
            torch.zeros(self.num_classes, dtype=torch.float64, device=target.device).index_add_(
                0, classes.flatten(), which.flatten().double()
            )
            for classes, which in ((target, hits), (predicted, counted), (target, counted))
        ]
        calibration = reliability_sums(confidence, hits, counted)
        return torch.cat((terms.losses.sum(dtype=torch.float64)[None], *counts, calibration))

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `accuracy`, `macro_f1`, `mcc`, `calibration_error`; of two classes also `f1` of the second, in the
        order of their names."""
        end = len(sums) - 3 * BINS
        hits_V, predicted_V, right_V = np.asarray(sums[1:end]).reshape(3, -1)
        f1_V = _f1(hits_V, predicted_V, right_V)
        metrics = {
            "loss": sums[0] / count,
            "accuracy": float(hits_V.sum()) / count,
            "macro_f1": _mean_where_it_occurs(f1_V, predicted_V + right_V),
            "mcc": _correlation(hits_V, predicted_V, right_V),
            "calibration_error": calibration_error(sums[end:]),
        }
        return metrics | ({"f1": float(f1_V[1])} if self.num_classes == 2 else {})


@final
class MultiLabelTask(Judged):
    """Every text has any number of `num_classes` labels, and each is decided by itself: its logit is above 0."""

    name = "classification"
    score_names = ("accuracy",)

    def __init__(self, objective: BinaryCrossEntropy, num_classes: int) -> None:
        self.objective, self.num_classes = objective, num_classes

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective against the labels."""
        terms: LossTerms = self.objective(logits_of(output), batch.targets)
        return terms

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """1 for a label that is more probable than not, else 0: int64 [B, V]."""
        return (logits_of(output) > 0).long()

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss, texts with every label right, and for each label how often it was hit, predicted, right: [2 + 3 V]."""
        counted_BV = batch.targets != IGNORED
        target_BV, predicted_BV = (batch.targets == 1.0), self.predictions(output, batch) == 1
        wrong_BV = counted_BV & (target_BV != predicted_BV)
        exact = (counted_BV.any(-1) & ~wrong_BV.any(-1)).sum().double()
        counts = [
            (counted_BV & which_BV).sum(0).double() for which_BV in (target_BV & predicted_BV, predicted_BV, target_BV)
        ]
        return torch.cat((torch.stack((terms.losses.sum(dtype=torch.float64), exact)), *counts))

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `accuracy` over single decisions, `exact_match` over texts, `macro_f1` and `micro_f1`."""
        hits_V, predicted_V, right_V = np.asarray(sums[2:]).reshape(3, -1)
        wrong = float((predicted_V + right_V - 2 * hits_V).sum())
        return {
            "loss": sums[0] / count,
            "accuracy": 1.0 - wrong / count,
            "exact_match": sums[1] / (count / self.num_classes),
            "macro_f1": _mean_where_it_occurs(_f1(hits_V, predicted_V, right_V), predicted_V + right_V),
            "micro_f1": float(_f1(*(counts_V.sum(keepdims=True) for counts_V in (hits_V, predicted_V, right_V)))[0]),
        }


def _f1(hits: Floats, predicted: Floats, right: Floats) -> Floats:
    """2 · hits / (predicted + right), the harmonic mean of precision and recall; 0 where there is neither."""
    scores: Floats = 2.0 * hits / np.maximum(predicted + right, 1.0)
    return scores


def _correlation(hits_V: Floats, predicted_V: Floats, right_V: Floats) -> float:
    """Matthews' correlation of what was said and what is right; 0 where one of them is always the same class.

    Source: Gorodkin 2004, Computational Biology and Chemistry 28, eq. 8, for any number of classes.
    """
    total = float(right_V.sum())
    covariance = float(hits_V.sum()) * total - float(predicted_V @ right_V)
    said, right = total**2 - float(predicted_V @ predicted_V), total**2 - float(right_V @ right_V)
    return covariance / math.sqrt(said * right) if said > 0 and right > 0 else 0.0


def _mean_where_it_occurs(values_V: Floats, occurrences_V: Floats) -> float:
    """The mean over classes that were predicted or right at least once; a class that no one spoke of has no score."""
    occurs_V = occurrences_V > 0
    return float(values_V[occurs_V].mean()) if occurs_V.any() else 0.0
