"""From a diagnosis to a changed configuration: of each finding the next step of its ladder of remedies.

A step is not taken twice: what the run has, what its controllers did before the trouble, and what runs beside it tried
in vain are passed over. Nothing is read or written here; who asks gives the way to load a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from trimtab.config import Config, flatten
from trimtab.config.dump import yaml_value
from trimtab.doctor.finding import Diagnosis, Finding, Remedy
from trimtab.doctor.lint import lint
from trimtab.doctor.tried import Tried
from trimtab.errors import ConfigError

MOST_STEEPER: Final = 3
"""So often is a learning rate changed by the same factor again, where that was tried and did not help."""
_RATE: Final = "optimizer.learning_rate"

Load = Callable[[Sequence[str]], Config]
"""The run's configuration with overrides `section.key=value`. Raises: ConfigError."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is changed."""

    key: str
    was: Any
    """None, too, where the run had no such setting."""
    now: Any
    code: str
    """The finding that it answers."""
    remedy: str
    """What it is, in words."""
    why: str
    """What the finding says."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A remedy that no setting makes, or that was passed over."""

    code: str
    remedy: str
    passed_over: str = ""
    """Why; "" where it is for a person to do."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What `fix` came to."""

    changes: tuple[Change, ...]
    advice: tuple[Advice, ...]
    overrides: tuple[str, ...] = ()
    """The changes as a command line takes them, unquoted."""
    config: Config | None = None
    """With all changes; None where nothing is changed, or for a run of another trainer."""
    codes: tuple[str, ...] = ()
    """The findings that they answer; of two that move one rate the change itself names the second alone."""
    why_nothing: str = "no finding has a setting left to try"
    """Said where nothing is changed."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "changes": [
                {"key": one.key, "was": one.was, "now": one.now, "code": one.code, "remedy": one.remedy}
                for one in self.changes
            ],
            "advice": [
                {"code": one.code, "remedy": one.remedy, "passed_over": one.passed_over or None} for one in self.advice
            ],
        }


def fix(diagnosis: Diagnosis, load: Load, tried: Callable[[Finding], Sequence[Tried]]) -> Fix:
    """The configuration with a change for each warning and error that has one, causes before what they explain.

    Of each finding the first step that can be taken: one that changes something, that no graver finding has decided
    otherwise (of two learning rates on the same side the farther one is taken), that was not tried in vain, and with
    which the configuration still loads and is not refused. Where a change of the learning rate was tried in vain and
    nothing else is left, it is changed further by the same factor.

    Raises: ConfigError when the configuration does not load as it is.
    """
    config = load(())
    original, refused = config, _refused(config)
    overrides: list[str] = []
    codes: list[str] = []
    changes: list[Change] = []
    advice: list[Advice] = []
    for finding in diagnosis.findings:
        if finding.severity == "info":
            continue
        before, answered = tried(finding), False
        for remedy in _ladder(finding, config, before):
            passed_over = _why_not(finding, remedy, config, changes, before)
            if not remedy.config or (passed_over and not answered):
                advice.append(Advice(finding.code, remedy.summary, passed_over))
            if not remedy.config or passed_over or answered:
                continue
            asked = [f"{key}={yaml_value(value)}" for key, value in remedy.config.items()]
            try:
                changed = load([*overrides, *asked])
            except ConfigError as error:
                advice.append(Advice(finding.code, remedy.summary, f"refused: {_in_a_line(error)}"))
                continue
            if new := _refused(changed) - refused:
                advice.append(Advice(finding.code, remedy.summary, f"refused: {', '.join(sorted(new))}"))
                continue
            was, now = flatten(original), flatten(changed)
            changes = [one for one in changes if one.key not in remedy.config]
            changes += [
                Change(key, was.get(key), now[key], finding.code, remedy.summary, finding.cause)
                for key in remedy.config
            ]
            overrides, config, answered = [*overrides, *asked], changed, True
            codes.append(finding.code)
    kept = config if changes else None
    return Fix(tuple(changes), tuple(advice), tuple(overrides), kept, tuple(codes), _why_nothing(diagnosis))


def fix_elsewhere(diagnosis: Diagnosis) -> Fix:
    """The same for a run of another trainer, whose configuration is not known: settings in its words, and advice."""
    changes: list[Change] = []
    advice: list[Advice] = []
    for finding in diagnosis.findings:
        if finding.severity == "info":
            continue
        answered = False
        for remedy in finding.remedies:
            if not remedy.config:
                advice.append(Advice(finding.code, remedy.summary))
            elif not answered and not {one.key for one in changes} & set(remedy.config):
                answered = True
                changes += [
                    Change(key, None, value, finding.code, remedy.summary, finding.cause)
                    for key, value in remedy.config.items()
                ]
    return Fix(tuple(changes), tuple(advice), why_nothing=_why_nothing(diagnosis))


def _why_nothing(diagnosis: Diagnosis) -> str:
    if not diagnosis.findings:
        return "the doctor found no fault"
    if all(finding.severity == "info" for finding in diagnosis.findings):
        return "the doctor has remarks alone, and for a remark nothing is changed"
    if not any(one.config for finding in diagnosis.findings if finding.severity != "info" for one in finding.remedies):
        return "no setting that the doctor knows by name mends what was found"
    return "no finding has a setting left to try"


def _ladder(finding: Finding, config: Config, tried: Sequence[Tried]) -> Iterator[Remedy]:
    """Its remedies, then rates that go further than those which were tried in vain."""
    yield from finding.remedies
    was = flatten(config).get(_RATE)
    for remedy in finding.remedies:
        now = remedy.config.get(_RATE)
        if remedy.target != "trimtab" or not isinstance(now, int | float) or not isinstance(was, int | float):
            continue
        if now == was or not _in_vain(finding, remedy, tried):
            continue
        for power in range(2, 2 + MOST_STEEPER):
            rate = float(f"{was * (now / was) ** power:.1e}")
            verb = "lower" if now < was else "raise"
            yield Remedy(f"{verb} the learning rate further, to {rate:g}", "trimtab", {_RATE: rate})


def _why_not(
    finding: Finding, remedy: Remedy, config: Config, changes: Sequence[Change], tried: Sequence[Tried]
) -> str:
    """Why a remedy that sets something is passed over; "" where it is not."""
    if not remedy.config:
        return ""
    if remedy.target != "trimtab":
        return f"it is for {remedy.target}"
    settings = flatten(config)
    decided = next((one for one in changes if one.key in remedy.config and one.code != finding.code), None)
    if decided is not None and not _goes_further(decided, remedy):
        return f"{decided.key} is set for {decided.code}"
    if all(key in settings and settings[key] == value for key, value in remedy.config.items()):
        return "it is set so already"
    if one := _in_vain(finding, remedy, tried):
        return f"tried in vain: {one.where}"
    return ""


def _goes_further(decided: Change, remedy: Remedy) -> bool:
    """Whether a remedy sets nothing but the learning rate, and moves it the same way as was decided, and more."""
    now, was = remedy.config.get(_RATE), decided.was
    if len(remedy.config) > 1 or not isinstance(now, int | float) or not isinstance(was, int | float):
        return False
    return bool(now < decided.now < was or now > decided.now > was)


def _in_vain(finding: Finding, remedy: Remedy, tried: Sequence[Tried]) -> Tried | None:
    """Who tried this remedy, and found the same again; None where nobody did."""
    proposed = {key for one in (remedy, *finding.remedies) for key in one.config}
    afresh = {_section(key) for key in proposed if key.endswith(".name")}  # another variant brings keys of its own
    for one in tried:
        # Where other things differed, too, that run says nothing of this remedy.
        others = {key for key in one.settings if key not in proposed and _section(key) not in afresh}
        if finding.code not in one.still or others:
            continue
        if all(_reaches(one.settings, key, value) for key, value in remedy.config.items()):
            return one
    return None


def _reaches(settings: Mapping[str, Any], key: str, value: Any) -> bool:
    if key not in settings:
        return False
    theirs = settings[key]
    if isinstance(value, float) and isinstance(theirs, int | float):
        return abs(theirs - value) <= 0.05 * abs(value)  # rates are proposed in two digits
    return bool(theirs == value)


def _section(key: str) -> str:
    return key.rpartition(".")[0]


def _refused(config: Config) -> set[str]:
    return {one.code for one in lint(config) if one.severity == "refusal" and one.code not in config.lint.allow}


def _in_a_line(error: ConfigError) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())
