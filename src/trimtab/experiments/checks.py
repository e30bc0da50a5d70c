"""What each check of an examination says, from host values alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np

from trimtab.experiments.range_test import RangeTest
from trimtab.runs import format

LEARNED: Final = 0.1
"""Of its first loss: a model that can learn comes below this on a batch that it sees again and again."""
HARDLY_LEARNED: Final = 0.5
LEAST_GAP: Final = 0.01
"""Of the loss: targets that belong to their inputs are learned better than shuffled ones by more than this."""
ERRORS: Final = 3.0
"""Standard errors that such a difference must be."""
OTHERWISE: Final = 1e-5
"""Of its size: answers that differ by more are not the same."""
WORSE_IN_EVALUATION: Final = 0.1
TOO_LOW: Final = 100.0
"""Below the suggested rate by such a factor, a rate is too low to learn by."""
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One question to a model and its data, and the answer."""

    name: str
    verdict: Literal["passed", "failed", "unclear", "left out"]
    text: str
    """The answer with its numbers; of what failed also what it means."""
    code: str = ""
    """The doctor's code for what failed, where it has one."""
    observed: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def judge_rate(test: RangeTest, rate: float) -> Check:
    """Whether the `rate` that a run applies at its height lies where the loss falls, and does not diverge."""
    observed = {
        "rate": rate,
        "suggestion": None if test.suggestion is None else test.suggestion * test.scale,
        "lowest": test.lowest,
        "diverged": test.diverged,
    }
    if test.suggestion is None:
        return Check("learning rate", "failed", f"no rate lowers the loss: {test.why}", "", observed)
    suggested, at = test.suggestion * test.scale, f"the run's rate is {rate:.2g}"
    if test.diverged is not None and rate >= test.diverged:
        text = f"{at}, and without a warm-up the loss diverges at {test.diverged:.2g}; suggested is {suggested:.2g}"
        return Check("learning rate", "failed", text, "learning-rate-too-high", observed)
    if test.lowest is not None and rate > test.lowest:
        text = f"{at}, beyond {test.lowest:.2g}, from where on the loss rises again; suggested is {suggested:.2g}"
        return Check("learning rate", "failed", text, "learning-rate-too-high", observed)
    if rate * TOO_LOW < suggested:
        text = f"{at}, far below {suggested:.2g}, which is suggested: {test.why}"
        return Check("learning rate", "failed", text, "learning-rate-too-low", observed)
    end = "not up to the last rate" if test.diverged is None else f"at {test.diverged:.2g}"
    return Check("learning rate", "passed", f"{at}; suggested is {suggested:.2g}, and it diverges {end}", "", observed)


def judge_one_batch(losses: Sequence[float], rows: int) -> Check:
    """Whether a model can learn a few samples by heart, with regularization off."""
    first, low = losses[0], min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
    observed = {"first": first, "lowest": low, "steps": len(losses), "samples": rows}
    at = (
        f"on {rows} samples, again and again, the loss went from {format.decimal(first)} to {format.decimal(low)} in "
        f"{len(losses)} steps"
    )
    if not math.isfinite(losses[-1]):
        return Check("one batch", "failed", f"{at}, and then it was no number", "nan-loss", observed)
    if low <= LEARNED * first:
        return Check("one batch", "passed", f"{at}: the model can learn them by heart", "", observed)
    if low <= HARDLY_LEARNED * first:
        return Check("one batch", "unclear", f"{at}: it learns, and slowly", "", observed)
    means = "a part of the model does not learn, targets do not belong to inputs, or the loss is computed wrongly"
    return Check("one batch", "failed", f"{at}, where any model should learn them by heart: {means}", "", observed)


