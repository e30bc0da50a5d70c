"""Signs in the layers, as examinations measure them, that updates are too large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence
from trimtab.doctor.reading.unsteady import Sign

SWOLLEN = 1e3
"""Times its first size: what layers give back after training at a sound rate stays well below that."""


def growth(case: Case) -> Iterator[Sign]:
    """Weights that grow several-fold within the first tenth of the run."""
    steps, names, norms_WL = case.history.layers.values("weight_norm")
    if len(steps) < 4:
        return
    until = max(3, int(np.searchsorted(steps, 0.1 * case.planned_steps)))
    first, then = norms_WL[0], norms_WL[min(until, len(steps) - 1)]
    grown = [
        float(b / a)
        for name, a, b in zip(names, first, then, strict=True)
        if np.isfinite(a) and np.isfinite(b) and a > 0 and "norm" not in name and "bias" not in name
    ]
    end = int(steps[min(until, len(steps) - 1)])
    if grown and (factor := float(np.median(grown))) > 2.5:
        told = f"the weights of the median layer grew {factor:.1f}-fold by step {end:,}"
        yield 1.0 if factor < 5 else 1.5, Evidence("layer/*/weight_norm", (int(steps[0]), end), factor, 1.5, told)


def swells(case: Case) -> Iterator[Sign]:
    """What layers give back is a thousand times what it was at first: their weights were thrown, not trained."""
    steps, _, rms_WL = case.history.layers.values("activation_rms")
    if len(steps) < 4:
        return
    first, last = rms_WL[0], rms_WL[-1]
    there = np.isfinite(first) & np.isfinite(last) & (first > 0)
    if there.any() and (times := float(np.median(last[there] / first[there]))) > SWOLLEN:
        told = f"what the median layer gives back grew {times:,.0f}-fold by step {int(steps[-1]):,}"
        yield 1.5, Evidence("layer/*/activation_rms", (int(steps[0]), int(steps[-1])), times, SWOLLEN, told)
