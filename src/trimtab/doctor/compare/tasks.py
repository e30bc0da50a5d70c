"""Whether two runs learned different things, so that no loss of theirs can be held against the other's; and how fast
each of them was, which can."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.compare.comparison import Outcome, Side, Which
from trimtab.doctor.reading.beginnings import LARGEST_VOCABULARY
from trimtab.doctor.reading.curves import Curve
from trimtab.runs import format
from trimtab.runs.metrics import selection_direction
from trimtab.runs.unnamed_losses import SEVERAL

SPOKEN_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("perplexity", "ppl", "bits_per_byte", "bpb", "bpc", "bleu", "rouge", "rouge1", "rougel"),
    "speech": ("wer", "cer"),
    "boxes or masks": ("map", "map50", "map75", "ap50", "miou", "iou", "giou", "dice", "bbox", "box", "dfl"),
    "images": ("fid", "psnr", "ssim", "lpips"),
    "numbers": ("mae", "rmse", "mape", "r2"),
    "classes": ("top5", "auroc", "auc", "mcc"),
    "rewards": ("reward", "rewards", "episode_return", "mean_return"),
}
"""What is learned, to words of metrics that are measured of it alone."""
TIMES: Final = 2.5
"""By which early losses differ that are not of one task."""
TIMES_AT_ONCE: Final = 1.5
"""The same of the first steps."""
MORE: Final = 0.7
"""The same in nats."""
NOISES: Final = 6.0
"""The same in noises of a step: a first loss is a single one."""
EARLY: Final = 0.03
LAST_ROWS: Final = 5
SPEEDS: Final = ("tokens_per_second", "step_seconds")


def other_tasks(a: Side, b: Side) -> str | None:
    """Why what they learned is not the same; None where nothing tells that."""
    cases = (a.case, b.case)
    tasks = [case.fact("task") or case.setting("task.name") for case in cases]
    if SEVERAL in tasks and cases[0].fact("loss_parts") != cases[1].fact("loss_parts"):
        parts = [" + ".join(case.fact("loss_parts") or ["one loss"]) for case in cases]
        return f"they minimize different losses: {parts[0]}, and {parts[1]}"
    if all(tasks):
        return f"they learn different tasks: {tasks[0]} and {tasks[1]}" if tasks[0] != tasks[1] else None
    kinds = [_spoken_of(case) for case in cases]
    if all(kinds) and kinds[0].keys().isdisjoint(kinds[1]):
        told = [
            f"{side.name} of {next(iter(kind))} ({next(iter(kind.values()))})"
            for side, kind in zip((a, b), kinds, strict=True)
        ]
        return f"their metrics are of different tasks, those of {told[0]} and those of {told[1]}"
    return _begin_apart(cases)


def speeds_of(a: Side, b: Side) -> Iterator[Outcome]:
    """How fast both were, in the first measure that both logged."""
    for metric in SPEEDS:
        series = [side.case.history.get(metric) for side in (a, b)]
        curves = [Curve.of(one) for one in series]
        if curves[0] is None or curves[1] is None:
            continue
        one, other = (float(np.median(curve.values)) for curve in curves if curve)
        lower = selection_direction(metric) == "lower"
        better: Which | None = None if one == other else "a" if (one < other) == lower else "b"
        last = [curve.last_step for curve in curves if curve]
        yield Outcome(metric, "median of all", one, other, last[0], last[1], better, None, "")
        return


def _spoken_of(case: Case) -> dict[str, str]:
    """Kinds of tasks that metrics are of, to the first such metric."""
    found: dict[str, str] = {}
    for name in case.history.series:
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower())
        for kind, words in SPOKEN_OF.items():
            if any(f"_{word}_" in f"_{plain}_" for word in words):
                found.setdefault(kind, name.removeprefix("user/"))
    return found


def _begin_apart(cases: tuple[Case, Case]) -> str | None:
    """First losses, of runs of which no task is known, that no two models pay that know nothing of the same answers;
    unless the one comes down to where the other began, as a model that is new does beside one that was trained."""
    if any(case.fact("task") or case.setting("task.name") or case.counts_epochs for case in cases):
        return None
    first: list[float] = []
    last: list[float] = []
    noise = 0.0
    times = TIMES_AT_ONCE
    for case in cases:
        curve = Curve.of(case.loss())
        if curve is None or curve.first_step > max(2.0, EARLY * case.planned_steps):
            return None
        if curve.first_step > 2:
            times = TIMES
        first.append(float(curve.values[0]))
        quarter = max(len(curve) // 4, 1)
        noise = max(noise, curve.noise, Curve(curve.steps[:quarter], curve.values[:quarter]).noise)
        last.append(float(np.median(curve.values[-LAST_ROWS:])))
    low, high = sorted(first)
    if high - low < NOISES * noise or last[first.index(high)] <= low:
        return None
    if low <= 0.0 or high > math.log(LARGEST_VOCABULARY) or high < max(times * low, low + MORE):
        return None
    return (
        f"their losses begin at {format.decimal(first[0])} and {format.decimal(first[1])}, as guessing among "
        f"{format.count(round(math.exp(first[0])))} and among {format.count(round(math.exp(first[1])))} answers costs: "
        "they learn different tasks, or one began with trained weights"
    )
