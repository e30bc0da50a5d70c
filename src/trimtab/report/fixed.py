"""A changed configuration as a file that says of each change why, and the same in lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from trimtab.config.dump import dump_config, yaml_value
from trimtab.doctor.finding import Diagnosis, Target
from trimtab.doctor.fix import Advice, Fix
from trimtab.report.words import TARGETS, value_text
from trimtab.runs.printable import printable

SIGN = "# Changed by trimtab doctor: "
"""How a file begins that may be written over."""
_WIDTH = 100
_OF_OBJECTS = (
    "The run was begun from Python objects, which no setting names: `trimtab train` of this file would build others in "
    "their place, and train something else. Train it"
)


def fixed_file(fix: Fix, diagnosis: Diagnosis, target: Target, objects: str = "") -> str:
    """YAML. Of a run of ours the whole configuration, which loads; of another trainer's its settings that change.

    Above each change stands which finding it answers, what was there, and why; at the top, what no setting does.
    `objects` is how it is trained where the run was begun from Python objects, which no setting names.
    """
    lines = [f"{SIGN}{printable(diagnosis.run)}"]
    if objects:
        lines += [*_comment(_OF_OBJECTS), f"# {objects}", "#"]
    lines += _comment(diagnosis.summary)
    if advice := list(_advice(fix.advice)):
        lines += [
            "#",
            "# Besides, or instead:",
            *(line for one in advice for line in _comment(one, "#   - ", "#     ")),
        ]
    lines.append("")
    notes = _notes(fix)
    if fix.config is not None:
        return "\n".join([*lines, dump_config(fix.config, notes)])
    if fix.changes:
        lines += _comment(f"Settings in {TARGETS[target]}; all others stay as they are.")
    for one in fix.changes:
        lines += [*(line for told in notes[one.key] for line in _comment(told)), f"{one.key}: {yaml_value(one.now)}"]
    return "\n".join(lines) + "\n"


def render_fix(fix: Fix, path: str | None) -> str:
    """What is changed, and what was not and why; `path` is where it was written."""
    if not fix.changes:
        none = ", and no file is written" if path is None else ""
        lines = [f"nothing is changed{none}: {fix.why_nothing}"]
    else:
        where = "" if path is None else f", in {printable(path)}"
        lines = [f"{len(fix.changes)} setting{'s' if len(fix.changes) > 1 else ''} changed{where}:"]
    for one in fix.changes:
        was = "" if one.was is None else f"  (was {printable(value_text(one.was), limit=60)})"
        lines.append(f"  {one.key}={printable(value_text(one.now))}{was}  for {one.code}: {printable(one.remedy)}")
    if told := list(_advice(fix.advice)):
        lines.append("besides, or instead:")
        for text in told:
            lines += textwrap.wrap(printable(text), _WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join(lines)


def _notes(fix: Fix) -> dict[str, list[str]]:
    """What stands above each setting: the finding, the remedy, what was there; and why, once for each remedy."""
    notes: dict[str, list[str]] = {}
    told: set[tuple[str, str]] = set()
    for one in fix.changes:
        was = "" if one.was is None else f" (was {yaml_value(one.was)})"
        notes[one.key] = [f"{one.code}: {one.remedy}{was}"]
        if (one.code, one.remedy) not in told:
            notes[one.key].append(f"because {one.why}")
        told.add((one.code, one.remedy))
    return notes


def _advice(advice: tuple[Advice, ...]) -> Iterator[str]:
    for one in advice:
        yield f"{one.code}: {one.remedy}" + (f" [passed over: {one.passed_over}]" if one.passed_over else "")


def _comment(text: str, first: str = "# ", later: str = "# ") -> list[str]:
    return textwrap.wrap(printable(text), _WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False)
