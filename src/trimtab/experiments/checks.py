"""What each check of an examination says, from host values alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

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

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Held:
    """What a short training came to on samples that it did not see."""

    losses_M: FloatArray
    """Summed over the targets of each of M samples, at the best of its evaluations."""
    counts_M: FloatArray
    accuracy: float | None
    """The best; None for a task that has none."""
    steps: int
    training_loss: float
    """In the end."""

    @property
    def loss(self) -> float:
        """Of a target."""
        return float(self.losses_M.sum()) / float(self.counts_M.sum())


@dataclass(frozen=True, slots=True)
class Guess:
    """What is known of the same samples without their inputs."""

    losses_M: FloatArray
    right: float
    """Targets that are the most frequent one."""


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
        return Check(
            "learning rate",
            "failed",
            f"no rate lowers the loss of samples that are seen for the first time: {test.why}",
            "",
            observed,
        )
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


def judge_shuffled(own: Held, other: Held, guess: Guess | None) -> Check:
    """Whether targets have to do with their inputs: samples that were not trained on must be told better by what was
    learned from the right targets than by what was learned from shuffled ones, and than without any input."""
    gap, error = _gap(own, other.losses_M)
    loss, shuffled = own.loss, other.loss
    observed: dict[str, Any] = {
        "loss": loss,
        "shuffled": shuffled,
        "gap": gap,
        "error": error,
        "steps": own.steps,
        "training_loss": own.training_loss,
        "accuracy": own.accuracy,
    }
    at = (
        f"after training for {own.steps} steps the loss of samples that were not trained on is "
        f"{format.decimal(loss)} at best, with targets shuffled among samples {format.decimal(shuffled)}"
    )
    is_better = gap > max(ERRORS * error, LEAST_GAP * abs(loss))
    beats_guess = True
    if guess is not None:
        total = float(own.counts_M.sum())
        blind, usual = float(guess.losses_M.sum()) / total, guess.right / total
        observed |= {"guess": blind, "guess_accuracy": usual}
        at += f", and without any input {format.decimal(blind)}"
        gap_guess, error_guess = _gap(own, guess.losses_M)
        beats_guess = gap_guess > max(ERRORS * error_guess, LEAST_GAP * abs(loss))
        if own.accuracy is not None:
            at += f"; {own.accuracy:.1%} are right, and the most frequent target is {usual:.1%} of them"
            spread = math.sqrt(max(usual * (1.0 - usual), 0.25 / total) / total)
            # The best of several evaluations is lucky.
            beats_guess = beats_guess or own.accuracy > usual + (ERRORS + 0.5) * spread
    if not math.isfinite(loss):
        return Check("shuffled targets", "unclear", f"{at}: nothing was learned", "", observed)
    if beats_guess and (is_better or not math.isfinite(shuffled)):
        return Check("shuffled targets", "passed", f"{at}: inputs say something of their targets", "", observed)
    if is_better or (guess is not None and beats_guess):
        text = f"{at}: a little, which more steps or more validation samples would show"
        return Check("shuffled targets", "unclear", text, "", observed)
    means = (
        "inputs say nothing of the targets of other samples: labels are random or belong to other samples, or the model"
        " does not read its inputs, or needs more steps to"
    )
    if own.training_loss < 0.7 * loss:
        means += f" (that the training loss fell to {format.decimal(own.training_loss)} is learning by heart)"
    return Check("shuffled targets", "failed", f"{at}: {means}", "random-labels", observed)


def _gap(own: Held, losses_M: FloatArray) -> tuple[float, float]:
    """How much higher other losses of the same samples are, for each target, and the standard error of that."""
    total, num = float(own.counts_M.sum()), len(own.counts_M)
    gap = float((losses_M - own.losses_M).sum()) / total
    rest = losses_M - own.losses_M - gap * own.counts_M
    return gap, math.sqrt(num / max(1, num - 1) * float((rest**2).sum())) / total


def in_agreement(checks: Sequence[Check]) -> list[Check]:
    """The same, where one does not contradict another: a range test is short, and sees each sample once."""
    by_name = {one.name: one for one in checks}
    rate, shuffled = by_name.get("learning rate"), by_name.get("shuffled targets")
    if rate is None or shuffled is None or rate.verdict != "failed" or rate.observed.get("suggestion") is not None:
        return list(checks)
    if shuffled.verdict == "passed":
        more = (
            "yet at the run's own rate the model learns (shuffled targets): trimtab find-lr with more --steps may tell"
        )
        changed = replace(rate, verdict="unclear", text=f"{rate.text}; {more}")
    elif shuffled.code == "random-labels":
        more = "as inputs say nothing of their targets (shuffled targets), there is nothing that a rate could help with"
        changed = replace(rate, verdict="unclear", text=f"{rate.text}; {more}")
    else:
        return list(checks)
    return [changed if one is rate else one for one in checks]


def judge_modes(first: float, second: float, training: float, error: float = 0.0) -> Check:
    """Whether eval mode is one: the same answers twice, and none worse than training mode's, whose mean has `error`."""
    observed = {"evaluation": first, "again": second, "training": training, "training_error": error}
    if abs(first - second) > OTHERWISE * max(abs(first), 1.0):
        text = f"in eval mode the same samples give {first:.6g}, then {second:.6g}: something random is still active"
        return Check("modes", "failed", text, "evaluated-in-training-mode", observed)
    evaluated, trained = format.decimal(first), format.decimal(training)
    at = f"the same samples give {evaluated} in eval mode, twice, and {trained} in training mode without dropout"
    if first - training > max(WORSE_IN_EVALUATION * abs(training), ERRORS * error):
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
