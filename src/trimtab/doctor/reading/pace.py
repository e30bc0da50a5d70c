"""How long a step takes, and whether it takes longer and longer or has more to do."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.trends import Parts, parts_of
from trimtab.runs.history import Series
from trimtab.runs.importers.names import words
from trimtab.runs.importers.vocabulary import SIDES, SPEEDS

FEWEST: Final = 48
FEWEST_MEANS, FEWEST_SURE = 10, 18
"""Of a log that has a value for many steps; with fewer than two for each of eight parts, and one to begin with, it is a
remark: so short a rise may be that of longer samples."""
GROWN: Final = 1.3
MEDIANS_STEADY: Final = 0.7
ONE_JUMP: Final = 0.6
"""Of the whole growth between two neighbouring parts: then it is a jump, and no decay."""
STEADY: Final = 0.9
TWICE: Final = 2.0
"""Times all before, in all that follow: something else began there, and did not end."""
_SIZES: Final = re.compile(
    r"^(?!.*(?:per_s(?:$|[_/])|sec|speed|throughput)).*(?:^|[_/])(?:len|lengths?|seqlen|size|resolution|horizon"
    r"|wpb|bsz|n?tokens|words|nodes|edges|frames|atoms)(?:$|[_/])"
)
"""Columns of how much there is to do in a step, or was up to it."""
STEADILY: Final = 0.65
"""Kendall's tau of all such values."""
GROWN_STEADILY: Final = 1.2
SLOWEST: Final = 1e-6
"""Tokens a second: fewer are another unit, or none."""
LONGER: Final = 1.1
"""Times what samples were at first."""
MOST_VALUES: Final = 200
"""That tau is taken of; of more their medians."""
BEYOND_CHANCE: Final = 3.3
"""Standard deviations that tau has without a trend."""


def fewer_tokens(case: Case) -> bool:
    """Whether fewer tokens are done in a second: samples that become longer have as many more of them."""
    done = Curve.of(case.history.get("tokens_per_second"))
    return done is not None and len(done) >= FEWEST_MEANS and parts_of(done, 4, skip=1).growth < 1 / GROWN_STEADILY


def stays_slower(medians: Parts) -> bool:
    """Whether from one of the parts on all are far slower than all before."""
    highest, lowest = np.maximum.accumulate(medians.levels), np.minimum.accumulate(medians.levels[::-1])[::-1]
    return bool((lowest[1:-1] > TWICE * highest[:-2]).any())


def waits_from_the_start(case: Case) -> bool:
    """Whether most of a step went by waiting for data in the first eighth already: then that is what is wrong."""
    waits, steps = case.history.get("data_seconds"), case.history.get("step_seconds")
    if waits is None or steps is None or len(waits) != len(steps) or len(waits) < FEWEST_MEANS:
        return False
    first = slice(1, max(3, len(waits) // 8))
    share = median(waits.mean[first] / np.maximum(steps.mean[first], 1e-12))
    return 0.5 < share <= 1.0


def grows_steadily(case: Case, curve: Curve, medians: Parts, skip: int) -> bool:
    """Whether the values of another trainer's log, each of many steps, lie above those before them nearly all."""
    if case.target == "trimtab" or medians.growth < GROWN_STEADILY or medians.steadiness < MEDIANS_STEADY:
        return False
    values = parts_of(curve, min(len(curve) - skip, MOST_VALUES), skip=skip)
    num = len(values.levels)
    chance = float(np.sqrt(2 * (2 * num + 5) / (9 * num * (num - 1))))
    return values.steadiness > max(STEADILY, BEYOND_CHANCE * chance) and medians.largest_jump <= ONE_JUMP


def waits_longer(case: Case, medians: Parts, skip: int) -> bool:
    """Whether it is the wait for data that grows, steadily."""
    waits = Curve.of(case.history.get("data_seconds"))
    if waits is None or len(waits) < FEWEST or medians.growth < GROWN or medians.steadiness < STEADY:
        return False
    parts = parts_of(waits, skip=skip)
    return parts.steadiness >= STEADY and float(np.ptp(parts.levels[[0, -1]])) > 0.5 * float(np.ptp(medians.levels))


def seconds(case: Case) -> Curve | None:
    """Seconds of a step, as if all had as many tokens; of a log that has a speed alone, what that makes."""
    seconds = Curve.of(case.history.get("step_seconds"))
    tokens = Curve.of(case.history.get("tokens_read")) or Curve.of(case.history.get("tokens"))
    if seconds is None:
        rate = Curve.of(case.history.get("tokens_per_second") or _speed(case))
        if rate is None or not (rate.values > SLOWEST).all():
            return None
        usual = 1.0 if tokens is None else tokens.median
        return Curve(rate.steps, usual / rate.values)
    if tokens is None or len(tokens) != len(seconds) or not (tokens.values > 0).all():
        return seconds
    return Curve(seconds.steps, seconds.values * tokens.median / tokens.values)


def _speed(case: Case) -> Series | None:
    """A column of another trainer's log that counts what is done in a second: samples, images, or it does not say."""
    for name in sorted(case.history.series):
        *rooms, last = name.removeprefix("user/").split("/")
        ours = all(SIDES.get(words(room), "train") == "train" for room in rooms)
        if name.startswith("user/") and words(last) in SPEEDS and ours:
            return case.history.get(name)
    return None


def has_more_to_do(case: Case) -> bool:
    """Whether a column of a foreign log tells that samples become longer, or pictures or batches larger."""
    for name, series in case.history.series.items():
        if name.startswith("user/") and _SIZES.search(name.lower()) is not None:
            size = Curve.of(series)
            if size is not None and len(size) > FEWEST_MEANS:
                if (np.diff(size.values) > 0).all() and size.values[-1] > size.values[0] * len(size) / 3:
                    size = Curve(size.steps[1:], np.diff(size.values) / np.diff(size.steps))  # it counts on
                parts = parts_of(size, min(8, len(size) // 2))
                if parts.growth > LONGER and parts.levels[-1] >= parts.levels.max():
                    return True
    return False
