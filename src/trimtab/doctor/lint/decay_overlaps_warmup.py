"""decay-overlaps-warmup: warm-up and decay together are longer than the run.

Looks for: a `wsd` schedule whose warm-up and decay add up to more than all steps.
Why: the decay begins where the warm-up ends, so it is shorter than was asked for and nothing is stable.
Evidence: `schedule.warmup`, `schedule.decay` and `training.steps`.
Remedy: a decay of at most what the warm-up leaves; 0.02 and 0.2 of the run are usual.
False alarms: none known.
Source: own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, WsdSchedule, steps_asked, steps_of
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when a decay cannot be as long as it says."""
    steps, schedule = config.training.steps, config.schedule
    budget = config.budget(facts)
    if not isinstance(schedule, WsdSchedule):
        return
    warmup, decay = steps_of(schedule.warmup, budget), steps_asked(schedule.decay, budget)
    if warmup < steps < warmup + decay:
        # Rounded down, so that both fit.
        share = min(0.2, math.floor(100 * (steps - warmup) / steps) / 100)
        yield LintFinding(
            "decay-overlaps-warmup",
            "warning",
            "schedule.decay",
            f"{warmup} steps of warm-up and {decay} of decay in a run of {steps}",
            f"only {steps - warmup} steps of decay take effect, and none is at the full rate between",
            f"schedule.decay={share if share > 0 else steps - warmup}",
            "own",
        )
