"""Which metric broke first: when each left its course around a finding's onset, in order, and how sure that is.

Each metric is watched by a one-sided cumulative sum (Page 1954, Biometrika 41: 100-115): values above the course that
they had (their trailing median; of what grows in sound runs, too, the line through the values before where that lies
higher), in units of the noise of the values before, are summed less an allowance of 1. The sum leaves 0 where the
break begins at the earliest, and passes 8 where it is certain. So a break is a span of steps, and of two metrics one
is first only where its span ends before the other's begins; a metric that is measured seldom has a long span.
What broke first need not be the cause: it may be the most sensitive, or the most often measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.codes import CODES
from trimtab.doctor.finding import SEVERITIES, Break, Diagnosis, Finding
from trimtab.doctor.reading.curves import local_noise, trailing_median
from trimtab.runs.history import Series

Direction = Literal["up", "down"]
LEARNING: Final[tuple[tuple[str, Direction], ...]] = (
    ("train/loss", "up"),
    ("validation/loss", "up"),
    ("train/accuracy", "down"),
    ("validation/accuracy", "down"),
    ("grad_norm", "up"),
    ("loss_scale", "down"),
)
"""Metrics of a run that learns, and the way that is bad."""
MACHINE: Final[tuple[tuple[str, Direction], ...]] = (
    ("step_seconds", "up"),
    ("data_seconds", "up"),
    ("tokens_per_second", "down"),
    ("memory_bytes", "up"),
)
"""Those of its machine, which have an order of their own."""
OF_LAYERS: Final = ("grad_norm", "activation_rms", "update_ratio", "dead_fraction", "weight_norm")
DRIFTS: Final = ("grad_norm", "memory_bytes", *OF_LAYERS)
"""Metrics that grow in sound runs, too: of these only a course that bends is a break, and
only where it leads so many times as high."""
TIMES: Final = 1.5
ALLOWANCE: Final = 1.0
CERTAIN: Final = 8.0
LEAST: Final = 0.01
"""Of the whole range: noise below that is taken for so much."""
ALIKE: Final = 0.2
"""Part of the layers that must break at about the same time."""
MOST: Final = 4.0
"""Noises that one value counts at most: a single one makes no break."""
BEFORE: Final = 0.15
AFTER: Final = 0.1
"""Parts of the run before and after the onset in which breaks belong to it."""
FEWEST: Final = 8
JUMPED: Final = 1.5
"""So many times the rate before, after a warm-up: it was raised."""

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


def with_order(case: Case, diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis with the order in which metrics broke, where its first finding is a warning or worse and begins
    after the start."""
    lead = next(iter(diagnosis.findings), None)
    if lead is None or SEVERITIES.index(lead.severity) == 0 or lead.onset_step <= 1:
        return diagnosis
    of_machine = {name for name, _ in MACHINE} & {*CODES[lead.code].signals, *(one.metric for one in lead.evidence)}
    order = order_of(case, lead.onset_step, of_machine=bool(of_machine))
    return replace(diagnosis, order=tuple(_as_found(one, lead) for one in order))


def _as_found(one: Break, lead: Finding) -> Break:
    """A break of the metric that the finding begins with, of which its onset is a part: one event has one beginning."""
    is_same = lead.evidence and lead.evidence[0].metric == one.metric and one.direction != "not finite"
    if not is_same or one.latest < lead.onset_step:
        return one
    return replace(one, earliest=min(one.earliest, lead.onset_step))


def order_of(case: Case, onset: int, *, of_machine: bool = False) -> tuple[Break, ...]:
    """What broke around the step `onset`, the earliest first: of what is learned, or of the machine."""
    total = max(case.planned_steps, case.history.last_step)
    first, last = onset - BEFORE * total, onset + AFTER * total
    found = [one for one in _breaks(case, of_machine=of_machine) if one.latest >= first and one.earliest <= last]
    by_metric: dict[str, Break] = {}
    for one in sorted(found, key=lambda one: (one.latest, one.earliest)):
        by_metric.setdefault(one.metric.rsplit("/", 1)[-1] if one.metric.startswith("layer/") else one.metric, one)
    return tuple(sorted(by_metric.values(), key=lambda one: (one.earliest, one.latest, one.metric)))


