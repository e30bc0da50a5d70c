"""patience-never: early stopping cannot fire.

Looks for: a patience of as many evaluations as the run has, or more.
Why: the first evaluation is always the best so far, so at least one more than `patience` is needed: the option
    has no effect, while its user may rely on it. A note, not a warning: all steps are done, and the patience may
    be that of a preset, which is meant for a longer run.
Evidence: `stopping.patience` against the evaluations at every `evaluation.every` steps and at the end.
Remedy: less patience or more evaluations; or `stopping.name=none`, which says what happens.
False alarms: settings that are shared by runs of different length.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, PatienceStopping
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """A note when patience is at least the number of evaluations."""
    num_evaluations = -(-config.training.steps // config.evaluation.every)
    if isinstance(config.stopping, PatienceStopping) and config.stopping.patience >= num_evaluations:
        from trimtab.runs import format  # which loads numpy: a configuration is checked without

        yield LintFinding(
            "patience-never",
            "info",
            "stopping.patience",
            f"a patience of {format.counted(config.stopping.patience, 'evaluation')} in a run that has "
            f"{num_evaluations}",
            "The run does all its steps: early stopping cannot take effect",
            f"stopping.patience={num_evaluations - 1}" if num_evaluations > 1 else "stopping.name=none",
            "own",
        )
