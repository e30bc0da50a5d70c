"""alert-on-unknown: an alert waits for a metric or a finding that does not exist.

Looks for: a rule of `alerts.rules` whose `when` names no metric that a training writes, or no code of the doctor. What
    is logged from a loop of one's own (`user/…`) and what several processes come to (`rank/…`, `ranks/…`) stands in
    records alone; what an examination measures is there only in a run that has one.
Why: such a rule is never met, and its silence looks as if all were well.
Evidence: the rule; the tables of metrics and codes; `logging.examine`.
Remedy: the name that is nearest; examinations.
False alarms: none known.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from trimtab.config import Condition, Config
from trimtab.config.nearest import nearest_names
from trimtab.doctor.lint.finding import LintFinding

_IN_RECORDS_ALONE: Final = ("rank/", "ranks/", "user/")


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Refuses each such rule."""
    for name, rule in config.alerts.rules.items():
        if (problem := _problem(rule.condition, config)) is None:
            continue
        text, known, fix = problem
        near = nearest_names(rule.condition.subject, known)
        yield LintFinding(
            "alert-on-unknown",
            "refusal",
            "alerts.rules",
            f"{name}: {rule.condition.subject!r} {text}"
            + (f"; did you mean {' or '.join(map(repr, near))}?" if near else ""),
            "the rule would never be met, which looks as if all were well",
            fix,
            "own",
        )


def _problem(condition: Condition, config: Config) -> tuple[str, list[str], str | None] | None:
    """Why it is never met, the names that may have been meant, and what mends it."""
    # Only here: with them comes numpy, for which a configuration without rules does not wait.
    from trimtab.doctor.codes import CODES
    from trimtab.doctor.finding import SEVERITIES
    from trimtab.runs.metrics import METRICS, rows_of

    if condition.kind == "finding" and condition.subject not in (*CODES, *SEVERITIES, "any"):
        return "is no code of the doctor", [*CODES], None
    if not condition.is_of_a_metric:
        return None
    rows = rows_of(condition.subject)
    if not rows:
        return "is no metric", [one for one in METRICS if "<" not in one], None
    told = [row for known, row in rows.items() if not known.startswith(_IN_RECORDS_ALONE)]
    if not told:
        return "is in records alone, and no metric that a training tells while it goes on", [], None
    steps = config.training.steps
    if all(row.window == "examination" for row in told) and not config.logging.examine.is_due_within(steps):
        fix = f"logging.examine.every={max(1, steps // 10)}"
        return "is measured by examinations, and this run has none", [], fix
    return None
