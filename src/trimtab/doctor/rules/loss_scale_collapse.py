"""loss-scale-collapse: the fp16 loss scale falls to its floor, or far below its level, and updates are lost.

Looks for: a loss scale that, after the first update that was made, falls to 1/256 of its highest value since then or
    less, or that lies at its floor of 1 while updates are skipped. The fall at the very start, which finds the scale,
    counts for nothing.
Why it matters: each fall is a lost update, and at a low scale small gradients are zero in fp16: the run then stands
    still, or ends when nothing is left to lower.
Evidence: from where to where the scale fell, and how many updates were lost meanwhile.
Remedy: bf16, which needs no scale; else a lower rate or clipping, as gradients that overflow at a scale of 1 are above
    65,504.
False alarms: none known; a scale that is halved now and then, as it is meant to be, stays within a factor of 4.
Source: own; Micikevicius et al. 2018, arXiv 1710.03740, section 3.2 for what the scale is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding
from trimtab.doctor.remedies import brain_float, lower_rate

FALLEN: Final = 256.0
FLOOR: Final = 1.0


def check(case: Case) -> Iterator[Finding]:
    """An error where the run ended at the floor or still lies there, else a warning."""
    scales, skipped = case.history.get("loss_scale"), case.history.get("skipped")
    if scales is None or case.setting("training.precision.scaling") == "static" or len(scales.mean) == 0:
        return
    lowest, highest, ends = scales.minimum, scales.maximum, scales.steps
    lost = np.interp(ends, skipped.steps, skipped.mean) if skipped is not None and len(skipped.mean) else None
    made = np.flatnonzero(lost < 1.0) if lost is not None else np.arange(len(ends))
    # A bucket of several steps may hold the search for the scale, and what follows.
    begin = min(int(made[0]) + (scales.width > 1), len(ends) - 1) if len(made) else 0
    if lost is None and lowest[found := int(np.argmin([*(np.diff(lowest) < 0), False]))] > FLOOR * FALLEN:
        begin = found  # halved from the first row on, until updates were made
    peaks = np.maximum.accumulate(highest[begin:])
    low = (lowest[begin:] <= peaks / FALLEN) & (peaks > FLOOR)
    if lost is not None:
        low |= (lowest[begin:] <= FLOOR) & (lost[begin:] > 0.0)
    if not low.any():
        return
    first = begin + int(np.flatnonzero(low)[0])
    peak, least = float(peaks[first - begin]), float(lowest[first:].min())
    onset, last = int(ends[first]), int(ends[-1])
    share = 0.0 if lost is None else float(lost[first:].mean())
    stays = bool(lowest[-1] <= FLOOR) or bool(low[-1])
    ended = case.history.ended
    grave = stays and (share > 0.1 or (ended is not None and ended.status == "failed"))
    floor = ", its floor" if least <= FLOOR else ""
    yield Finding(
        "loss-scale-collapse",
        "error" if grave else "warning",
        0.95,
        onset,
        f"the fp16 loss scale fell from {peak:g} to {least:g}{floor}, from step {onset:,} on, and "
        f"{100 * share:.0f} % of the updates since were lost",
        (
            Evidence(
                "loss_scale", (onset, last), least, peak, f"the loss scale is {least:g} at its lowest, after {peak:g}"
            ),
        ),
        remedies=(
            brain_float(case),
            lower_rate(case),
        ),
    )
