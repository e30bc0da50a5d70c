"""The range test as a short training: real data, the run's own settings, a learning rate that rises in every step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from torch import nn

from trimtab.assembly import Parts
from trimtab.choices import choose_micro_batch
from trimtab.config import Config, load_config
from trimtab.data import DataPlan, PreparedData
from trimtab.errors import UsageError
from trimtab.events import StepsEnded
from trimtab.experiments.range_test import Divergence, RangeTest, judge, ramp
from trimtab.optimizer import clip_threshold
from trimtab.signals import seeded
from trimtab.trainer import Trainer
from trimtab.training.execution import garbage_rests, keep_freed_memory, set_threads
from trimtab.training.memory import out_of_memory_explained
from trimtab.training.optimizers import MakeOptimizer

_READ_EVERY: Final = 5
"""Steps after which the host waits for the losses, and may end the test."""


def find_learning_rate(
    config: Config | str | Path,
    overrides: list[str] | None = None,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    divergence: float = 2.0,
    model: nn.Module | None = None,
    make_optimizer: MakeOptimizer | None = None,
    report: Callable[[str, float], None] | None = None,
) -> RangeTest:
    """Train `steps` steps from fresh weights while the rate rises from `lowest` to `highest`, and suggest a rate.

    Everything else is as in the run that `config` describes: data, batch, accumulation, optimizer, clipping, precision;
    its schedule is replaced by the ramp, and its controllers rest. It ends early when the loss diverges: when its
    running mean is above `divergence` times the lowest one, or no number. Nothing is written but the cache of prepared
    data; `model` is copied, and the global randomness is put back. Runs as written, neither compiled nor captured.

    Raises: UsageError for a ramp that does not rise; and what preparing and building a run raise.
    Source: Smith 2017, arXiv 1506.01186, section 3.3; the exponential ramp as in fastai.
    """
    if not isinstance(config, Config):
        config = load_config(config, overrides or [])
    elif overrides:
        raise UsageError("overrides: belong to a file or preset. Received: a Config, which is whole")
    rates, watch = ramp(lowest, highest, steps), Divergence(divergence)
    told = report or (lambda what, fraction: None)
    logging = config.logging.model_copy(update={"every": _READ_EVERY, "layers": False})
    trainer = Trainer(
        config.model_copy(update={"logging": logging}),
        model=copy.deepcopy(model),
        make_optimizer=make_optimizer,
        report=report,
    )
    with seeded(config.seed), out_of_memory_explained():
        data, parts = trainer.assemble()
        set_threads(config.training.threads)
        if parts.device.type == "cpu":
            keep_freed_memory()
        with garbage_rests():
            micro = choose_micro_batch(trainer.config, data, parts, told)
            losses = _climb(config, data, parts, micro, rates, watch, told)
    return judge(rates[: len(losses)], losses, divergence, config.rate_scale)


def _climb(
    config: Config,
    data: PreparedData,
    parts: Parts,
    micro: Mapping[str, Any],
    rates: list[float],
    divergence: Divergence,
    report: Callable[[str, float], None],
) -> list[float]:
    """The training loss of each step before the update at its rate; fewer than the rates when it diverges."""
    losses: list[float] = []
    growing = config.training.accumulation_schedule
    accumulation = micro["accumulation"] * (1 if growing is None else growing.factors[0])  # as the run begins
    loader = data.loader(
        micro["chosen"],
        prefetch=config.data.prefetch * accumulation,
        pin_memory=parts.device.type == "cuda",
    )
    # Groups with a schedule of their own have a rate of their own.
    names = ["learning_rate", *(f"learning_rate/{pattern}" for pattern in config.optimizer.rates.schedules)]
    parts.step.set(weight_decay=1.0, clip_threshold=clip_threshold(config.gradients.clip))
    try:
        loader.start(0, DataPlan())
        for step, rate in enumerate(rates, start=1):
            taken = loader.take(accumulation)
            parts.step.set(**dict.fromkeys(names, rate))
            parts.step.run(taken.batches, step)
            tokens = float(sum(batch.count for batch in taken.batches))
            parts.windows.add({"learning_rate": rate, "tokens": tokens, "step_seconds": 1.0, "data_seconds": 0.0})
            if step % _READ_EVERY and step < len(rates):
                continue
            for loss in _losses(parts.windows.close(step, waits=True)):
                losses.append(loss)
                if divergence.is_reached(loss):
                    return losses
            report("raising the learning rate", step / len(rates))
    finally:
        loader.close()
    return losses


def _losses(ended: list[StepsEnded]) -> list[float]:
    return [float(loss) for event in ended for loss in event.per_step["train/loss"]]
