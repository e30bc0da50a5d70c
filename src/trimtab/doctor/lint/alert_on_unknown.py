"""alert-on-unknown: an alert waits for a metric or a finding that does not exist.

Looks for: a rule of `alerts.rules` whose `when` names no metric that trimtab writes, or no code of the doctor.
Why: such a rule is never met, and its silence looks as if all were well.
Evidence: the rule; the tables of metrics and codes.
Remedy: the name that is nearest.
False alarms: a metric that a monitor or module of your own writes under another name than `user/…`.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.config.nearest import nearest_names
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Refuses each such rule."""
    if not config.alerts.rules:
        return
    # Only here: with them comes numpy, for which a configuration without rules does not wait.
    from trimtab.doctor.codes import CODES
    from trimtab.doctor.finding import SEVERITIES
    from trimtab.runs.metrics import METRICS, is_known

    for name, rule in config.alerts.rules.items():
        condition = rule.condition
        if condition.is_of_a_metric and not is_known(condition.subject):
            what, known = "metric", [one for one in METRICS if "<" not in one]
        elif condition.kind == "finding" and condition.subject not in (*CODES, *SEVERITIES, "any"):
            what, known = "code of the doctor", [*CODES]
        else:
            continue
        near = nearest_names(condition.subject, known)
        yield LintFinding(
            "alert-on-unknown",
            "refusal",
            "alerts.rules",
            f"{name}: {condition.subject!r} is no {what}"
            + (f"; did you mean {' or '.join(map(repr, near))}?" if near else ""),
            "the rule would never be met, which looks as if all were well",
            None,
            "own",
        )
