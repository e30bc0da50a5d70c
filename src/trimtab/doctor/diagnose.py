"""From a case to a diagnosis: every rule is asked, causes are put before what they explain, and what else the log
resembles is named after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trimtab.doctor.case import Case
from trimtab.doctor.codes import CODES, FAULTS_OF_CODE, FAULTS_OF_DATA
from trimtab.doctor.differential import guesses_of
from trimtab.doctor.epochs import told_in_epochs
from trimtab.doctor.finding import SEVERITIES, Diagnosis, Finding, Remedy, Verdict, Withheld, more_severe
from trimtab.doctor.narrate import beaten_by, summarize, unit_of
from trimtab.doctor.reading.objectives import LEVELS, moved_by
from trimtab.doctor.reading.once import once
from trimtab.doctor.rules import RULES
from trimtab.doctor.soups import describe_soup, is_soup

PROBABLE = 0.6
"""The least confidence of a warning."""
SLACK_STEPS = 0.05
"""A cause may begin to show this part of the run after its consequence: detectors differ in how early they see."""
AT_ONCE = ("corrupt-batch",)
"""What explains nothing that begins far from all of its places."""
SWITCHED_ON_BY = {"layer/*/dead_fraction": "logging.examine.every", "layer/*/grad_norm": "logging.layers"}
"""Signals of our own runs, by a setting without which they may not be there."""


def diagnose(case: Case, run: str = "") -> Diagnosis:
    """The verdict on `case`: the same for the same prefix of a run, live or after the fact."""
    if is_soup(case):
        return Diagnosis(run, "healthy", (), (), describe_soup(case))
    findings, withheld = findings_of(case)
    guesses = guesses_of(case, findings)
    verdict = verdict_of(findings)
    if verdict == "healthy" and case.history.ended is not None and case.history.ended.status == "failed":
        verdict = "failed"  # for a reason that is told, and that no rule reads off the curves
    if case.counts_epochs:
        findings = [told_in_epochs(finding) for finding in findings]
        guesses = tuple(told_in_epochs(guess) for guess in guesses)
    found = {code for finding in findings for code in (finding.code, *finding.consequences)}
    kept = tuple(_with_settings(case, item) for item in withheld if item.code not in found)
    summary = summarize(case, verdict, findings, kept)
    beaten = beaten_by(case)
    return Diagnosis(
        run, verdict, tuple(findings), kept, summary, unit=unit_of(case), beaten_by=beaten, guesses=guesses
    )


def findings_of(case: Case) -> tuple[list[Finding], list[Withheld]]:
    """What the rules find in `case`, in causal order, and what they withhold."""
    findings: list[Finding] = []
    withheld: list[Withheld] = []
    for code in RULES:
        for said in ask(code, case):
            if isinstance(said, Finding):
                findings.append(_no_louder_than_sure(said))
            else:
                withheld.append(said)
    return in_causal_order(without_doubles(findings), case.planned_steps), withheld


def ask(code: str, case: Case) -> Iterator[Finding | Withheld]:
    """What one rule says of `case`, before causes are put before what they explain."""
    known = CODES[code]
    if known.tasks and (task := case.fact("task")) is not None and task not in known.tasks:
        return
    if missing := [signal for signal in known.signals if not is_there(case, signal)]:
        yield Withheld(code, tuple(missing))
        return
    if code in LEVELS and (beside := moved_by(case)) is not None:
        yield Withheld(code, (f"a loss whose level means the same all along, which that beside {beside} does not",))
        return
    try:
        yield from list(RULES[code](case))
    except Exception as error:  # one rule that fails must not silence the others
        yield Withheld(code, (f"a rule that works: it failed with {type(error).__name__}: {error}",))


def _with_settings(case: Case, withheld: Withheld) -> Withheld:
    """With the setting that each need of a run of our own waits for, where it is off."""
    needs = []
    for need in withheld.needs:
        off = [name for signal, name in SWITCHED_ON_BY.items() if signal in need and case.setting(name) in (0, False)]
        needs.append(f"{need} ({', '.join(off)})" if off else need)
    return replace(withheld, needs=tuple(needs))


def _no_louder_than_sure(finding: Finding) -> Finding:
    """A warning that is possible at most is a remark: on a sound run it would be a false alarm."""
    unsure = finding.severity == "warning" and finding.confidence < PROBABLE
    return replace(finding, severity="info") if unsure else finding


@once
def is_there(case: Case, signal: str) -> bool:
    """Whether a signal was logged: a metric, `layer/*/<metric>`, `facts.<path>`, or `one or another`."""
    if case.history.has(signal):
        return True
    if " or " in signal:
        return any(is_there(case, one) for one in signal.split(" or "))
    if signal.startswith("facts."):
        return case.fact(*signal.split(".")[1:]) is not None
    return case.evaluated(signal) is not None


def without_doubles(findings: Sequence[Finding]) -> list[Finding]:
    """Without a batch that is but possibly damaged, where its step is told as a spike: one step, one finding."""
    spans = [item.steps for finding in findings if finding.code == "loss-spike" for item in finding.evidence]
    return [
        finding
        for finding in findings
        if finding.code != "corrupt-batch"
        or finding.severity != "info"
        or not any(first <= finding.onset_step <= last for first, last in spans)
    ]


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """Failed with any error, attention with any warning, else healthy."""
    severities = {finding.severity for finding in findings}
    return "failed" if "error" in severities else "attention" if "warning" in severities else "healthy"


def in_causal_order(findings: Sequence[Finding], planned_steps: int) -> list[Finding]:
    """Roots first, each with the findings that it explains: their codes, their evidence and their severity."""
    slack = SLACK_STEPS * planned_steps
    order = sorted(findings, key=_weight)
    explained: dict[int, int] = {}
    for effect_index, effect in enumerate(order):
        for cause_index, cause in enumerate(order):
            mutual = cause.code in CODES[effect.code].explains
            # Of two that explain each other the earlier does; of those that begin together the surer.
            later = (effect.onset_step, -effect.confidence) if mutual else (effect.onset_step + slack + 1, 0.0)
            if (
                effect.code in CODES[cause.code].explains
                and (
                    (CODES[effect.code].whole and CODES[cause.code].kind == "root")
                    or (cause.onset_step, -cause.confidence) < later
                )
                and cause_index not in explained
                and (cause.code not in AT_ONCE or _is_near(effect, cause, slack))
                and SEVERITIES.index(cause.severity) > 0
            ):
                explained[effect_index] = cause_index
                break
    roots = {index: finding for index, finding in enumerate(order) if index not in explained}
    for effect_index, cause_index in explained.items():
        while cause_index in explained:
            cause_index = explained[cause_index]
        cause, effect = roots[cause_index], order[effect_index]
        roots[cause_index] = replace(
            cause,
            severity=more_severe(cause.severity, effect.severity),
            onset_step=cause.onset_step if CODES[effect.code].whole else min(cause.onset_step, effect.onset_step),
            evidence=cause.evidence + effect.evidence,
            consequences=(*cause.consequences, effect.code),
            remedies=_more_remedies(cause, effect),
        )
    return sorted(roots.values(), key=_weight)


def _is_near(effect: Finding, cause: Finding, slack: float) -> bool:
    """Whether the one begins within `slack` of where the other is seen."""
    places = [cause.onset_step, *(item.steps[0] for item in cause.evidence)]
    return any(abs(effect.onset_step - place) <= slack for place in places)


def _more_remedies(cause: Finding, effect: Finding) -> tuple[Remedy, ...]:
    """Those of the cause, then those of the effect that set something else; but no setting mends data or code."""
    if cause.code in FAULTS_OF_DATA or cause.code in FAULTS_OF_CODE:
        return cause.remedies
    known = {key for remedy in cause.remedies for key in remedy.config}
    return cause.remedies + tuple(r for r in effect.remedies if r.config and not known & set(r.config))


def _weight(finding: Finding) -> tuple[int, int, float, int, str]:
    """Graver before milder, roots before symptoms, surer before less sure, earlier before later."""
    return (
        -SEVERITIES.index(finding.severity),
        CODES[finding.code].kind == "symptom",
        -finding.confidence,
        finding.onset_step,
        finding.code,
    )
