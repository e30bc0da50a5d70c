"""scorecard: what else a log resembles besides what the rules found, the likelier first, and why.

Looks for: a log of another trainer, of eight training losses or more. Some ninety features of its curves, nearly all
    without a unit, are each cut into bins; every bin has points for every fault. Their sum, with what the rules said
    and how sure they were, is the logarithm of that fault's odds against a sound run.
Why it matters: a rule speaks where one pattern is clear. Often none is, and a reader whose run disappoints wants to
    know where to look first; and where a rule speaks, what else it could be.
Evidence: the features with the most points for the fault that is named and the one with most against it, each beside
    what it usually is in sound runs. What was not logged counts for nothing.
Remedy: none by itself: that of the rule for the code that is named, where it turns out to be right.
False alarms: none: it never warns, and no verdict hangs on it. Sound runs of a program that it was not fitted to look
    odd to it, so that no threshold would tell them from faults. Its confidence is the probability of the code among
    runs such as it was fitted to, of which more than half had a fault. A run of trimtab's own trainer, whose settings
    are known, is left to the rules, also while it goes on; what a callback saw not to be so is not named.
Source: own; a multinomial logistic regression on real short runs with known faults
    (`benchmarks/doctor/fit_scorecard.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.codes import CODES
from trimtab.doctor.differential.card import Heard, Scorecard, probabilities, the_scorecard
from trimtab.doctor.differential.features import FEATURES, features_of
from trimtab.doctor.differential.onset import onset_of
from trimtab.doctor.finding import Evidence, Finding
from trimtab.doctor.reading.curves import Curve, Floats

FEWEST_ROWS: Final = 8
"""With fewer values of the training loss nothing is said."""
TIMED: Final = {
    "input-bound": ("data_seconds",),
    "throughput-decay": ("step_seconds", "tokens_per_second"),
    "memory-leak": ("memory_bytes", "hardware/process_memory_bytes"),
}
"""Of these no other curve tells."""
JUDGED: Final = ("validation/loss", "validation/accuracy")
OF: Final = TIMED | {
    "loss-scale-collapse": ("loss_scale", "grad_norm"),
    "overfitting": JUDGED,
    "overconfident": JUDGED,
    "validation-shift": JUDGED,
    "validation-too-small": JUDGED,
    "leakage": JUDGED,
    "evaluated-in-training-mode": JUDGED,
}
"""What must have been logged for a code to be more than a name: any of these."""
MOST_NAMED: Final = 3
"""With what the rules found."""
LEAST: Final = 0.01
"""The least probability of what is named."""
MOST_REASONS: Final = 3
LEAST_POINTS: Final = 0.15


def guesses_of(case: Case, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What else `case` resembles, the likeliest first: with `findings`, which are the rules', three at most.

    Runs of our own, whose settings are known, are left to the rules, which know more than curves; and what the facts of
    a run exclude is not named.
    """
    loss = Curve.of(case.loss())
    free = MOST_NAMED - len(findings)
    if free <= 0 or case.target == "trimtab" or loss is None or len(loss) < FEWEST_ROWS:
        return ()
    card, features, heard = the_scorecard(), features_of(case), heard_in(findings)
    _, odds = probabilities(card.logits(features, heard))
    found = {finding.code for finding in findings}
    likely = [
        index
        for index in map(int, np.argsort(-odds, kind="stable"))
        if odds[index] >= LEAST and card.codes[index] not in found and _can_be(case, card.codes[index])
    ]
    points = card.points(features) if likely else {}
    return tuple(
        Finding(
            card.codes[index],
            "info",
            float(odds[index]),
            onset_of(card.codes[index], case),
            f"By its curves alone, of {card.num_runs:,} runs whose truth is known, {odds[index]:.0%} of those "
            f"like this had it: {CODES[card.codes[index]].sentence}.",
            tuple(_reasons(card, features, points, index, loss)),
        )
        for index in likely[:free]
    )


def heard_in(findings: Sequence[Finding]) -> Mapping[str, Heard]:
    """What the rules said of each code, as a finding or as a consequence."""
    heard: dict[str, Heard] = {}
    for place, finding in enumerate(findings):
        loud = finding.severity != "info"
        for code in finding.consequences:
            heard.setdefault(code, Heard(remarked=finding.confidence))
        heard[finding.code] = (
            Heard(warned=finding.confidence, leads=place == 0) if loud else Heard(remarked=finding.confidence)
        )
    return heard


def _can_be(case: Case, code: str) -> bool:
    """Whether a code can be of this task, and what it is of was logged."""
    task, tasks = case.fact("task"), CODES[code].tasks
    measured = code not in OF or any(case.evaluated(metric) is not None for metric in OF[code])
    if code == "evaluation-bound":
        measured = bool(case.history.evaluation_seconds)
    return measured and code not in _excluded(case) and (task is None or not tasks or task in tasks)


def _excluded(case: Case) -> set[str]:
    """What a callback has seen not to be so."""
    found = set()
    if case.number("first_batch", "sum_to_one") == 0.0:
        found.add("double-softmax")
    if case.fact("evaluated_in_training_mode") is False:
        found.add("evaluated-in-training-mode")
    norms_WL = case.history.layers.values("grad_norm")[2]
    if case.number("parameters", "frozen") == 0.0 and norms_WL.size and (norms_WL > 0).any(axis=0).all():
        found.add("frozen-parameters")
    return found


def _reasons(
    card: Scorecard, features: Mapping[str, float], points_of: Mapping[str, Floats], code: int, loss: Curve
) -> list[Evidence]:
    """The features that speak most for a code and the one that speaks most against it, each of another kind."""
    points = {name: float(found[code]) for name, found in points_of.items()}
    told: dict[str, str] = {}
    for name in sorted(points, key=lambda name: -points[name]):
        if points[name] >= LEAST_POINTS and len(told) < MOST_REASONS:
            told.setdefault("_".join(name.split("_")[:2]), name)
    names = list(told.values())
    if points and points[lowest := min(points, key=lambda name: points[name])] <= -LEAST_POINTS:
        names.append(lowest)
    reasons: list[Evidence] = []
    for name in names:
        feature, usual = FEATURES[name], card.features[name].usual
        text = (
            f"{'for' if points[name] > 0 else 'against'} {card.codes[code]} ({points[name]:+.1f}): {feature.text} "
            f"{feature.show(features[name])}, in sound runs usually {feature.show(usual)}"
        )
        steps = (loss.first_step, loss.last_step)
        reasons.append(Evidence(feature.metric, steps, features[name], usual, text))
    return reasons
