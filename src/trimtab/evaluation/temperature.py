"""Numbers by which logits are divided, so that a model is as sure as it is right.

Shape suffixes: N targets · V classes, or labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.data import Sequences
from trimtab.errors import DataError
from trimtab.evaluation.language import evaluate
from trimtab.objective.calibration import calibration_error, reliability_curve, reliability_sums
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput, Task

LOWEST: Final = 0.05
HIGHEST: Final = 20.0
"""Bounds of a temperature: of answers that are all right, or all wrong, the best one is at an end."""
_FEWEST: Final = 20
"""Targets in a half, with which a temperature is fitted; of a label texts of its rarer answer there."""
_MOST_KEPT: Final = 1 << 25
"""Logits that are looked at, 128 MiB: of a vocabulary of 8,192 those of 4,096 tokens, which tell one number well."""
_AT_ONCE: Final = 1 << 21
_HALVINGS: Final = 40
_GOLDEN: Final = 2_654_435_769
"""2**32 divided by the golden ratio."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How sure and how right answers are."""

    loss: float
    """Negative log-likelihood, nats; of several labels the mean over them."""
    calibration_error: float
    reliability: list[dict[str, float]]
    """As `reliability_curve` gives it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperatures fitted on one half of a set, and what they do on the other half, which they have not seen."""

    temperature: float | list[float]
    """1 where dividing the logits made the other half's loss no lower, or its calibration error higher; of several
    labels one for each, and the same of those that are seldom there."""
    fitted: float | list[float]
    """What the first half asks for."""
    fitted_on: int
    judged_on: int
    """Targets of both halves; of several labels texts."""
    before: Judged
    after: Judged
    why_not: str = ""
    """Why what was fitted is not used; "" where it is."""

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
    _require_finite(logits_NV)
    rows = max(1, _AT_ONCE // logits_NV.shape[1])

    def slope(inverse: float) -> float:
        total = 0.0
        for some_NV, right_N in zip(torch.split(logits_NV, rows), torch.split(targets_N, rows), strict=True):
            some_NV = some_NV.double()
            expected_N = ((some_NV * inverse).softmax(-1) * some_NV).sum(-1)
            total += float((expected_N - some_NV.gather(1, right_N[:, None])[:, 0]).sum())
        return total

    low, high = math.log(1.0 / HIGHEST), math.log(1.0 / LOWEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if slope(math.exp(middle)) < 0.0 else (low, middle)
    return math.exp(-(low + high) / 2.0)


def fit_label_temperatures(logits_NV: Tensor, targets_NV: Tensor) -> list[float]:
    """The T of each label, within bounds, with which sigmoid(logit / T) makes its answers, 0 or 1, most probable.

    Each is fitted by itself, as `fit_temperature` does it: the derivative is the mean of (sigmoid(z / T) - target) z.

    Raises:
        DataError: there are no targets, or the logits are not finite.
    """
    _require_finite(logits_NV)
    logits_NV, targets_NV = logits_NV.double(), targets_NV.double()
    low_V = torch.full((logits_NV.shape[1],), math.log(1.0 / HIGHEST), dtype=torch.float64)
    high_V = torch.full_like(low_V, math.log(1.0 / LOWEST))
    for _ in range(_HALVINGS):
        middle_V = (low_V + high_V) / 2.0
        slope_V = ((torch.sigmoid(logits_NV * middle_V.exp()) - targets_NV) * logits_NV).sum(0)
        low_V, high_V = torch.where(slope_V < 0.0, middle_V, low_V), torch.where(slope_V < 0.0, high_V, middle_V)
    temperatures: list[float] = (-(low_V + high_V) / 2.0).exp().tolist()
    return temperatures


def _fit_labels(logits_NV: Tensor, targets_NV: Tensor) -> list[float]:
    """One of its own for each label of which either answer stands in enough texts; the others share that of all labels
    together, or 1 where even these are too few: of a handful of texts the best one is often at a bound."""
    own = fit_label_temperatures(logits_NV, targets_NV)
    rarer_V = torch.minimum(targets_NV.sum(0), (1.0 - targets_NV).sum(0))
    shared = 1.0
    if float(rarer_V.sum()) >= _FEWEST > float(rarer_V.min()):
        (shared,) = fit_label_temperatures(logits_NV.reshape(-1, 1), targets_NV.reshape(-1, 1))
    return [one if rarer >= _FEWEST else shared for one, rarer in zip(own, rarer_V.tolist(), strict=True)]


def judge_answers(logits_NV: Tensor, targets: Tensor, temperature: float | Sequence[float] = 1.0) -> Judged:
    """Loss, calibration error and reliability of softmax(logits / temperature) for classes [N]; for labels of 0 and 1,
    float [N, V], of the sigmoid, where each answer is one that is more or less sure."""
    loss, sums = 0.0, torch.zeros(1)
    divisor = torch.tensor(temperature, dtype=torch.float64)
    rows = max(1, _AT_ONCE // logits_NV.shape[1])
    for some_NV, right in zip(torch.split(logits_NV, rows), torch.split(targets, rows), strict=True):
        some_NV = some_NV.double() / divisor
        if right.is_floating_point():
            loss += float(F.binary_cross_entropy_with_logits(some_NV, right.double(), reduction="sum"))
            sure, is_right = torch.sigmoid(some_NV.abs()), (some_NV > 0) == (right > 0.5)
        else:
            loss += float(F.cross_entropy(some_NV, right, reduction="sum"))
            sure, said_N = some_NV.softmax(-1).max(-1)
            is_right = said_N == right
        sums = sums + reliability_sums(sure, is_right, torch.ones_like(is_right))
    counts = sums.tolist()
    return Judged(loss / targets.numel(), calibration_error(counts), reliability_curve(counts))


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

    `task` asks for one class, or token, of several, or for labels that are each decided by itself. Where there are more
    logits than 32 million, those of one counted target in two are looked at, one in four, and so on.

    Raises:
        DataError: a half has fewer than 20 targets, or logits are not finite.
    """
    kept = _Kept(autocast)
    evaluate(
        model,
        task,
        sequences,
        batch_size=batch_size,
        device=device,
        autocast=autocast,
        max_tokens=max_tokens,
        progress=progress,
        look=kept.look,
    )
    logits_NV, targets, samples_N = kept.all()
    first_S = torch.zeros(len(sequences), dtype=torch.bool)
    seen = np.unique(samples_N.numpy())
    first_S[torch.from_numpy(np.random.default_rng(0).permutation(seen)[: len(seen) // 2])] = True
    first_N = first_S[samples_N]
    if min(int(first_N.sum()), int((~first_N).sum())) < _FEWEST:
        raise DataError(
            f"too few targets to fit a temperature: {len(targets)}, and each half needs {_FEWEST}",
            hint="hold out more: data.validation_fraction, or a data.validation_source",
        )
    several = targets.is_floating_point()
    fit: Callable[[Tensor, Tensor], float | list[float]] = _fit_labels if several else fit_temperature
    fitted = fit(logits_NV[first_N], targets[first_N])
    before, after = (judge_answers(logits_NV[~first_N], targets[~first_N], T) for T in (1.0, fitted))
    why_not = ""
    if not after.loss < before.loss:
        why_not = "the loss is no lower with it"
    elif after.calibration_error > before.calibration_error:
        why_not = (
            f"the calibration error is higher with it, {after.calibration_error:.3f} instead of "
            f"{before.calibration_error:.3f}, though the loss is lower"
        )
    helps = not why_not
    as_it_is = [1.0] * logits_NV.shape[1] if several else 1.0
    return Calibration(
        fitted if helps else as_it_is,
        fitted,
        int(first_N.sum()),
        int((~first_N).sum()),
        before,
        after if helps else before,
        why_not,
    )


def _require_finite(logits_NV: Tensor) -> None:
    if not len(logits_NV) or not bool(logits_NV.isfinite().all()):
        raise DataError("a temperature cannot be fitted: there are no targets, or the logits are not finite")


@final
class _Kept:
    """Logits of counted targets, their targets and samples, on the CPU; whatever the batches, the same ones."""

    def __init__(self, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        self._autocast = autocast
        self._parts: list[tuple[Tensor, ...]] = []
        """Logits, targets, samples, and how many counted targets came before each."""
        self._seen, self._every, self._size = 0, 1, 0

    def look(self, batch: Batch, output: ModelOutput | Tensor, terms: LossTerms) -> None:
        """Keep what is needed of a batch; only of that the logits are computed, where that is left to a head."""
        targets, samples = batch.targets, batch.sample_ids_B
        if targets.is_floating_point():
            counted = (targets != IGNORED).all(-1)
        else:
            samples = samples.view(-1, *[1] * (targets.ndim - 1)).expand_as(targets)
            targets, samples, counted = targets.flatten(), samples.flatten(), (targets != IGNORED).flatten()
        places_N = counted.nonzero()[:, 0]
        numbers_N = self._seen + torch.arange(len(places_N), device=places_N.device)
        self._seen += len(places_N)
        chosen_N = self._is_kept(numbers_N)
        places_N, numbers_N = places_N[chosen_N], numbers_N[chosen_N]
        with self._autocast():
            if isinstance(output, ModelOutput):
                logits_NV = output.head(output.features.flatten(0, -2)[places_N])
            else:
                logits_NV = output.flatten(0, -2)[places_N]
        part = (logits_NV.float(), targets[places_N], samples[places_N], numbers_N)
        self._parts.append(tuple(tensor.cpu() for tensor in part))
        self._size += logits_NV.numel()
        while self._size > _MOST_KEPT:
            self._every *= 2
            self._parts = [tuple(one[self._is_kept(part[3])] for one in part) for part in self._parts]
            self._size = sum(part[0].numel() for part in self._parts)

    def _is_kept(self, numbers_N: Tensor) -> Tensor:
        """One of `every`, nearly evenly; every so many-th would be always the same places of a sequence."""
        return (numbers_N * _GOLDEN) % (1 << 32) < (1 << 32) // self._every

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, V], targets [N], or [N, V] of labels, and samples [N]."""
        logits_NV, targets, samples_N, _ = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        return logits_NV, targets, samples_N
