"""A training of a hundred steps or a minute, at one rate: what short experiments are made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from trimtab.assembly import Parts
from trimtab.config import Config
from trimtab.optimizer import clip_threshold
from trimtab.signals import Batch

MOST_SECONDS: Final = 60.0
"""A short training ends after so long, when it has made `LEAST_STEPS`."""
LEAST_STEPS: Final = 20
READ_EVERY: Final = 5


def train(
    config: Config,
    parts: Parts,
    batches_of: Callable[[int], list[Batch]],
    rate: float,
    steps: int,
    told: Callable[[float], None],
    is_enough: Callable[[float], bool] = lambda loss: False,
    *,
    decay: float = 1.0,
    seconds: float = MOST_SECONDS,
) -> list[float]:
    """The loss of each step before its update, at one rate after a tenth of warm-up; it ends after so many `seconds`,
    when it has made `LEAST_STEPS`. `told` hears at every `READ_EVERY` steps which part is done."""
    losses: list[float] = []
    names = ["learning_rate", *(f"learning_rate/{pattern}" for pattern in config.optimizer.rates.schedules)]
    parts.step.set(weight_decay=decay, clip_threshold=clip_threshold(config.gradients.clip))
    begun, warmup = time.perf_counter(), max(1, steps // 10)
    for step in range(1, steps + 1):
        batches = batches_of(step)
        parts.step.set(**dict.fromkeys(names, rate * min(1.0, step / warmup)))
        parts.step.run(batches, step)
        tokens = float(sum(batch.count for batch in batches))
        parts.windows.add({"learning_rate": rate, "tokens": tokens, "step_seconds": 1.0, "data_seconds": 0.0})
        is_late = step >= LEAST_STEPS and time.perf_counter() - begun > seconds
        if step % READ_EVERY and step < steps and not is_late:
            continue
        for ended in parts.windows.close(step, waits=True):
            losses += [float(loss) for loss in ended.per_step["train/loss"]]
        told(step / steps)
        if is_late or not np.isfinite(losses[-1]) or any(is_enough(loss) for loss in losses[-READ_EVERY:]):
            break
    return losses
