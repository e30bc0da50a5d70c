"""dead-units: units whose output is zero for every input.

Looks for: in the examinations of a run, units that give nothing at any position of the probe batch: half of all, or
    nine tenths of a layer, in the newest two examinations, and more by a fifth than in the first one where that was of
    a model that had hardly begun. Without examinations, in the gradients: a matrix that gets none while its own bias
    gets one is given nothing but zeros, and where no gradient reaches the matrix before it either, its units are dead.
Why it matters: a unit that gives nothing gets no gradient and does not come back; the model is as much smaller.
Evidence: the share of dead units by layer, when it rose, and how many values lie where the function is flat.
Remedy: a lower rate or a warm-up (one large step throws biases below what inputs reach), but where no more die as the
    run goes on, no biases first; GELU, SiLU or a leaky ReLU; an initialization that keeps the scale.
False alarms: the probe batch is small, so that a unit for what is rare looks dead: of a module that sees a vector for
    each of eight rows nearly all units must. Large language models have layers whose units are mostly silent, and are
    sound: one such layer is a remark, where the loss falls. A matrix behind a gate that begins at zero gets no gradient
    at first: all windows to the end are asked for. Gradients that fade from matrix to matrix vanish.
Source: Lu et al. 2019, arXiv 1903.06733 (dying ReLU); Voita et al. 2023, arXiv 2309.04827 (silent units of sound
    models); own thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.remedies import longer_warmup, lower_rate
from trimtab.runs.printable import printable

MANY: Final = 0.5
"""Of all units."""
LAYER: Final = 0.9
"""Of a layer's units."""
MORE: Final = 0.2
NEARLY_ALL, ENOUGH = 0.95, 128
"""Of all units, where a batch shows so few positions that sparse units look dead; and positions that are enough."""
FEWEST_WINDOWS: Final = 5
"""Of gradients, to the end of the run, and a fifth of all."""
NOTHING: Final = 1e-4
USUAL: Final = 0.1
"""Norm of a matrix."""
FED: Final = 1e-2
"""Of the largest gradient of a bias."""


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
    of_weights_WP, of_biases_WP = norms_WL[:, weights], norms_WL[:, biases]
    nothing_P = _nothing(case, names, weights)
    hungry_WP: NDArray[np.bool_] = np.logical_and(of_weights_WP <= nothing_P * of_biases_WP, of_biases_WP > 0)
    # Where it fades from matrix to matrix, so does what goes into them.
    hungry_WP &= (of_biases_WP >= FED * np.nan_to_num(of_biases_WP).max(axis=1, keepdims=True)) | (nothing_P == 0.0)
    fed_W1 = np.where(hungry_WP, of_biases_WP, 0.0).max(axis=1, keepdims=True)
    dead_WP: NDArray[np.bool_] = np.maximum(of_weights_WP, of_biases_WP) <= nothing_P * fed_W1
    hungry_WP[:, 1:] &= ~dead_WP[:, 1:] & dead_WP[:, :-1]
    hungry_WP[:, :1] = False
    there_W: NDArray[np.bool_] = np.asarray(hungry_WP.any(axis=1))
    first = len(steps) - int(np.argmin(there_W[::-1])) if not there_W.all() else 0
    if len(steps) - first < max(FEWEST_WINDOWS, len(steps) / 5):
        return None
    hungry, dead = hungry_WP[first:].all(axis=0), dead_WP[first:].all(axis=0)
    if not hungry.any():
        return None
    at_hungry = int(np.argmax(hungry))
    part = float(np.max(of_weights_WP[first:, at_hungry] / of_biases_WP[first:, at_hungry]))
    zero, own = part == 0.0, float(np.median(of_biases_WP[first:, at_hungry]))
    little = "exactly zero" if zero else f"at most {part:.1g} of that of its bias"
    ever, none = ("nothing", "0") if zero else ("next to nothing", "as good as 0")
    onset = int(steps[first - 1]) if first else 1
    fed = printable(names[weights[at_hungry]], limit=60)
    of = printable(names[weights[at_hungry - 1]], limit=60)
    return Finding(
        "dead-units",
        "warning",
        0.9,
        onset,
        f"{ever} goes into {fed.removesuffix('.weight')}: the units before it give {none} for every input",
        (
            Evidence(
                "layer/*/grad_norm",
                (onset, int(steps[-1])),
                0.0,
                None,
                f"from step {onset:,} on the gradient of {fed} is {little} in all {len(steps) - first} windows, and "
                f"{'none' if zero else 'hardly any'} comes to {int(dead.sum())} of {len(pairs)} matrices and their "
                f"biases, as to {of}; that of its own bias is {own:.2g}",
            ),
        ),
        remedies=tuple(_remedies(case, no_more_die=first == 0, from_the_first=first == 0)),
    )


def _nothing(case: Case, names: Sequence[str], weights: Sequence[int]) -> NDArray[np.float64]:
    """How little of the gradient of its bias that of each matrix may be, to say that nothing goes in [P]: exactly 0,
    but for matrices that are known to be of usual size, as what small ones hand on is small, too."""
    _, known, norms_WL = case.history.layers.values("weight_norm")
    if not norms_WL.size:
        return np.zeros(len(weights))
    size = {name: float(np.nanmin(norms_WL[:, at])) for at, name in enumerate(known)}
    usual = [size.get(names[at], 0.0) > USUAL and "norm" not in names[at] for at in weights]
    return np.where(usual, NOTHING, 0.0)


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
    few = _sees_few(case)
    grave = mean >= (NEARLY_ALL if few else MANY)
    if not grave and layer < LAYER:
        return
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


def _sees_few(case: Case) -> bool:
    """Whether a module of one's own may see a single vector of each row of the probe batch: of eight, sound units that
    speak for one row in twenty are mostly silent."""
    answers_rows = case.fact("task") in ("classification", "regression", "contrastive")
    rows = case.setting("logging.examine.sequences") or min(case.number("sequences_per_step") or 8.0, 8.0)
    is_own = bool(case.fact("given")) or case.setting("model.name") == "custom"
    return is_own and answers_rows and float(rows) < ENOUGH


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