def _breaks(case: Case, *, of_machine: bool) -> Iterator[Break]:
    for metric, direction in MACHINE if of_machine else LEARNING:
        series = case.evaluated(metric) if metric.startswith("validation/") else case.history.get(metric)
        if series is not None:
            steps, values = series.finite()
            yield from breaks_of(metric, steps, values, direction)
            yield from _not_finite(metric, series)
    if of_machine:
        return
    yield from _raised(case.history.get("learning_rate"))
    for metric in OF_LAYERS:
        if metric == "grad_norm" and case.history.has("grad_norm"):
            continue  # that of the whole is measured at each step, and that of some layer breaks by chance
        yield from _of_layers(case, metric)


def _of_layers(case: Case, metric: str) -> Iterator[Break]:
    """Breaks of several layers at about the same time: of many layers some one seems to break by chance."""
    steps, names, values_WL = case.history.layers.values(metric)
    found: list[Break] = []
    for name, column in zip(names, values_WL.T, strict=True):
        there = np.isfinite(column)
        found += breaks_of(f"layer/{name}/{metric}", steps[there], column[there], "up")
    found.sort(key=lambda one: one.latest)
    width = 3 * int(np.median(np.diff(steps))) if len(steps) > 1 else 0
    for one in found:
        near = {other.metric for other in found if abs(other.latest - one.latest) <= width}
        if len(near) >= max(2.0, ALIKE * len(names)):
            yield one


def breaks_of(metric: str, steps: Steps, values: Floats, direction: Direction) -> Iterator[Break]:
    """Every time that a metric leaves its course the bad way, and has stayed there long enough to be certain."""
    if len(values) < FEWEST:
        return
    sign = 1.0 if direction == "up" else -1.0
    positive = bool((values > 0).all()) and float(values.max()) > 30 * float(np.median(values))
    course = sign * (np.log(values) if positive else values)
    width = max(5, len(values) // 20)
    level, noise = trailing_median(course, width), local_noise(course, 2 * width)
    least = LEAST * float(np.ptp(course)) + 1e-300
    drifts = metric.rsplit("/", 1)[-1] in DRIFTS
    total, begun, frozen, slope = 0.0, 0, 0.0, 0.0
    for index in range(max(4, len(values) // 50), len(values)):
        if total == 0.0:
            begun = index
            frozen = float(level[index])
            if drifts:
                frozen, slope = _course_before(course[max(0, index - 2 * width) : index], frozen)
        usual = frozen + slope * (index - begun)
        excess = min((float(course[index]) - usual) / max(float(noise[begun]), least), MOST)
        total = max(0.0, total + excess - ALLOWANCE)
        if total > CERTAIN:
            recent = float(np.median(values[max(begun, index - 2) : index + 1]))
            if not drifts or recent > TIMES * float(np.median(values[max(0, begun - width) : begun])):
                yield Break(metric, int(steps[begun - 1]) + 1, int(steps[index]), direction)
            total = 0.0


def _course_before(values: Floats, level: float) -> tuple[float, float]:
    """Where the course of `values` leads, and its slope: none where it falls, as what falls may flatten."""
    if len(values) < 4:
        return level, 0.0
    at = np.arange(len(values)) - (len(values) - 1) / 2
    slope = max(float((at * values).sum() / (at * at).sum()), 0.0)
    return max(level, float(values.mean()) + slope * (len(values) + 1) / 2), slope


def _not_finite(metric: str, series: Series) -> Iterator[Break]:
    if (step := series.first_bad_step) is not None:
        yield Break(metric, step, step, "not finite")


def _raised(rates: Series | None) -> Iterator[Break]:
    """Where the rate jumped, having been there: a setting, known to the step."""
    if rates is None:
        return
    steps, values = rates.finite()
    for index in range(3, len(values)):
        if values[index] > JUMPED * values[index - 1] > 0 and values[index - 1] >= 0.05 * values[:index].max():
            yield Break("learning_rate", int(steps[index]), int(steps[index]), "up")


def told_order(order: tuple[Break, ...]) -> list[tuple[Break, str]]:
    """Each break, and how it stands to the one before: "first", "then", or "at about the same time"."""
    told: list[tuple[Break, str]] = []
    reached = 0
    for one in order:
        if not told:
            how = "first"
        elif one.earliest > reached:
            how = "then"
        else:
            how = "at about the same time"
        told.append((one, how))
        reached = max(reached, one.latest)
    return told
