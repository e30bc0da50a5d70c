"""Whether inputs say something of their targets: two short trainings, judged on samples that neither was trained on.

Training losses do not tell: drawn labels are learned by heart as well (Zhang et al. 2017, arXiv 1611.03530).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from trimtab.assembly import Parts
from trimtab.config import Config
from trimtab.data import DataPlan, PreparedData
from trimtab.evaluation import SampleLosses, evaluate
from trimtab.experiments.checks import Check, Guess, Held, judge_shuffled
from trimtab.experiments.short_training import MOST_SECONDS, train
from trimtab.signals import IGNORED, Batch, LossTerms
from trimtab.trainer import Trainer
from trimtab.training.precision import Precision

EVALUATIONS: Final = 4
"""In each training, as what is learned by heart soon harms what holds for others: the best of them counts."""
JUDGED_BATCHES: Final = 20
"""Validation samples are judged up to the tokens of so many training batches."""
AGAIN: Final = 3
"""So many times the steps, where the first did not tell."""

Told = Callable[[str, float], None]


def try_shuffled(config: Config, data: PreparedData, rows: int, rate: float, steps: int, told: Told) -> Check:
    """Once, and where inputs seem to say nothing, once more with `AGAIN` times the steps, in two minutes at most."""
    begun = time.perf_counter()
    check = _compare(config, data, rows, rate, steps, told, MOST_SECONDS / 2)
    spent = time.perf_counter() - begun
    if check.verdict == "passed" or spent > MOST_SECONDS:
        return check
    return _compare(config, data, rows, rate, AGAIN * steps, told, (2 * MOST_SECONDS - spent) / 2)


def _compare(
    config: Config, data: PreparedData, rows: int, rate: float, steps: int, told: Told, seconds: float
) -> Check:
    """Each of both trainings has so many `seconds`."""
    loader = data.loader(rows, prefetch=1, pin_memory=False)
    try:
        loader.start(0, DataPlan())
        batches = [loader.take(1).batches[0] for _ in range(steps)]
    finally:
        loader.close()
    found: list[Held] = []
    for index, ones in enumerate((batches, shuffled(batches, config.seed))):
        _, parts = Trainer(config).assemble()
        judge = _Judge(config, data, parts, batches)

        def say(part: float, index: int = index, judge: _Judge = judge, num: int = steps) -> None:
            told("shuffled targets", (index + part) / 2)
            judge.at(part * num, num)

        num = found[0].steps if found else steps
        losses = train(config, parts, lambda step, ones=ones: [ones[step - 1]], rate, num, say, seconds=seconds)  # type: ignore[misc]
        found.append(judge.best(len(losses), losses))
    return judge_shuffled(found[0], found[1], judge.guess())


@final
class _Judge:
    """Evaluates one training a few times on validation samples, and keeps the best."""

    def __init__(self, config: Config, data: PreparedData, parts: Parts, batches: Sequence[Batch]) -> None:
        self._data, self._parts = data, parts
        self._rows = config.evaluation_batch_size
        self._most = JUDGED_BATCHES * batches[0].tokens_BT.numel()
        dtype = next(parts.model.parameters()).dtype
        self._precision = Precision(config.training.precision, parts.device, dtype)
        self._guess = _of_counts(batches, parts.device)
        self._guessed: Tensor | None = None
        self._found: list[tuple[Tensor, float | None]] = []

    def at(self, step: float, steps: int) -> None:
        """Evaluate where a further part of the steps is done."""
        if step >= steps * (len(self._found) + 1) / EVALUATIONS - 1e-9:
            self._evaluate()

    def best(self, steps: int, losses: Sequence[float]) -> Held:
        """What came of it."""
        if not self._found:
            self._evaluate()
        sums_2M, _ = min(self._found, key=lambda one: _order(float(one[0][0].sum())))
        known = [accuracy for _, accuracy in self._found if accuracy is not None]
        return Held(
            sums_2M[0].numpy(), sums_2M[1].numpy(), max(known, default=None), steps, float(np.mean(losses[-5:]))
        )

    def guess(self) -> Guess | None:
        """What is right without any input, by how often the training batches have each target; None where targets
        are not counted."""
        if self._guess is None or self._guessed is None:
            return None
        losses_M, right_M = self._guessed[0].numpy(), self._guessed[1].numpy()
        return Guess(losses_M, float(right_M.sum()))

    def _evaluate(self) -> None:
        device, validation = self._parts.device, self._data.validation
        own, guessed = SampleLosses(len(validation), device), SampleLosses(len(validation), device)
        right = SampleLosses(len(validation), device)

        def look(batch: Batch, output: Any, terms: LossTerms) -> None:
            own(batch, output, terms)
            if self._guess is not None and self._guessed is None:
                counted = batch.targets != IGNORED
                safe = batch.targets.clamp_min(0)
                losses = torch.where(counted, self._guess[safe], 0.0)
                guessed(batch, output, replace(terms, losses=losses))
                usual = (batch.targets == self._guess.argmin()) & counted
                right(batch, output, replace(terms, losses=usual.float()))

        metrics = evaluate(
            self._parts.model,
            self._parts.task,
            validation,
            batch_size=self._rows,
            device=device,
            autocast=self._precision.autocast,
            max_tokens=self._most,
            look=look,
        )
        sums_2M = own.take()
        self._found.append((sums_2M, metrics.get("accuracy")))
        if self._guess is not None and self._guessed is None:
            self._guessed = torch.stack((guessed.take()[0], right.take()[0]))


def _order(loss: float) -> float:
    """What is no number comes last."""
    return loss if np.isfinite(loss) else float("inf")


def _of_counts(batches: Sequence[Batch], device: torch.device) -> Tensor | None:
    """The loss of each target by its frequency [V], each counted once more than it was seen; None where targets are
    numbers, or partners in a batch."""
    first = batches[0]
    if first.targets.dtype != torch.int64 or _are_partners(first):
        return None
    seen = torch.cat([one.targets[_counted(one)] for one in batches])
    largest = max(int(one.targets.max()) for one in batches)
    counts_V = torch.bincount(seen, minlength=largest + 1).double() + 1.0
    return -(counts_V / counts_V.sum()).log().to(device)


def _are_partners(batch: Batch) -> bool:
    return batch.second_BS is not None and batch.targets.shape != batch.second_BS.shape


def shuffled(batches: Sequence[Batch], seed: int) -> list[Batch]:
    """The same with their counted targets in another order, over all batches, as texts that are alike may stand in one;
    of pairs of texts, with other partners in each batch."""
    drawn = torch.Generator().manual_seed(seed)
    if _are_partners(batches[0]):
        orders = [torch.randperm(len(one.sample_ids_B), generator=drawn) for one in batches]
        pairs = zip(batches, orders, strict=True)
        return [replace(one, second_BS=None if one.second_BS is None else one.second_BS[order]) for one, order in pairs]
    counted = [_counted(one) for one in batches]
    pool = torch.cat([one.targets[where] for one, where in zip(batches, counted, strict=True)])
    pool = pool[torch.randperm(len(pool), generator=drawn)]
    mixed, taken = [], 0
    for one, where in zip(batches, counted, strict=True):
        targets, num = one.targets.clone(), int(where.sum())
        targets[where] = pool[taken : taken + num]
        mixed.append(replace(one, targets=targets))
        taken += num
    return mixed


def _counted(batch: Batch) -> Tensor:
    """Which places of the targets are counted: tokens and classes one by one, else whole rows."""
    return batch.targets != IGNORED if batch.targets.dtype == torch.int64 else batch.sample_ids_B >= 0
