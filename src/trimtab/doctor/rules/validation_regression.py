"""validation-regression: the validation loss is worse than a baseline's, by more than chance.

Looks for: evaluations that were compared sample by sample with a baseline (`evaluation.baseline`), of the main set or a
    further one, whose whole interval lies above it: beside the run's own best, the last two evaluations, or the last
    one of a run that is over and kept those weights; beside another run, the last evaluation of a run that is over.
Why it matters: two losses that differ in the third digit may be equal or not, and the eye cannot tell; the same samples
    can.
Evidence: the difference to the baseline, and the lower end of its 95 % interval by a paired bootstrap.
Remedy: the weights of the best checkpoint; beside another run, what was changed since.
False alarms: one evaluation in forty of each set, where nothing is worse; a further set of another kind of text, which
    a model that is tuned away from it is meant to lose.
Source: Koehn 2004, EMNLP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.runs import format

CODE: Final = "validation-regression"
_METRIC: Final = re.compile(r"validation/(?:[^/@]+/)?loss_over_baseline_low")


def check(case: Case) -> Iterator[Finding]:
    """One for all sets: a warning; a remark where the run went back to its best weights by itself."""
    ended, beside_run = case.history.ended, case.setting("evaluation.baseline.name") == "run"
    if beside_run and ended is None:
        return
    names = sorted((name for name in case.history.series if _METRIC.fullmatch(name)), key=lambda name: name.count("/"))
    worse = [one for name in names if (one := _worse(case, name, 1 if ended is not None else 2)) is not None]
    if not worse:
        return
    what = "another run's" if beside_run else "its own best so far"
    went_back = not beside_run and ended is not None and ended.restored_step is not None
    remedy = "see what was changed since the run that it is compared with: trimtab compare"
    if not beside_run:
        remedy = "take the weights of the best checkpoint, not the last ones"
    first, more = worse[0], [one.of_set for one in worse[1:]]
    of_set = f" of the set {first.of_set}" if first.of_set else ""
    yield Finding(
        CODE,
        "info" if went_back else "warning",
        0.95,
        min(one.steps[0] for one in worse),
        f"the validation loss{of_set} is significantly worse than {what}, by {format.decimal(first.mean)}"
        + (f"; so is that of {', '.join(more)}" if more else "")
        + ("; the run went back to its best weights" if went_back else ""),
        tuple(
            Evidence(
                one.metric,
                one.steps,
                one.low,
                0.0,
                f"{format.decimal(one.mean)} above {what} on the same samples, at least {format.decimal(one.low)} with "
                "95 % confidence",
            )
            for one in worse
        ),
        remedies=() if went_back else (Remedy(remedy),),
    )


class _Worse(NamedTuple):
    """A set whose last evaluations lie above the baseline."""

    metric: str
    of_set: str
    """Its name; "" for the main set."""
    steps: tuple[int, int]
    mean: float
    low: float


def _worse(case: Case, metric: str, least: int) -> _Worse | None:
    """What is worse in `least` last evaluations or more."""
    lows, means = case.evaluated(metric), case.evaluated(metric.removesuffix("_low"))
    if lows is None or means is None or not len(lows.steps):
        return None
    worse = lows.mean > 0.0
    streak = len(worse) if worse.all() else int(np.argmin(worse[::-1]))
    if streak < least:
        return None
    of_set = metric.removeprefix("validation/").rpartition("/")[0]
    steps = int(lows.steps[-streak]), int(lows.steps[-1])
    return _Worse(metric, of_set, steps, float(means.mean[-1]), float(lows.mean[-1]))
