"""What a mistake is, and how its harm is told: by the same run without it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median, pstdev
from typing import Any

from own_examiner.case import CLASSES, LANGUAGE, Case

Outcome = dict[str, Any]
Kinds = tuple[str, ...]


def unchanged(rng: random.Random, case: Case) -> Case:
    """The base as it is."""
    return case


@dataclass(frozen=True, slots=True)
class Plant:
    """One way to make a mistake."""

    name: str
    code: str
    kinds: Kinds
    spoil: Callable[[random.Random, Case, bool], Case]
    """The last argument: strong, or moderate."""
    harm: Callable[[Case, Outcome, Outcome | None], str] | None = None
    """Says what harm it did, compared with the twin; empty where there is none. None: the loss is told."""
    prepare: Callable[[random.Random, Case], Case] = unchanged
    """What the twin has, too."""
    own: bool | None = None
    also: tuple[str, ...] = ()
    """Codes whose sentence says the same of such a run."""
    onset: Callable[[Case], int | None] = lambda case: None
    has_twin: bool = True

    def judge(self, case: Case, bad: Outcome, good: Outcome | None) -> str:
        """What harm was done; empty: none, and the run is dropped."""
        if self.harm is not None:
            return self.harm(case, bad, good)
        assert good is not None
        return worse(case, bad, good)


def last(outcome: Outcome) -> float:
    """The final validation loss; not a number where there is none."""
    return outcome["validation"][-1][1] if outcome["validation"] else math.nan


def ended(outcome: Outcome) -> float:
    """The mean training loss of the last twentieth."""
    losses = [loss for _, loss in outcome["train"]]
    return mean(losses[-max(1, len(losses) // 20) :]) if losses else math.nan


def begun(outcome: Outcome) -> float:
    """The mean of the first three training losses."""
    return mean(loss for _, loss in outcome["train"][:3]) if outcome["train"] else math.nan


def is_worse(kind: str, bad: float, good: float) -> bool:
    """Whether anybody would call one loss clearly worse than the other."""
    if not math.isfinite(bad):
        return True
    if kind in (*LANGUAGE, "words") or kind.startswith(("text-", "masked-", "pairs-")):
        return bad - good > 0.12
    of_classes = kind in CLASSES or kind.startswith(("class-", "tags-"))
    return bad > 1.25 * good and bad - good > (0.06 if of_classes else 0.02)


def worse(case: Case, bad: Outcome, good: Outcome) -> str:
    """The final validation loss is clearly worse than the twin's."""
    if bad["status"] == "failed":
        return f"the run failed: {str(bad.get('reason'))[:80]}"
    if is_worse(case.kind, last(bad), last(good)):
        return f"validation loss {last(bad):.3f} against {last(good):.3f}"
    return ""


def better(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The validation loss is better than it can honestly be."""
    assert good is not None
    return (
        f"validation loss {last(bad):.3f}, honestly {last(good):.3f}"
        if is_worse(case.kind, last(good), last(bad))
        else ""
    )


def far_better(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The validation loss is a fraction of what it can honestly be."""
    assert good is not None
    return f"validation loss {last(bad):.3f}, honestly {last(good):.3f}" if last(bad) < 0.35 * last(good) else ""


def explains_less(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """R² on the validation set is clearly lower: losses are in units of the training targets, which have changed."""
    assert good is not None
    ours, theirs = (one["r2"][-1] if one["r2"] else math.nan for one in (bad, good))
    return "" if ours > theirs - 0.1 else f"R² {ours:.2f} against {theirs:.2f}"


def overfits(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The validation loss rose clearly above its lowest value while the training loss fell."""
    lowest = min((loss for _, loss in bad["validation"]), default=math.nan)
    if is_worse(case.kind, last(bad), lowest) and ended(bad) < 0.7 * lowest:
        return f"validation loss {lowest:.3f}, then {last(bad):.3f}; training loss {ended(bad):.3f}"
    return ""


def spikes(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """Some training losses are far above those around them."""
    losses = [loss for _, loss in bad["train"]]
    late = losses[len(losses) // 5 :]
    middle = median(late)
    scatter = median(abs(loss - middle) for loss in late)
    high = max(late)
    far = high - middle > max(12 * scatter, 0.5 * middle)
    return f"a training loss of {high:.2f} amid {middle:.2f}" if far else ""


def scatters(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """Validation losses jump from one to the next far more than the twin's."""
    assert good is not None

    def jumps(outcome: Outcome) -> float:
        losses = [loss for _, loss in outcome["validation"]]
        late = losses[len(losses) // 3 :]
        changes = [b - a for a, b in pairwise(late)]
        return pstdev(changes) / mean(late) if len(changes) > 2 else 0.0

    return f"jumps of {jumps(bad):.2f} against {jumps(good):.2f}" if jumps(bad) > max(0.25, 2 * jumps(good)) else ""


def collapsed(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The accuracy is at one class's share and stays there, in every late evaluation."""
    values = [value for _, value in bad["accuracy"]][-4:]
    stands = len(values) > 2 and pstdev(values) < 0.004 and last(bad) > 0.6 * bad["validation"][0][1]
    return f"accuracy {values[-1]:.3f} in each of the last evaluations" if stands else ""


def lasts(step: str, factor: float) -> Callable[[Case, Outcome, Outcome | None], str]:
    """Steps take longer: `grows` within the run, `twin` than the twin's."""

    def harm(case: Case, bad: Outcome, good: Outcome | None) -> str:
        seconds = bad["seconds"]
        part = max(1, len(seconds) // 6)
        late = median(seconds[-part:])
        early = median(seconds[part : 2 * part]) if step == "grows" else median((good or bad)["seconds"])
        return f"{1000 * late:.1f} ms a step against {1000 * early:.1f}" if late > factor * early else ""

    return harm


def grows(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The memory of the process grows to the end."""
    memory = bad["memory"]
    rise = (memory[-1] - memory[len(memory) // 3]) / 2**20 if memory else 0.0
    return f"memory grew by {rise:.0f} MiB in the last two thirds" if rise > 100 else ""


def jumps(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The training loss just after resuming is far above that just before."""
    every = int(case.settings["evaluation.every"])
    at, losses = (case.killed_at or 0) // every * every, dict(bad["train"])
    before = [losses[step] for step in range(at - 24, at + 1) if step in losses]
    after = [losses[step] for step in range(at + 1, at + 21) if step in losses]
    if before and after and mean(after) > 1.15 * mean(before) + 0.05:
        return f"training loss {mean(before):.3f} before, {mean(after):.3f} after it was resumed"
    return ""