def judge_shuffled(real: Sequence[float], shuffled: Sequence[float]) -> Check:
    """Whether targets have to do with their inputs: shuffled among samples they must be harder to learn."""
    num = min(len(real), len(shuffled))
    part = max(2, num // 4)
    own, others = np.asarray(real[num - part : num]), np.asarray(shuffled[num - part : num])
    gap = float(others.mean() - own.mean())
    # The same batches in the same order: what makes a batch hard, it is for both.
    error = float(np.std(others - own, ddof=1)) / math.sqrt(part)
    observed = {"loss": float(own.mean()), "shuffled": float(others.mean()), "gap": gap, "error": error, "steps": num}
    at = (
        f"after {num} steps the loss is {format.decimal(float(own.mean()))}, with targets shuffled among samples "
        f"{format.decimal(float(others.mean()))}"
    )
    if not math.isfinite(gap):
        return Check("shuffled targets", "unclear", f"{at}: nothing was learned in either", "", observed)
    if gap > max(ERRORS * error, LEAST_GAP * abs(float(own.mean()))):
        return Check("shuffled targets", "passed", f"{at}: inputs say something of their targets", "", observed)
    if gap > ERRORS * error:
        return Check("shuffled targets", "unclear", f"{at}: hardly less", "", observed)
    means = (
        "so far inputs say nothing of their targets: labels are random or belong to other samples, or the model does"
    )
    means += " not read its inputs, or needs more steps to"
    return Check("shuffled targets", "failed", f"{at}: {means}", "random-labels", observed)


def judge_modes(first: float, second: float, training: float) -> Check:
    """Whether eval mode is one: the same answers twice, and none worse than in training mode."""
    observed = {"evaluation": first, "again": second, "training": training}
    if abs(first - second) > OTHERWISE * max(abs(first), 1.0):
        text = f"in eval mode the same samples give {first:.6g}, then {second:.6g}: something random is still active"
        return Check("modes", "failed", text, "evaluated-in-training-mode", observed)
    evaluated, trained = format.decimal(first), format.decimal(training)
    at = f"the same samples give {evaluated} in eval mode, twice, and {trained} in training mode"
    if first - training > WORSE_IN_EVALUATION * abs(training):
        means = "eval mode is another model: running averages of BatchNorm that lag, or a module that forgets its mode"
        return Check("modes", "failed", f"{at}: {means}", "", observed)
    return Check("modes", "passed", at, "", observed)


def judge_gradients(
    outside: Sequence[str], zero: Sequence[str], not_finite: Sequence[str], frozen: Sequence[str], num: int
) -> Check:
    """Whether a backward pass reaches each of the `num` parameters that should learn."""
    observed = {"outside": list(outside), "zero": list(zero), "not_finite": list(not_finite), "frozen": list(frozen)}
    rest = f"; {len(frozen)} are frozen by the configuration" if frozen else ""
    if not_finite:
        text = f"the gradient of {_named(not_finite)} is no number{rest}"
        return Check("gradients", "failed", text, "nan-loss", observed)
    if outside or zero:
        parts = [f"{_named(outside)} not in the graph of the loss"] if outside else []
        parts += [f"{_named(zero)} with a gradient of exactly zero"] if zero else []
        text = f"{len(outside) + len(zero)} of {num} parameters get none: {'; '.join(parts)}{rest}"
        return Check("gradients", "failed", text, "frozen-parameters", observed)
    return Check("gradients", "passed", f"all {num} parameters that should learn get one{rest}", "", observed)


def judge_future(changed: float, size: float, copies: float, positions: int) -> Check:
    """Whether a position sees only what came before: `changed` is the most that an answer moved when a later token
    was another one, beside answers of `size`; `copies` the part of the targets that stand at their own position."""
    observed = {"changed": changed, "size": size, "copies": copies, "positions": positions}
    if changed > OTHERWISE * max(size, 1.0):
        text = f"another token later on changes answers before it, by up to {changed:.2g} of {size:.2g}"
        return Check("future", "failed", f"{text}: the model sees what it is to predict", "target-leak", observed)
    if copies > 0.9:
        text = f"{100 * copies:.0f} % of the targets are the input at their own position: there is nothing to predict"
        return Check("future", "failed", text, "target-leak", observed)
    text = f"another token at {positions} positions, each for itself, changes no answer before it"
    return Check("future", "passed", text, "", observed)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
