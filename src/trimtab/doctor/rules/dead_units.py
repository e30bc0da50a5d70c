"""dead-units: units whose output is zero for every input.

Looks for: in the examinations of a run, feed-forward units that give nothing at any position of the probe batch: half
    of all, or nine tenths of a layer, in the newest two examinations, and more by a fifth than in the first one where
    that was of a model that had hardly begun.
Why it matters: a unit that gives nothing gets no gradient and does not come back; the model is as much smaller.
Evidence: the share of dead units by layer, when it rose, and how many values lie where the function is flat.
Remedy: a lower rate or a warm-up (one large step throws biases below what inputs reach), but where no more die as the
    run goes on, no biases first; GELU, SiLU or a leaky ReLU; an initialization that keeps the scale.
False alarms: the probe batch is small, so that a unit for what is rare looks dead. Large language models have layers
    whose units are mostly silent, and are sound: one such layer is a remark, where the loss falls.
Source: Lu et al. 2019, arXiv 1903.06733 (dying ReLU); Voita et al. 2023, arXiv 2309.04827 (silent units of sound
    models); own thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.remedies import longer_warmup, lower_rate
from trimtab.runs.printable import printable

MANY: Final = 0.5
"""Of all units."""
LAYER: Final = 0.9
"""Of a layer's units."""
MORE: Final = 0.2


def check(case: Case) -> Iterator[Finding]:
    """A warning for many units in all; a remark for one layer."""
    steps, names, dead_EL = case.history.examined.values("dead_fraction")
    there = np.isfinite(dead_EL).any(axis=1) if len(names) else np.zeros(0, np.bool_)
    steps, dead_EL = steps[there], dead_EL[there]
    if not len(steps):
        return
    means_E = np.nanmean(dead_EL, axis=1)
    newest = dead_EL[-2:]
    worst = int(np.nanargmax(newest[-1]))
    mean, layer = float(means_E[-2:].min()), float(newest[:, worst].min())
    if mean < MANY and layer < LAYER:
        return
    grew = float(means_E[-1] - means_E[0])
    begun = int(steps[0]) > 0.1 * case.planned_steps  # nothing is known of how it was
    if grew < MORE and not begun and mean < MANY:
        return
    grave = mean >= MANY
    level = 0.5 * float(means_E[-1]) if grave else 0.5 * layer
    high = np.flatnonzero((means_E if grave else dead_EL[:, worst]) >= level)
    first = int(high[0])
    onset = int(steps[first - 1]) if first else 1
    shown = sorted(zip(names, newest[-1].tolist(), strict=True), key=lambda one: -np.nan_to_num(one[1]))[:4]
    told = ", ".join(f"{printable(name, limit=60)} {share:.0%}" for name, share in shown)
    yield Finding(
        "dead-units",
        "warning" if grave else "info",
        0.85 if grave else 0.5,
        onset,
        f"{mean:.0%} of the feed-forward units give nothing for any input, and get no gradient"
        if grave
        else f"{layer:.0%} of the units of {printable(names[worst], limit=60)} give nothing for any input of the probe "
        "batch",
        (
            Evidence(
                "layer/*/dead_fraction",
                (onset, int(steps[-1])),
                float(means_E[-1]),
                float(means_E[0]) if len(steps) > 1 else 0.0,
                f"dead units by layer at step {int(steps[-1]):,}: {told}; {means_E[0]:.0%} of all at step "
                f"{int(steps[0]):,}, {means_E[-1]:.0%} at the end",
            ),
        ),
        remedies=tuple(_remedies(case, no_more_die=grew < MORE)),
    )


def _remedies(case: Case, *, no_more_die: bool) -> Iterator[Remedy]:
    if no_more_die and case.setting("model.bias") is True:  # they may have begun so
        yield Remedy("no biases, so that none can hold a unit down", "trimtab", {"model.bias": False})
    yield lower_rate(case)
    yield from longer_warmup(case)
    if case.target == "trimtab" and case.setting("model.activation") == "relu_squared":
        yield Remedy("GELU, which is nowhere flat above its dip", "trimtab", {"model.activation": "gelu"})
    else:
        yield Remedy("GELU, SiLU or a leaky ReLU, which pass a gradient below zero")
