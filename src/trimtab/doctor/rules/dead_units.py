"""dead-units: units whose output is zero for every input.

Looks for: in the examinations of a run, units that give nothing at any position of the probe batch: half of all, or
    nine tenths of a layer, in the newest two examinations, and more by a fifth than in the first one where that was of
    a model that had hardly begun. Without examinations, in the gradients: a matrix that gets none while its own bias
    gets one is given nothing but zeros, and where no gradient reaches the matrices before it either, their units are
    dead.
Why it matters: a unit that gives nothing gets no gradient and does not come back; the model is as much smaller.
Evidence: the share of dead units by layer, when it rose, and how many values lie where the function is flat.
Remedy: a lower rate or a warm-up (one large step throws biases below what inputs reach), but where no more die as the
    run goes on, no biases first; GELU, SiLU or a leaky ReLU; an initialization that keeps the scale.
False alarms: the probe batch is small, so that a unit for what is rare looks dead. Large language models have layers
    whose units are mostly silent, and are sound: one such layer is a remark, where the loss falls. A matrix behind a
    gate that begins at zero gets no gradient at first: all windows to the end are asked for.
Source: Lu et al. 2019, arXiv 1903.06733 (dying ReLU); Voita et al. 2023, arXiv 2309.04827 (silent units of sound
    models); own thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.remedies import longer_warmup, lower_rate
from trimtab.runs.printable import printable

MANY: Final = 0.5
"""Of all units."""
LAYER: Final = 0.9
"""Of a layer's units."""
MORE: Final = 0.2
FEWEST_WINDOWS: Final = 5
"""Of gradients, to the end of the run, and a fifth of all."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning for many units in all; a remark for one layer."""
    if (found := _without_input(case)) is not None:
        yield found
    elif case.history.examined.values("dead_fraction")[0].size:
        yield from _examined(case)
    else:
        yield Withheld("dead-units", ("layer/*/dead_fraction",))


def _without_input(case: Case) -> Finding | None:
    """What the gradients say: a matrix is given zeros alone, and those before it get nothing."""
    steps, names, norms_WL = case.history.layers.values("grad_norm")
    if len(steps) < FEWEST_WINDOWS:
        return None
    at = {name: index for index, name in enumerate(names)}
    pairs = [(at[name], at[bias]) for name in names if (bias := name.removesuffix("weight") + "bias") in at]
    pairs = [(weight, bias) for weight, bias in pairs if weight != bias]
    if not pairs:
        return None
    weights, biases = map(list, zip(*pairs, strict=True))
    still_WP, still_bias_WP = norms_WL[:, weights] == 0, norms_WL[:, biases] == 0
    hungry_WP = still_WP & (norms_WL[:, biases] > 0)
    dead_WP = still_WP & still_bias_WP
    there_W = hungry_WP.any(axis=1) & dead_WP.any(axis=1)
    first = len(steps) - int(np.argmin(there_W[::-1])) if not there_W.all() else 0
    if len(steps) - first < max(FEWEST_WINDOWS, len(steps) / 5):
        return None
    hungry, dead = hungry_WP[first:].all(axis=0), dead_WP[first:].all(axis=0)
    if not (hungry.any() and dead.any()):
        return None
    onset = int(steps[first - 1]) if first else 1
    fed = printable(names[weights[int(np.argmax(hungry))]], limit=60)
    of = printable(names[weights[int(np.flatnonzero(dead)[-1])]], limit=60)
    return Finding(
        "dead-units",
        "warning",
        0.9,
        onset,
        f"nothing but zeros goes into {fed.removesuffix('.weight')}: the units before it give 0 for every input",
        (
            Evidence(
                "layer/*/grad_norm",
                (onset, int(steps[-1])),
                0.0,
                None,
                f"from step {onset:,} on the gradient of {fed} is exactly zero in all {len(steps) - first} windows, "
                f"and that of its bias is not; to {int(dead.sum())} of {len(pairs)} matrices and their biases, as to "
                f"{of}, no gradient comes at all",
            ),
        ),
        remedies=tuple(_remedies(case, no_more_die=first == 0, from_the_first=first == 0)),
    )


def _examined(case: Case) -> Iterator[Finding]:
    """What examinations say."""
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
        f"{mean:.0%} of the units give nothing for any input, and get no gradient"
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


def _remedies(case: Case, *, no_more_die: bool, from_the_first: bool = False) -> Iterator[Remedy]:
    if no_more_die and case.setting("model.bias") is True:  # they may have begun so
        yield Remedy("no biases, so that none can hold a unit down", "trimtab", {"model.bias": False})
    if from_the_first:
        yield Remedy("begin with biases of 0 and weights that keep the scale (He, Xavier): these units began dead")
    else:
        yield lower_rate(case)
        yield from longer_warmup(case)
    if case.target == "trimtab" and case.setting("model.activation") == "relu_squared":
        yield Remedy("GELU, which is nowhere flat above its dip", "trimtab", {"model.activation": "gelu"})
    else:
        yield Remedy("GELU, SiLU or a leaky ReLU, which pass a gradient below zero")
