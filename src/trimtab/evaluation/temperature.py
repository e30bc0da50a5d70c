"""One number by which logits are divided, so that a classifier is as sure as it is right.

Shape suffixes: N targets · V classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.data import Sequences
from trimtab.errors import DataError
from trimtab.evaluation.language import evaluate
from trimtab.objective import logits_of
from trimtab.objective.calibration import calibration_error, reliability_curve, reliability_sums
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput, Task

LOWEST: Final = 0.05
HIGHEST: Final = 20.0
"""Bounds of a temperature: of answers that are all right, or all wrong, the best one is at an end."""
_FEWEST: Final = 20
"""Targets in a half, with which a temperature is fitted."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How sure and how right answers are."""

    loss: float
    """Negative log-likelihood, nats."""
    calibration_error: float
    reliability: list[dict[str, float]]
    """As `reliability_curve` gives it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature fitted on one half of a set, and what it does on the other half, which it has not seen."""

    temperature: float
    """1 where dividing the logits made the other half's loss no lower."""
    fitted: float
    """What the first half asks for."""
    fitted_on: int
    judged_on: int
    """Targets of both halves."""
    before: Judged
    after: Judged

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def fit_temperature(logits_NV: Tensor, targets_N: Tensor) -> float:
    """The T, within bounds, with which softmax(logits / T) makes the targets most probable.

    The negative log-likelihood is convex in 1 / T, so that its derivative, the mean of E[z] - z_target, has one zero,
    which bisection finds in float64. Source: Guo et al. 2017, arXiv 1706.04599, section 4.2.

    Raises:
        DataError: there are no targets, or the logits are not finite.
    """
    if not len(targets_N) or not bool(logits_NV.isfinite().all()):
        raise DataError("a temperature cannot be fitted: there are no targets, or the logits are not finite")
    logits_NV = logits_NV.double()
    right_N = logits_NV.gather(1, targets_N[:, None])[:, 0]
    low, high = math.log(1.0 / HIGHEST), math.log(1.0 / LOWEST)
    for _ in range(60):
        middle = (low + high) / 2.0
        chances_NV = (logits_NV * math.exp(middle)).softmax(-1)
        slope = float(((chances_NV * logits_NV).sum(-1) - right_N).mean())
        low, high = (middle, high) if slope < 0.0 else (low, middle)
    return math.exp(-(low + high) / 2.0)


def judge_answers(logits_NV: Tensor, targets_N: Tensor, temperature: float = 1.0) -> Judged:
    """Loss, calibration error and reliability of softmax(logits / temperature)."""
    logits_NV = logits_NV.double() / temperature
    confidence_N, said_N = logits_NV.softmax(-1).max(-1)
    sums = reliability_sums(confidence_N, said_N == targets_N, torch.ones_like(targets_N, dtype=torch.bool)).tolist()
    loss = float(F.cross_entropy(logits_NV, targets_N))
    return Judged(loss, calibration_error(sums), reliability_curve(sums))


def calibrate_temperature(
    model: nn.Module,
    task: Task,
    sequences: Sequences,
    *,
    batch_size: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    max_tokens: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """Fit a temperature on one half of `sequences`, drawn always the same, and judge it on the other.

    `task` asks for one class of several. All logits are kept, on the device: N · V numbers of four bytes.

    Raises:
        DataError: a half has fewer than 20 targets, or logits are not finite.
    """
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def look(batch: Batch, output: ModelOutput | Tensor, terms: LossTerms) -> None:
        samples = batch.sample_ids_B.view(-1, *[1] * (batch.targets.ndim - 1)).expand_as(batch.targets)
        kept.append((logits_of(output).float().flatten(0, -2), batch.targets.flatten(), samples.flatten()))

    evaluate(
        model,
        task,
        sequences,
        batch_size=batch_size,
        device=device,
        autocast=autocast,
        max_tokens=max_tokens,
        progress=progress,
        look=look,
    )
    logits_NV, targets_N, samples_N = (torch.cat(parts).cpu() for parts in zip(*kept, strict=True))
    counted_N = targets_N != IGNORED
    logits_NV, targets_N, samples_N = logits_NV[counted_N], targets_N[counted_N], samples_N[counted_N]
    first_S = torch.zeros(len(sequences), dtype=torch.bool)
    seen = np.unique(samples_N.numpy())
    first_S[torch.from_numpy(np.random.default_rng(0).permutation(seen)[: len(seen) // 2])] = True
    first_N = first_S[samples_N]
    if min(int(first_N.sum()), int((~first_N).sum())) < _FEWEST:
        raise DataError(
            f"too few targets to fit a temperature: {len(targets_N)}, and each half needs {_FEWEST}",
            hint="hold out more: data.validation_fraction, or a data.validation_source",
        )
    fitted = fit_temperature(logits_NV[first_N], targets_N[first_N])
    before, after = (judge_answers(logits_NV[~first_N], targets_N[~first_N], T) for T in (1.0, fitted))
    helps = after.loss < before.loss
    return Calibration(
        fitted if helps else 1.0,
        fitted,
        int(first_N.sum()),
        int((~first_N).sum()),
        before,
        after if helps else before,
    )
