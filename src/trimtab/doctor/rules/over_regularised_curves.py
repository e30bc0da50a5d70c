"""over-regularised as curves alone show it, where no setting is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import noise_of_evaluations
from trimtab.doctor.reading.levels import are_weights_new
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

CODE: Final = "over-regularised"
FEWEST: Final = 24
FEWEST_PULLED: Final = 8
FEWEST_SMOOTHED: Final = 12
DECAY_KEY: Final = "optimizer.weight_decay"
STAYS: Final = 0.985
"""Of the first loss: a training loss that ends above has not fallen."""
BELOW, OF_SMOOTHED = 0.03, 0.7
"""Of the first loss: how far the validation loss lies below all the same, and the least that is left of it."""
OF_CLASSES: Final = 1.05
"""A first loss of three classes or more."""
ABOVE: Final = 0.25
"""Of the validation loss, by which a training loss without known settings must lie above it."""
HELD: Final = 0.8
"""Of the first training loss: a training that keeps more, where evaluations show that much is learned, is held back."""
OF_WORDS: Final = 2.5
"""A first loss above that is of a dozen classes or more: of fewer, wrong labels in training look the same."""
ROSE, SURELY, AT_LEVEL, BESIDE = 0.03, 6.0, 0.35, 0.12
"""Of the first validation loss, and of the scatter: how far it rose. Of that rise: what it moves by in the second half.
Of the level: how far the training loss may be off it."""
ROSE_OF_NEW: Final = 0.012
"""Of the first, where the weights are new: one that was trained before rises as much when its rate is warmed up again.
"""


def of_curves_alone(case: Case, loss: Curve) -> Iterator[Finding | Withheld]:
    """The clearest of three signs."""
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 4 or not (validation.values > 0).all():
        return
    said = [*_pulled_back(case, loss, validation)] or [*_smoothed(case, loss, validation)]
    yield from said or (_harder(case, loss, validation) if len(loss) >= FEWEST else ())


def _pulled_back(case: Case, loss: Curve, validation: Curve) -> Iterator[Finding]:
    """A validation loss that rises at once to a level and stays there, while the training loss rises or stands: weights
    that are pulled to nothing leave the answers of a guess, and nothing is learned by heart."""
    if min(len(loss), len(validation)) < FEWEST_PULLED or loss.end < STAYS * loss.start or not loss.from_start:
        return
    first, half = float(validation.values[0]), validation.values[len(validation) // 2 :]
    level = median(half)
    rise, scatter = level - first, max(noise_of_evaluations(validation.values), loss.noise)
    rose = ROSE_OF_NEW if are_weights_new(case) else ROSE
    if not max(rose * first, SURELY * scatter) < rise < first or float(np.ptp(half)) > AT_LEVEL * rise:
        return
    if abs(loss.end - level) > BESIDE * level or float(loss.values.max()) > 2.0 * loss.end:
        return
    text = (
        f"the validation loss rose from {format.decimal(first)} to {format.decimal(level)} and stays there, and the "
        f"training loss came from {format.decimal(loss.start)} to {format.decimal(loss.end)}"
    )
    yield Finding(
        CODE,
        "warning",
        0.65,
        loss.first_step,
        "both losses come to rest above where they began, as answers of a guess leave them: something pulls the "
        "weights to nothing, a weight decay that is far too strong, as it seems",
        (Evidence("validation/loss", (validation.first_step, validation.last_step), level, first, text),),
        remedies=tuple(remedies_for(case, {"dropout": False, "decay": True, "smoothing": False})),
    )


def _harder(case: Case, loss: Curve, validation: Curve) -> Iterator[Finding | Withheld]:
    """A remark where the training loss comes to lie far above a validation loss that is high itself; a warning where it
    hardly falls though much is learned."""
    if validation.last_step < 0.9 * case.history.last_step:
        return  # what was judged last says nothing of the end
    above, before = loss.end / validation.end - 1, loss.at(validation.first_step) / float(validation.values[0]) - 1
    if above < ABOVE:
        return
    if before > 0.75 * above or validation.end < 0.4 * loss.start:  # a multiple; or a model that has learned its task
        needs = "settings: dropout, weight_decay, label_smoothing (a run of TrainingLogger with config=…)"
        yield Withheld(CODE, (needs,))
        return
    held = loss.end > HELD * loss.start > HELD * OF_WORDS and validation.end < 0.9 * HELD * loss.start
    held = held and loss.from_start
    text = (
        f"the training loss ends {above:.0%} above the validation loss ({format.decimal(loss.end)} and "
        f"{format.decimal(validation.end)}), and was {max(before, 0.0):.0%} above it at step {validation.first_step:,}"
    )
    if held:
        text += f"; it is still {loss.end / loss.start:.0%} of its first, where the validation loss came down with it"
    yield Finding(
        CODE,
        "warning" if held else "info",
        0.6 if held else 0.5,
        loss.first_step,
        "training is made much harder than evaluation, by dropout, smoothing or augmentation, and the validation loss "
        "is still high: less of it may give more",
        (Evidence("train/loss", (validation.first_step, loss.last_step), loss.end, validation.end, text),),
        remedies=tuple(remedies_for(case, {"dropout": True, "decay": False, "smoothing": True})),
    )


def _smoothed(case: Case, loss: Curve, validation: Curve) -> Iterator[Finding]:
    """A training loss that stays where it began, without much noise, above a validation loss that came down: smoothed
    labels, which evaluations do not have, cannot be learned below their own entropy."""
    if len(loss) < FEWEST_SMOOTHED or loss.start < OF_CLASSES:
        return
    below = (loss.end - validation.end) / loss.start
    still = (1.0 - STAYS) * loss.start
    if loss.end < loss.start - still or loss.noise > still or not BELOW < below < 1.0 - OF_SMOOTHED:
        return
    if float(loss.values.max()) > loss.start / STAYS or validation.values[-1] >= validation.values[0]:
        return
    guessed = loss.from_start and not case.counts_epochs
    text = (
        f"the training loss came from {format.decimal(loss.start)} to {format.decimal(loss.end)} only, and the "
        f"validation loss is {format.decimal(validation.end)}"
    )
    yield Finding(
        CODE,
        "warning" if guessed else "info",
        0.75 if guessed else 0.5,
        loss.first_step,
        "what is trained for can hardly be learned, and evaluations get better all the same: labels are smoothed far "
        "too much, as it seems",
        (Evidence("train/loss", (validation.first_step, loss.last_step), loss.end, validation.end, text),),
        remedies=tuple(remedies_for(case, {"dropout": False, "decay": False, "smoothing": True})),
    )


def remedies_for(case: Case, too_much: dict[str, bool]) -> Iterator[Remedy]:
    """What is usual, of what is too much."""
    if case.target != "trimtab":
        usual = {"dropout": "dropout 0.1", "decay": "weight decay 0.01 to 0.1", "smoothing": "no label smoothing"}
        yield Remedy("regularize less: " + ", ".join(usual[name] for name, is_so in too_much.items() if is_so))
        return
    if too_much["dropout"]:
        set_now = {
            name: min(0.1, float(value))
            for name, value in case.config.items()
            if name.startswith("model.dropout.") and isinstance(value, int | float) and value > 0.1
        }
        yield Remedy("dropout of 0.1", "trimtab", set_now)
    if too_much["decay"]:
        key, value = ("penalties.l2.strength", 0.0) if case.setting("penalties.l2.strength") else (DECAY_KEY, 0.1)
        yield Remedy("a usual weight decay", "trimtab", {key: value})
    if too_much["smoothing"]:
        yield Remedy("no label smoothing", "trimtab", {"objective.label_smoothing": 0.0})
