"""What two configurations came to, run side by side: whether the change of one held, from host values alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from trimtab.runs import format

Verdict = Literal["held", "helped", "failed", "unclear"]
Side = Literal["original", "fixed", "twin"]
"""A twin is what the original would be without its fault: known where that was planted."""

LEAST_CHANGE: Final = 0.01
"""Of the loss: with one seed a smaller difference is taken for chance."""
_QUANTILES: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""The 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""
MOST_SEEDS: Final = len(_QUANTILES) + 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a proof."""

    side: Side
    seed: int
    run: str
    """Where it is."""
    status: str
    step: int
    loss: float | None
    """Of the weights that it was left with, on the validation set; None where that is no number, or was not measured.
    """
    found: tuple[str, ...]
    """The codes that the doctor finds in it as warnings or worse."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a remedy held, and on what that rests."""

    verdict: Verdict
    """held: the loss is lower, or the finding is gone at an equal loss; helped: the loss is lower, and the finding is
    still there; failed: neither, or worse; unclear: the finding did not show, and the losses are equal."""
    text: str
    """The verdict in two sentences."""
    codes: tuple[str, ...]
    """What the remedy was for."""
    overrides: tuple[str, ...]
    steps: int
    """Of each run."""
    of_steps: int
    """Of the run that is planned."""
    shown: int
    """Originals in which one of `codes` was found again."""
    left: int
    """Fixed runs in which one of them was found."""
    difference: float | None
    """Mean of the validation loss, fixed less original, over the seeds where both are numbers."""
    interval: tuple[float, float] | None
    """Its 95 % interval over seeds; None with fewer than two."""
    outcomes: tuple[Outcome, ...]
    obstacles: tuple[str, ...] = ()
    """Why the losses of the two sides cannot be held against each other: then the findings decide alone."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"schema": 1, **asdict(self)}


def judge(
    outcomes: Sequence[Outcome],
    codes: Sequence[str],
    overrides: Sequence[str],
    *,
    steps: int,
    of_steps: int,
    obstacles: Sequence[str] = (),
) -> Proof:
    """The verdict on pairs of runs that differ in the remedy alone, each pair with one seed.

    A run whose loss is no number is worse than any other. With one seed a loss counts as lower or higher when it is so
    by a hundredth; with several when the interval of the mean difference of pairs, by Student's t, does not hold 0.
    Where there are `obstacles` no loss is lower or higher than another.
    """
    pairs = _pairs(outcomes)
    differences = [
        fixed.loss - original.loss for original, fixed in pairs if fixed.loss is not None and original.loss is not None
    ]
    rescued = sum(original.loss is None and fixed.loss is not None for original, fixed in pairs)
    ruined = sum(original.loss is not None and fixed.loss is None for original, fixed in pairs)
    levels = [original.loss for original, _ in pairs if original.loss is not None]
    mean, interval = mean_with_interval([] if obstacles else differences)
    if rescued != ruined:
        change = -1 if rescued > ruined else 1
    elif mean is None:
        change = 0
    elif interval is None:
        change = 0 if abs(mean) < LEAST_CHANGE * abs(levels[0]) else (-1 if mean < 0 else 1)
    else:
        change = -1 if interval[1] < 0 else 1 if interval[0] > 0 else 0
    shown = sum(bool(set(codes) & set(original.found)) for original, _ in pairs)
    left = sum(bool(set(codes) & set(fixed.found)) for _, fixed in pairs)
    is_gone = left == 0
    verdict: Verdict
    if change > 0:
        verdict = "failed"
    elif change < 0:
        verdict = "held" if is_gone else "helped"
    else:
        verdict = "failed" if not is_gone else "held" if shown else "unclear"
    return Proof(
        verdict,
        _in_words(verdict, change, pairs, codes, mean, interval, shown, left, steps, of_steps, obstacles),
        tuple(codes),
        tuple(overrides),
        steps,
        of_steps,
        shown,
        left,
        mean,
        interval,
        tuple(outcomes),
        tuple(obstacles),
    )


def mean_with_interval(values: Sequence[float]) -> tuple[float | None, tuple[float, float] | None]:
    """The mean, and its 95 % interval by Student's t; None for what there are too few values for."""
    if not values:
        return None, None
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    wide = (
        _QUANTILES[min(len(values) - 1, len(_QUANTILES)) - 1] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    )
    return mean, (mean - wide, mean + wide)


def _pairs(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    by_side = {side: {one.seed: one for one in outcomes if one.side == side} for side in ("original", "fixed")}
    return [(one, by_side["fixed"][seed]) for seed, one in by_side["original"].items() if seed in by_side["fixed"]]


def _in_words(
    verdict: Verdict,
    change: int,
    pairs: Sequence[tuple[Outcome, Outcome]],
    codes: Sequence[str],
    mean: float | None,
    interval: tuple[float, float] | None,
    shown: int,
    left: int,
    steps: int,
    of_steps: int,
    obstacles: Sequence[str],
) -> str:
    said = {
        "held": "the remedy held",
        "helped": "the remedy helped, and did not cure",
        "failed": "the remedy did not hold",
        "unclear": "nothing is proven",
    }[verdict]
    num = len(pairs)
    over = "" if num == 1 else f"over {num} seeds, "
    at = (
        f"after {format.count(steps)} steps"
        if steps >= of_steps
        else (f"after {format.count(steps)} of {format.count(of_steps)} steps")
    )
    originals, fixed = ([one.loss for one in (pair[side] for pair in pairs) if one.loss is not None] for side in (0, 1))
    losses = (
        f"{over}{at} the validation loss is {_level(originals, num)} in the original and {_level(fixed, num)} fixed"
    )
    if interval is not None and mean is not None:
        losses += (
            f", by {format.signed(mean)} (95 % interval {format.signed(interval[0])} to {format.signed(interval[1])})"
        )
    if obstacles:
        losses += f", which cannot be held against each other ({obstacles[0]})"
    if change == 0 and mean is not None:
        losses += ", which may be chance" if interval is not None or num == 1 else ""
    named = " or ".join(codes)
    again = f"found in {shown} of {num} originals and in {left} of {num} fixed runs"
    if not shown and steps < of_steps:
        again += "; so few steps do not show it, and --full takes all"
    return f"{said[0].upper()}{said[1:]}: {losses}. On {named}: {again}."


def _level(losses: Sequence[float], num: int) -> str:
    if not losses:
        return "no number"
    missing = "" if len(losses) == num else f" (no number in {num - len(losses)} of {num})"
    return format.decimal(float(np.mean(losses))) + missing


def short_steps(total: int, evaluate_every: int, onset_step: int) -> int:
    """How far the runs of a short proof go: to an evaluation after a quarter of the run, and well after the onset."""
    wanted = max(-(-total // 4), onset_step + onset_step // 4, 2 * evaluate_every)
    return min(total, -(-wanted // evaluate_every) * evaluate_every)
