"""input-bound: steps wait for data.

Looks for: the part of a step's time that is spent waiting for the next batch, over all steps but the first.
Why it matters: the device stands idle for as long; nothing else makes a run faster until this is mended.
Evidence: seconds waited against seconds of the steps, summed, so that a rare long wait counts for what it costs.
Remedy: prepare more batches ahead or in more workers, tokenize before training, store the data nearer.
False alarms: a first epoch that fills a cache; it shows only as long as it lasts. Of a model whose steps take
    milliseconds a few waits are a large part: with less than two seconds of them it is a remark.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.medians import median
from trimtab.doctor.remedies import change
from trimtab.runs import format
from trimtab.runs.history import Series

GRAVE, WORTH_SAYING = 0.25, 0.1
MOST = 0.5
"""Of the time: so much is no matter of a few steps, however rare the waits are."""
SELDOM, LONG = 0.05, 2.0
"""Of a usual step: waits of less are seldom. Then so many seconds of them in all are worth a warning."""


def check(case: Case) -> Iterator[Finding]:
    """A warning when a quarter of the time goes by waiting; a remark from a tenth on."""
    waited, lasted = case.history.get("data_seconds"), case.history.get("step_seconds")
    assert waited is not None
    assert lasted is not None
    if len(waited) != len(lasted) or len(waited) < 8:
        return
    skip = max(2, len(waited) // 20)
    whole, part = (float(series.columns.total[skip:].sum()) for series in (lasted, waited))
    if 0 <= part < 0.99 * WORTH_SAYING * whole:
        return  # as most often, without what follows
    waits, steps = _totals(waited)[skip:], _totals(lasted)[skip:]
    whole = float(steps.sum())
    part = float(waits.sum()) / whole if whole > 0 else 0.0
    if part < WORTH_SAYING or part > 1.0:  # more than the whole: the two are not in the same unit
        return
    begin, end = int(waited.first_steps[skip]), int(waited.steps[-1])
    usual = median(waits / np.maximum(steps, 1e-12))
    yield Finding(
        "input-bound",
        "warning" if part >= GRAVE and (part >= MOST or usual >= SELDOM or float(waits.sum()) >= LONG) else "info",
        0.95 if usual >= GRAVE or part >= MOST else 0.8,
        int(waited.first_steps[0]),
        f"{100 * part:.0f} % of the time of training goes by waiting for data",
        (
            Evidence(
                "data_seconds",
                (begin, end),
                part,
                WORTH_SAYING,
                f"{format.duration(float(waits.sum()))} of {format.duration(whole)} went by waiting for a batch, "
                f"{100 * usual:.0f} % of a usual step",
            ),
        ),
        remedies=(
            *_ahead(case),
            Remedy("tokenize and store the data before training, on a disk that is near"),
        ),
    )


def _ahead(case: Case) -> list[Remedy]:
    now = case.setting("data.prefetch")
    if isinstance(now, int) and now >= 8:
        return []
    return [change(case, "prepare more batches ahead", workers=8)]


def _totals(series: Series) -> NDArray[np.float64]:
    """The sum of each bucket."""
    mean = series.mean
    return (mean if np.isfinite(mean).all() else np.nan_to_num(mean)) * (series.columns.samples - series.bad)
