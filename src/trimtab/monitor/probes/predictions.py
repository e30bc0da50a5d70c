"""How sure a model is of what it says, and whether it has reason to be.

Shape suffixes: N counted targets · V classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.signals import IGNORED, Examined, ModelOutput, Readings

BINS: Final = 15
_AT_ONCE: Final = 1 << 26
"""Logits that are held at once, 256 MiB."""


@final
@dataclass(frozen=True, slots=True)
class Sureness:
    """Means over the counted targets; of several labels, over single decisions."""

    entropy: float
    """Of what is predicted, in nats."""
    confidence: float
    """Probability of the answer."""
    accuracy: float
    calibration_error: float
    """Mean distance of accuracy from confidence in bins of equal width, weighted by how many fall into each."""


def sureness_of(output: ModelOutput | Tensor, targets: Tensor) -> Sureness | None:
    """Of a model's `output` for `targets`, classes or labels as `Batch` has them; None where none is counted.

    Logits are made a portion at a time, in fp32. Waits for the device.
    Source of the calibration error: Guo et al. 2017, arXiv 1706.04599, eq. 3, with its 15 bins.
    """
    of_labels = targets.is_floating_point()
    values = output.features if isinstance(output, ModelOutput) else output
    logits_of = output.head if isinstance(output, ModelOutput) else _itself
    rows = values.reshape(-1, values.shape[-1])
    if isinstance(logits_of, nn.Linear):  # under autocast features may be narrower than weights
        rows = rows.to(logits_of.weight.dtype)
    wanted = targets.reshape(len(rows), -1) if of_labels else targets.reshape(-1)
    taken = (wanted != IGNORED).any(-1) if of_labels else wanted != IGNORED
    rows, wanted = rows[taken], wanted[taken]
    portions: list[tuple[Tensor, Tensor, Tensor]] = []
    begin = 0
    step = 1
    while begin < len(rows):
        logits = logits_of(rows[begin : begin + step]).float()
        asked = wanted[begin : begin + step]
        portions.append(_decisions(logits, asked) if of_labels else _classes(logits, asked))
        begin += step
        step = max(1, _AT_ONCE // logits.shape[-1])
    if not portions:
        return None
    entropy_N, confidence_N, right_N = (torch.cat(each).double() for each in zip(*portions, strict=True))
    if not len(entropy_N):
        return None
    # Bin m holds what lies above m / BINS, up to (m + 1) / BINS.
    places_N = (confidence_N * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    is_there_NM = F.one_hot(places_N, BINS).double()
    error = ((confidence_N - right_N)[:, None] * is_there_NM).sum(0).abs().sum() / len(entropy_N)
    means = torch.stack([one.mean() for one in (entropy_N, confidence_N, right_N)] + [error])
    return Sureness(*means.tolist())


def _classes(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, confidence, and 1.0 where the answer is right: [N] each."""
    log_NV = logits_NV.log_softmax(-1)
    p_NV = log_NV.exp()
    confidence_N, answer_N = p_NV.max(-1)
    # 0 · log 0 is 0, also where a logit is minus infinity.
    return torch.special.entr(p_NV).sum(-1), confidence_N, (answer_N == targets_N).float()


def _decisions(logits_NV: Tensor, labels_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of each label that is counted by itself: yes or no."""
    is_counted = labels_NV != IGNORED
    logits, labels = logits_NV[is_counted], labels_NV[is_counted]
    p = logits.sigmoid()
    entropy = torch.special.entr(p) + torch.special.entr(1.0 - p)
    return entropy, torch.maximum(p, 1.0 - p), ((logits > 0) == (labels == 1.0)).float()


def _itself(logits: Tensor) -> Tensor:
    return logits


@final
class PredictionExamination:
    """How sure the model is of the probe batch, which it was trained on. Numbers and vectors are no such answers."""

    name = "predictions"

    def __init__(self, seed: int) -> None:
        pass

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def read(self, examined: Examined) -> Readings:
        """Four values of the whole; none of a regression, or of vectors."""
        if examined.task.name in ("regression", "contrastive"):
            return Readings()
        found = sureness_of(examined.output, examined.batch.targets)
        if found is None:
            return Readings()
        return Readings(
            {
                "probe/prediction_entropy": found.entropy,
                "probe/confidence": found.confidence,
                "probe/accuracy": found.accuracy,
                "probe/calibration_error": found.calibration_error,
            }
        )
