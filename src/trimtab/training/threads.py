"""How many threads a processor's step is quickest with: measured once a run, in turn, and kept in plan.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from trimtab.config import TrainingConfig
from trimtab.signals import Batch
from trimtab.training.execution import micro_batch_seconds, part_of, set_threads
from trimtab.training.step import Step

PAYS_AFTER_SECONDS: Final = 60.0
"""Of training with all threads: measuring takes some steps."""
_WORTH: Final = 0.9
"""Fewer threads are taken when a step takes at most this part of the time: the measure is noisy, the choice stays."""
_ROUNDS: Final = 5
_LONGEST_SECONDS: Final = 1.0
"""Of what is timed once: of a longer micro-batch a part."""


def choose_threads(
    config: TrainingConfig,
    step: Step,
    batch: Batch,
    earlier: Mapping[str, Any] | None,
    report: Callable[[str, float], None] = lambda what, fraction: None,
    *,
    accumulation: int,
    seconds_of: Callable[[Step, Batch, int], float] = micro_batch_seconds,
) -> dict[str, Any]:
    """How many threads torch takes, and why; sets them. Weights and randomness stay untouched.

    All that may be used are held against half as many, these against a quarter, and so on while it gains. `earlier` is
    the choice in plan.json, which a resumed run keeps: another number adds in another order, and so changes the last
    bits.
    """
    if earlier is not None:
        set_threads(int(earlier["chosen"]))
        return dict(earlier)
    if config.threads != "auto":
        why = f"training.threads is {config.threads}" + ("" if config.threads else ": as many as may be used")
        return {"chosen": set_threads(config.threads), "reason": why}
    most = set_threads(0)
    if step.device.type != "cpu":
        return {"chosen": most, "reason": "the device computes, and not the processor"}
    if most == 1:
        return {"chosen": most, "reason": "this process may use one core"}
    rows = batch.tokens_BT.shape[0]
    single = part_of(batch, rows)  # one row, which tells how long the whole may take
    seconds_of(step, single, 1)
    first = seconds_of(step, single, 1)
    part = part_of(batch, max(1, round(first * rows / _LONGEST_SECONDS)))
    seconds_of(step, part, 1)
    seconds = seconds_of(step, part, 2)
    total = seconds * rows / part.tokens_BT.shape[0] * accumulation * config.steps
    if total < PAYS_AFTER_SECONDS:
        why = f"all that may be used; training takes about {total:.0f} s, and others are tried from 60 s on"
        return {"chosen": most, "reason": why}
    report("measuring with how many threads a step is quickest (training.threads sets them)", 0.0)
    chosen, measured = most, {str(most): seconds}
    while chosen > 1:
        fewer = chosen // 2
        ratio, seconds = _compared(step, part, chosen, fewer, seconds_of)
        measured[str(fewer)] = seconds
        if ratio > _WORTH:
            break
        chosen = fewer
    torch.set_num_threads(chosen)
    choice = {"chosen": chosen, "seconds": measured}
    if chosen == most:
        return {**choice, "reason": f"measured: {chosen // 2} take {ratio:.2f} times as long as {chosen}"}
    part_of_time = measured[str(chosen)] / measured[str(most)]
    why = (
        f"{chosen} of {most} threads, with which a step takes {part_of_time:.2f} of the time: is something else "
        f"running? training.threads={most} takes all"
    )
    return {**choice, "reason": why, "fallback": True}


def _compared(
    step: Step, batch: Batch, threads: int, fewer: int, seconds_of: Callable[[Step, Batch, int], float]
) -> tuple[float, float]:
    """The median ratio of the seconds with `fewer` to those with `threads`, in turn; and the former's median."""
    ratios, seconds = [], []
    for number in range(_ROUNDS):
        took = {}
        for each in (threads, fewer) if number % 2 == 0 else (fewer, threads):
            torch.set_num_threads(each)
            took[each] = seconds_of(step, batch, 1)
        ratios.append(took[fewer] / took[threads])
        seconds.append(took[fewer])
    return statistics.median(ratios), statistics.median(seconds)
