"""scorecard: which fault a log most resembles where no rule is sure, why, and what else it could be.

Looks for: a log of another trainer, of eight training losses or more, in which no rule found a warning or an error.
    Some hundred features of its curves, nearly all without a unit, are each cut into bins; every bin has points for
    every fault. Their sum, with what the rules remarked, is the logarithm of that fault's odds against a sound run.
Why it matters: a rule speaks where one pattern is clear. Often none is, and yet the run is hardly a sound one: then
    the probable causes in their order are worth more than silence.
Evidence: the features with the most points for the fault that is named and the one with most against it, each beside
    what it usually is in sound runs. What was not logged counts for nothing.
Remedy: that of the rule for the code that is named, where it turns out to be right; else those named next.
False alarms: it speaks only where so few held-out sound runs look as bad. Its confidence is the probability of the
    code, which may be far below a half: what is sure is that something is wrong, not which. A run whose settings are
    known (trimtab's own) is left to the rules, also while it goes on.
Source: own; a multinomial logistic regression on real short runs with known faults
    (`benchmarks/doctor/fit_scorecard.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.codes import CODES
from trimtab.doctor.differential.card import Scorecard, probabilities, the_scorecard
from trimtab.doctor.differential.features import FEATURES, features_of
from trimtab.doctor.differential.onset import onset_of
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.pages import page_of
from trimtab.doctor.reading.curves import Curve

PROBABLE: Final = 0.6
"""The least probability that something is wrong at which that is remarked; what is said aloud needs the card's."""
FEWEST_ROWS: Final = 8
"""With fewer values of the training loss nothing is said."""
TIMED: Final = {
    "input-bound": ("data_seconds",),
    "throughput-decay": ("step_seconds", "tokens_per_second"),
    "memory-leak": ("memory_bytes", "hardware/process_memory_bytes"),
}
"""Of these no other curve tells."""
NEXT: Final = 2
"""What else it could be."""
LEAST: Final = 0.05
"""The least probability of what is named besides."""
MOST_REASONS: Final = 3
LEAST_POINTS: Final = 0.15


def resembling(case: Case, findings: Sequence[Finding]) -> list[Finding]:
    """`findings`, led by what the log most resembles where none of them is loud and the run does not look sound.

    A warning where that is as good as sure, else a remark.

    Runs whose settings are known are left to the rules, which know more than curves.
    """
    loss = Curve.of(case.loss())
    loud = any(finding.severity != "info" for finding in findings)
    if loud or case.target == "trimtab" or case.config or loss is None or len(loss) < FEWEST_ROWS:
        return list(findings)
    card, features = the_scorecard(), features_of(case)
    heard = remarks_of(findings)
    logits = card.logits(features, heard)
    sound, odds = probabilities(logits)
    odds = np.where([_can_be(case, code) for code in card.codes], odds, 0.0)
    if 1.0 - sound < min(PROBABLE, card.threshold) or not odds.any():
        return list(findings)
    first, *others = [int(index) for index in np.argsort(-odds, kind="stable")[: 1 + NEXT]]
    others = [index for index in others if odds[index] >= LEAST]
    said = {finding.code: finding for finding in findings}
    named = [_named(case, card.codes[index], float(odds[index]), said) for index in (first, *others)]
    besides = [(card.codes[index], float(odds[index])) for index in others]
    lead = replace(
        named[0],
        severity="warning" if 1.0 - sound >= card.threshold else "info",
        cause=_cause(card, card.codes[first], sound, besides),
        evidence=(*named[0].evidence, *_reasons(card, features, first, loss)),
    )
    told = {finding.code for finding in named}
    return [lead, *named[1:], *(finding for finding in findings if finding.code not in told)]


def remarks_of(findings: Sequence[Finding]) -> Mapping[str, float]:
    """The confidence of each code that is remarked, as a finding or as a consequence."""
    heard: dict[str, float] = {}
    for finding in findings:
        for code in (finding.code, *finding.consequences):
            heard[code] = max(finding.confidence, heard.get(code, 0.0))
    return heard


def _can_be(case: Case, code: str) -> bool:
    """Whether a code can be of this task, and what the machine does was measured."""
    task, tasks = case.fact("task"), CODES[code].tasks
    measured = code not in TIMED or any(case.history.has(metric) for metric in TIMED[code])
    return measured and (task is None or not tasks or task in tasks)


def _named(case: Case, code: str, probability: float, said: Mapping[str, Finding]) -> Finding:
    """A remark on `code` as sure as the scorecard is; what its rule said of it is kept."""
    remark = said.get(code)
    if remark is not None:
        return replace(remark, severity="info", confidence=probability)
    cause = f"What else it could be, by its curves: {CODES[code].sentence}."
    remedies = [Remedy(text) for heading, text in page_of(code).parts if heading == "Remedy"]
    return Finding(code, "info", probability, onset_of(code, case), cause, remedies=tuple(remedies))


def _cause(card: Scorecard, code: str, sound: float, others: Sequence[tuple[str, float]]) -> str:
    wrong = f"{1.0 - sound:.0%}"
    head = f"No rule alone is sure, but this is hardly a sound run ({wrong})."
    if 1.0 - sound < card.threshold:
        head = f"Perhaps nothing is wrong, but sound runs seldom look like this ({wrong} that something is)."
    besides = " or ".join(f"{other} ({chance:.0%})" for other, chance in others)
    return (
        f"{head} Of {card.num_faulty:,} runs with known faults, those with curves like these had most often {code}: "
        f"{CODES[code].sentence}." + (f" Else it could be {besides}." if besides else "")
    )


def _reasons(card: Scorecard, features: Mapping[str, float], code: int, loss: Curve) -> list[Evidence]:
    """The features that speak most for a code and the one that speaks most against it, each of another kind."""
    points = {name: float(found[code]) for name, found in card.points(features).items()}
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
