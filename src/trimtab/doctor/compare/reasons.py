"""What may have made the difference, by what differs, when it could act, what the doctor found, and earlier runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from trimtab.doctor.compare.comparison import Change, Outcome, Parting, Reason, Side, Turn, Which
from trimtab.doctor.effects import Effect
from trimtab.doctor.finding import Finding
from trimtab.runs import format
from trimtab.runs.printable import printable

ACT: Final = ("data", "weights", "length", "numerics")
"""Kinds of changes that can make another model."""
LATE: Final = 0.1
"""Curves that part after this part of the run part late: what acts from step 1 is then less likely the reason."""
SLACK: Final = 0.05
SIDES: Final[tuple[Which, Which]] = ("a", "b")
MOST_EVENTS: Final = 3
VAGUE: Final = 0.15
"""Where losses part within a longer part of the run than this, no event can be named for it."""
AMONG_SETTINGS: Final = 0.75
"""How sure we are that what differs is the reason, rather than what nobody wrote down."""
BY_CHANCE: Final = 0.35


@dataclass(frozen=True, slots=True)
class Known:
    """All that reasons are drawn from."""

    a: Side
    b: Side
    changes: tuple[Change, ...]
    outcome: Outcome | None
    partings: tuple[Parting, ...]
    turns: tuple[Turn, ...]
    earlier: Mapping[str, Effect]
    """Setting to its effect in other runs of the project."""

    @property
    def last_step(self) -> int:
        """Of the longer one."""
        return max(self.a.case.history.last_step, self.b.case.history.last_step, 1)

    @property
    def parted(self) -> Parting | None:
        """Where the losses part: that of the two that is seen to part first."""
        of_losses = [(one.step, one) for one in self.partings if one.metric.endswith("/loss") and one.step is not None]
        return min(of_losses, key=lambda pair: pair[0])[1] if of_losses else None

    @property
    def worse(self) -> Which | None:
        """The one with the worse outcome; of two that come to the same the one that failed."""
        better = self.outcome.better if self.outcome is not None else None
        if better is None and (failed := [which for which in ("a", "b") if self.failure_of(which)]) in (["a"], ["b"]):
            return "a" if failed == ["a"] else "b"
        return None if better is None else "b" if better == "a" else "a"

    def failure_of(self, which: str) -> Finding | None:
        """The first error that the doctor finds in one of them."""
        findings = (self.a if which == "a" else self.b).diagnosis.findings
        return next((one for one in findings if one.severity == "error"), None)


def reasons_of(known: Known) -> tuple[Reason, ...]:
    """The likeliest first; confidences of what excludes each other add up to 1 at most."""
    acting = [one for one in known.changes if one.kind in ACT]
    weights = {reason.what: (reason, weight) for reason, weight in _candidates(known, acting)}
    whole = sum(weight for _, weight in weights.values())
    chance = 1.0 if any(one.kind == "chance" for one in known.changes) else 0.3
    sure = AMONG_SETTINGS + 0.2 * (not any(one.kind == "chance" for one in known.changes))
    if known.outcome is not None and known.worse is None:
        sure = BY_CHANCE
    found = [
        Reason(reason.what, min(0.95, sure * weight / max(whole, 1e-9)), reason.text)
        for reason, weight in weights.values()
    ]
    if not found and (known.parted is not None or known.worse is not None):
        found.append(_chance(known, chance))
    causal = {change.what for change in acting if _explains_the_worse(known, change)}
    return tuple(sorted(found, key=lambda one: (not causal & set(one.what), -one.confidence)))


def _explains_the_worse(known: Known, change: Change) -> bool:
    """Whether a finding of the worse run alone would have this setting changed towards what it is in the better one."""
    return known.worse is not None and _finding_on(known, change, only=known.worse) is not None


def _candidates(known: Known, acting: Sequence[Change]) -> Iterator[tuple[Reason, float]]:
    """Each with its weight beside the others."""
    for change in acting:
        weight, told = 1.0, [_sentence(change)]
        if (step := _late(known)) is not None:
            weight *= 0.5
            told.append(f"it holds from step 1, and the losses part at step {format.count(step)}")
        if change.kind == "numerics":
            weight *= 0.3
            told.append("it changes how numbers are rounded, and seldom more")
        if (link := _finding_on(known, change)) is not None:
            weight *= 12.0 if _explains_the_worse(known, change) else 4.0
            told.append(link)
        if (effect := known.earlier.get(change.what)) is not None:
            weight *= 3.0 if effect.is_clear else 0.5
            told.append(_of_earlier(effect))
        if len(acting) == 1:
            told.append("nothing else differs that acts on the model")
        yield Reason((change.what,), 0.0, "; ".join(told)), weight
    for side in SIDES:
        turns = [turn for turn in _events_before(known) if turn.side == side]
        turns = turns or [turn for turn in _found_alone(known, acting) if turn.side == side]
        if turns:
            happened = "; then ".join(f"at step {format.count(turn.step)}: {turn.text}" for turn in turns[:MOST_EVENTS])
            yield Reason(tuple(turn.text for turn in turns), 0.0, f"in {_name(known, side)}, {happened}"), 3.0


def _found_alone(known: Known, acting: Sequence[Change]) -> Iterator[Turn]:
    """What the doctor finds in the worse run alone, and no setting that differs stands for; the first of it."""
    side, other = (known.a, known.b) if known.worse == "a" else (known.b, known.a)
    codes = {code for one in other.diagnosis.findings for code in (one.code, *one.consequences)}
    if known.worse is None or any(_finding_on(known, change) for change in acting):
        return
    for finding in side.diagnosis.findings:
        if finding.severity != "info" and finding.code not in codes:
            yield from (
                turn
                for turn in known.turns
                if turn.side == known.worse and turn.kind == "finding" and turn.text.startswith(f"{finding.code} ")
            )
            return


def _sentence(change: Change) -> str:
    return f"{change.what} is {_value(change.a)} and {_value(change.b)}"


def _value(value: Any) -> str:
    return "not set" if value is None else printable(str(value), limit=60)


def _late(known: Known) -> int | None:
    """The step at which losses part, where that is late: the rates did not part there, nor before."""
    parted = known.parted
    if parted is None or parted.step is None or parted.step <= LATE * known.last_step:
        return None
    return parted.step


def _finding_on(known: Known, change: Change, *, only: Which | None = None) -> str | None:
    """A finding in one of the two alone whose remedy leads towards what the setting is in the other."""
    for which, side, other in (("a", known.a, known.b), ("b", known.b, known.a)):
        if only is not None and which != only:
            continue
        codes = {code for one in other.diagnosis.findings for code in (one.code, *one.consequences)}
        for finding in side.diagnosis.findings:
            wanted = [remedy.config[change.what] for remedy in finding.remedies if change.what in remedy.config]
            here, there = (change.a, change.b) if side is known.a else (change.b, change.a)
            leads_there = any(_leads(here, there, value) for value in wanted)
            if finding.severity != "info" and finding.code not in codes and leads_there:
                return f"the doctor finds {finding.code} in {side.name} alone, and would change this"
    return None


def _leads(here: Any, there: Any, wanted: Any) -> bool:
    """Whether a value that is wanted lies on the side of `here` where `there` lies, or is `there`."""
    numbers = [
        value for value in (here, there, wanted) if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(numbers) == 3:
        return (numbers[2] - numbers[0]) * (numbers[1] - numbers[0]) > 0
    return bool(wanted == there)


def _of_earlier(effect: Effect) -> str:
    interval = ""
    if effect.low is not None and effect.high is not None:
        interval = f" (95 %: {format.signed(effect.low)} to {format.signed(effect.high)})"
    return (
        f"in {effect.num_runs} other runs that are else equal, {effect.contrast} of it went along with "
        f"{format.signed(effect.change)}{interval}"
    )


def _events_before(known: Known) -> Iterator[Turn]:
    """What happened in one of them alone, shortly before the losses part."""
    parted = known.parted
    if parted is None or parted.step is None or parted.step - (parted.earliest or 0) > VAGUE * known.last_step:
        return
    resumes_exactly = known.a.case.target == known.b.case.target == "trimtab"
    slack = max(SLACK * known.last_step, parted.step - (parted.earliest or parted.step))
    for turn in known.turns:
        if turn.kind == "resume" and resumes_exactly:
            continue
        if turn.kind in ("finding", "alert") and known.worse is not None and turn.side != known.worse:
            continue  # a fault does not make the better run better
        if turn.kind == "finding" and _is_remark(known, turn):
            continue
        if turn.kind in ("decision", "rollback", "resume", "alert", "finding") and turn.step > 1:
            near = parted.step - 2 * slack <= turn.step <= parted.step + slack
            alike = any(
                other.side != turn.side and other.kind == turn.kind and abs(other.step - turn.step) <= slack
                for other in known.turns
            )
            if near and not alike:
                yield turn


def _is_remark(known: Known, turn: Turn) -> bool:
    findings = (known.a if turn.side == "a" else known.b).diagnosis.findings
    return any(one.severity == "info" and turn.text.startswith(f"{one.code} ") for one in findings)


def _chance(known: Known, weight: float) -> Reason:
    seeds = next((one for one in known.changes if one.kind == "chance"), None)
    if seeds is not None:
        text = f"nothing differs that acts on the model but the seed ({_value(seeds.a)} and {_value(seeds.b)})"
        return Reason((seeds.what,), 0.9 * weight, f"{text}: this is what chance alone does")
    if not known.a.case.config or not known.b.case.config:
        return Reason((), 0.2, "the settings of these logs are not known, so that nothing can be named")
    text = "no setting, data or event differs that was written down: the code, the machine, or the order of its sums"
    return Reason((), 0.3, text)


def _name(known: Known, side: Which) -> str:
    return known.a.name if side == "a" else known.b.name
