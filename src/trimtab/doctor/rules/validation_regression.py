"""validation-regression: the validation loss is worse than a baseline's, by more than chance.

Looks for: evaluations that were compared sample by sample with a baseline (`evaluation.baseline`), whose whole interval
    lies above it: beside the run's own best, the last two evaluations, or the last one of a run that is over and kept
    those weights; beside another run, the last evaluation of a run that is over.
Why it matters: two losses that differ in the third digit may be equal or not, and the eye cannot tell; the same samples
    can.
Evidence: the difference to the baseline, and the lower end of its 95 % interval by a paired bootstrap.
Remedy: the weights of the best checkpoint; beside another run, what was changed since.
False alarms: one evaluation in forty, where nothing is worse.
Source: Koehn 2004, EMNLP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.runs import format

CODE: Final = "validation-regression"
_METRIC: Final = "validation/loss_over_baseline"


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark where the run went back to its best weights by itself."""
    lows, means = case.evaluated(f"{_METRIC}_low"), case.evaluated(_METRIC)
    if lows is None or means is None or not len(lows.steps):
        return
    ended, beside_run = case.history.ended, case.setting("evaluation.baseline.name") == "run"
    worse = lows.mean > 0.0
    streak = len(worse) if worse.all() else int(np.argmin(worse[::-1]))
    if streak < (1 if ended is not None else 2) or (beside_run and ended is None):
        return
    first, last = int(lows.steps[-streak]), int(lows.steps[-1])
    mean, low = float(means.mean[-1]), float(lows.mean[-1])
    what = "another run's" if beside_run else "its own best so far"
    went_back = not beside_run and ended is not None and ended.restored_step is not None
    remedy = "see what was changed since the run that it is compared with: trimtab compare"
    if not beside_run:
        remedy = "take the weights of the best checkpoint, not the last ones"
    above = f"{format.decimal(mean)} above {what} on the same samples"
    told = f"{above}, at least {format.decimal(low)} with 95 % confidence"
    yield Finding(
        CODE,
        "info" if went_back else "warning",
        0.95,
        first,
        f"the validation loss is significantly worse than {what}, by {format.decimal(mean)}"
        + ("; the run went back to its best weights" if went_back else ""),
        (Evidence(f"{_METRIC}_low", (first, last), low, 0.0, told),),
        remedies=() if went_back else (Remedy(remedy),),
    )
