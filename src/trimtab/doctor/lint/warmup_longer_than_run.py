"""warmup-longer-than-run: the learning rate still rises when the run ends.

Looks for: a warm-up of as many steps as the run, or more.
Why: the full rate is reached in the last step or never, and the schedule's decay does not take place at all.
    Usually the run was shortened and the warm-up, given in steps, was not.
Evidence: `schedule.warmup` against `training.steps`.
Remedy: give the warm-up as a part of the run; 2 to 10 % is usual.
False alarms: range tests of the learning rate, which rise on purpose: lift it with `lint.allow`.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, rise_of, steps_of
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Refuses a warm-up that lasts to the end of the run."""
    steps = config.training.steps
    key, warmup = rise_of(config.schedule)
    if steps > 1 and steps_of(warmup, config.budget(facts)) >= steps:
        unit = {int: " steps", float: " of the run", str: ""}[type(warmup)]
        yield LintFinding(
            "warmup-longer-than-run",
            "refusal",
            key,
            f"a warm-up of {warmup}{unit} in a run of {steps} steps",
            "the full rate would be reached in the last step or never, and no decay follows",
            f"{key}=0.05",
            "own",
        )
