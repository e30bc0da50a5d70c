"""vanishing-gradients: the gradient of early layers is orders of magnitude below that of late ones.

Looks for: parameters of the same name in layers of a stack (`blocks.0.…`, `blocks.1.…`), whose gradient in the
    first third of the layers is a hundredth of that in the last third or less, in nearly every window (a thousandth in
    most of them does: it may come back late; or from the first step on through a fifth of the run, in which nothing is
    learned), and falls from layer to layer on the way back. A gradient of exactly
    zero is another fault: frozen-parameters.
Why it matters: early layers hardly learn; with plain gradient descent not at all, and with Adam only where the
    gradient stays above its epsilon and above what is lost in rounding.
Evidence: the ratio, and what each layer takes of the gradient.
Remedy: residual connections, a norm before each block, ReLU or GELU in place of sigmoid or tanh, an initialization that
    keeps the scale (He, Xavier), fewer layers.
False alarms: layers of different shape have gradients of different size: the same parameter is compared with itself,
    and orders of magnitude are asked for. A pretrained stack with a new head shows a step behind the head, and no fall
    from layer to layer.
Source: Glorot and Bengio 2010, AISTATS; He et al. 2015, arXiv 1502.01852; own thresholds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import noise_of_evaluations
from trimtab.doctor.reading.medians import median
from trimtab.runs.printable import printable

FEWEST_LAYERS: Final = 3
FEWEST_WINDOWS: Final = 3
FADED: Final = 1e-2
GRAVE: Final = 1e-3
ALWAYS: Final = 0.8
"""Of the windows."""
MOSTLY: Final = 0.5
"""The same of a gradient that is a thousandth in most of them: it may have come back since."""
FOR_LONG: Final = 0.2
"""Of the run, from its first step: a gradient that comes back later has cost that much."""
STANDS: Final = 0.4
"""Of what as many later steps gain: the bias of the last layer is soon learned."""
FEWEST_STEPS: Final = 8
FEWEST_EVALUATIONS, NOISES, LITTLE = 3, 4.0, 0.15
"""While the gradient has faded, and afterwards; noises of the former that the latter gain; and of that, what the former
do at most."""
DESCENT: Final = 0.7
"""Of the steps from layer to layer that must go down, on the way back."""


def check(case: Case) -> Iterator[Finding]:
    """A warning from a thousandth on, a remark from a hundredth on."""
    steps, names, norms_WL = case.history.layers.values("grad_norm")
    if len(steps) < FEWEST_WINDOWS:
        return
    worst: tuple[float, int, str, Sequence[float]] | None = None
    for stack, columns in _stacks(names).items():
        if len(columns) < FEWEST_LAYERS:
            continue
        norms_WD, third = _norms(norms_WL, columns), max(1, len(columns) // 3)
        there_W: NDArray[np.bool_] = np.ones(len(norms_WD), np.bool_)
        if not (norms_WD.min() > 0 and norms_WD.max() < np.inf):
            there_W &= ((norms_WD > 0) & (norms_WD < np.inf)).all(axis=1)
        if there_W.sum() < FEWEST_WINDOWS:
            continue
        norms_WD = norms_WD[there_W]
        norms_DW = np.ascontiguousarray(norms_WD.T)  # along which few layers are quicker compared
        least_W, most_W = norms_DW[:third].min(axis=0), norms_DW[-third:].max(axis=0)
        if 2 * (least_W >= 1.001 * FADED * most_W).sum() > len(norms_WD) and least_W[0] >= 1.001 * GRAVE * most_W[0]:
            continue  # as nearly always, without logarithms
        logs = np.log10(norms_WD)
        ratios_W = logs[:, :third].mean(axis=1) - logs[:, -third:].mean(axis=1)
        usual = median(ratios_W)
        if usual >= np.log10(FADED) and not _as_built(logs) and not _stood(case, steps[there_W], ratios_W):
            continue
        low = ratios_W < np.log10(FADED)
        profile = np.median(logs, axis=0)
        downward = float((np.diff(profile) > 0).mean())
        if not (usual < np.log10(FADED) and low.mean() >= ALWAYS and downward >= DESCENT) and _as_built(logs):
            usual, profile, downward = float(logs[0, 0] - logs[0, -1]), logs[0], 1.0
            low = np.ones(len(logs), np.bool_)
        always = low.mean() >= (ALWAYS if usual > np.log10(GRAVE) else MOSTLY)
        if not (usual < np.log10(FADED) and always) and _stood(case, steps[there_W], ratios_W):
            low, always = ratios_W < np.log10(GRAVE), True
            usual, profile = median(ratios_W[low]), np.median(logs[low], axis=0)
            downward = float((np.diff(profile) > 0).mean())
        if usual < np.log10(FADED) and always and downward >= DESCENT:
            found = (usual, int(steps[there_W][int(np.argmax(low))]), stack, (10.0**profile).tolist())
            worst = min(worst, found) if worst is not None else found
    if worst is None:
        return
    usual, onset, stack, profile_D = worst
    ratio, layers = 10.0**usual, len(profile_D)
    each = (profile_D[0] / profile_D[-1]) ** (1 / (layers - 1))
    shown = ", ".join(f"{norm:.2g}" for norm in profile_D[:12]) + (" …" if layers > 12 else "")
    yield Finding(
        "vanishing-gradients",
        "warning" if ratio <= GRAVE else "info",
        0.9 if ratio <= GRAVE else 0.6,
        onset,
        f"the gradient of the first layers is {ratio:.1g} times that of the last: each of {layers} layers passes on "
        f"{each:.2g} of what it gets",
        (
            Evidence(
                "layer/*/grad_norm",
                (onset, int(steps[-1])),
                ratio,
                0.1,
                f"the usual norm of {printable(stack, limit=80)}, from the first layer to the last: {shown}",
            ),
        ),
        remedies=tuple(_remedies(case)),
    )


def _stood(case: Case, steps_W: NDArray[np.int64], ratios_W: NDArray[np.float64]) -> bool:
    """Whether the gradient fades to a hundredth from the first window on, and mostly to a thousandth, for a fifth of
    the run or more, and nothing is learned until it comes back."""
    faded = ratios_W < np.log10(FADED)
    back = len(faded) if faded.all() else int(np.argmin(faded))
    back = back if back and median(ratios_W[:back]) < np.log10(GRAVE) else 0
    curve = Curve.of(case.loss())
    if not back or steps_W[back - 1] < FOR_LONG * case.planned_steps or curve is None:
        return False
    if _stands_in_evaluations(case, int(steps_W[back - 1])):
        return True
    stretch = curve.between(int(steps_W[back - 1]) // 4, int(steps_W[back - 1]))
    if stretch is None or len(stretch) < FEWEST_STEPS:
        return False
    half, over = len(stretch) // 2, curve.last_step - stretch.last_step
    first, then = float(stretch.values[:half].mean()), float(stretch.values[half:].mean())
    later = (then - curve.end) * half / max(over, 1)  # what as many steps gain once the gradient is back
    return 2.0 * stretch.error(half) < later and first - then < STANDS * later


def _stands_in_evaluations(case: Case, back: int) -> bool:
    """Whether evaluations, which have no noise of steps, gain nothing until a step, and much afterwards."""
    judged = Curve.of(case.validation_loss())
    if judged is None:
        return False
    num = int((judged.steps <= back).sum())
    if num < FEWEST_EVALUATIONS or len(judged) - num < FEWEST_EVALUATIONS:
        return False
    first, then, end = (float(judged.values[at]) for at in (0, num - 1, -1))
    noise = noise_of_evaluations(judged.values[:num])
    return then - end > NOISES * noise and first - then < LITTLE * (then - end)


def _as_built(logs_WD: NDArray[np.float64]) -> bool:
    """Whether the gradient fades from layer to layer in the first window, before anything is learned, by far more than
    asked for, and that of all layers but the last ones has faded in the last window, too."""
    first, last = logs_WD[0], logs_WD[-1]
    half = len(first) // 2
    falls = bool((np.diff(first) > 0).all())
    return falls and first[0] - first[-1] < np.log10(GRAVE) and last[:half].max() - last[-1] < np.log10(GRAVE)


@lru_cache(maxsize=8)
def _stacks(names: tuple[str, ...]) -> dict[str, list[list[int]]]:
    """For each stack the columns of each of its layers, in their order: parameters that differ in a number alone.

    Biases and norms are left out where there are others: they are few values, and scatter.
    """
    found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for column, name in enumerate(names):
        match = re.search(r"(?:^|\.|_)(\d+)(?:\.|_|$)", name)
        if match is None or name.endswith("bias") or "norm" in name:
            continue
        found[f"{name[: match.start(1)]}*{name[match.end(1) :]}"][int(match[1])].append(column)
    return {stack: [layers[depth] for depth in sorted(layers)] for stack, layers in found.items()}


def _norms(norms_WL: NDArray[np.float64], columns: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Each layer's norm in each window [W, D]; NaN where it was not measured."""
    if all(len(layer) == 1 for layer in columns):
        return norms_WL[:, [layer[0] for layer in columns]]
    return np.stack([np.sqrt(np.square(norms_WL[:, layer]).sum(axis=1)) for layer in columns], axis=1)


def _remedies(case: Case) -> Iterator[Remedy]:
    if case.target == "trimtab" and case.setting("model.norm.placement") == "post":
        yield Remedy("normalize before each block", "trimtab", {"model.norm.placement": "pre"})
    yield Remedy(
        "residual connections and a norm before each block; ReLU or GELU in place of sigmoid or tanh; an "
        "initialization that keeps the scale"
    )
