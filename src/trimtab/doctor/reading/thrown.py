"""Weights that were thrown: by a rate that is too high, at once, or more each step, as norms of layers tell, or a loss
that no gradient moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import no_gradient_since
from trimtab.doctor.reading.medians import median, medians, quantiles
from trimtab.doctor.reading.once import once
from trimtab.doctor.reading.unsteady import Sign

SWOLLEN: Final = 1e3
"""Times its first size: what layers give back after training at a sound rate stays well below that."""
JUMPED: Final = 1.25
"""Times what it was one window before, is the median weight that no updates brought there."""
ALONE: Final = 4.0
"""Times as large as any other change of it, on a logarithmic scale."""
TOGETHER: Final = 0.003
"""Of each weight in a step: so all of them grow threefold in four hundred."""
GROWN: Final = 1.4
LATELY: Final = 4
"""Windows in which it must have grown so to the end."""
NEAR: Final = 8
"""Steps before and after an examination."""
FIVEFOLD: Final = 5.0
AWAY: Final = 100.0
"""Times the loss at the start, and at least that much: so far away no batch is that is merely hard."""


class Change(NamedTuple):
    """Weights that change between two steps, to `times` what they were."""

    begin: int
    end: int
    times: float


class Thrown(NamedTuple):
    """Weights that jumped, the evaluations before that and the last, and what they gave before, at most and last."""

    weights: Change
    steps: tuple[int, int]
    was: float
    top: float
    end: float


def growth(case: Case) -> Iterator[Sign]:
    """Weights that grow several-fold within the first tenth of the run."""
    steps, names, norms_WL = case.history.layers.values("weight_norm")
    if len(steps) < 4:
        return
    until = max(3, int(np.searchsorted(steps, 0.1 * case.planned_steps)))
    matrices = [at for at, name in enumerate(names) if "norm" not in name and "bias" not in name]
    first, then = norms_WL[0, matrices], norms_WL[min(until, len(steps) - 1), matrices]
    there = np.isfinite(first) & np.isfinite(then) & (first > 0)
    end = int(steps[min(until, len(steps) - 1)])
    if there.any() and (factor := median(then[there] / first[there])) > 2.5:
        told = f"the weights of the median layer grew {factor:.1f}-fold by step {end:,}"
        yield 1.0 if factor < 5 else 1.5, Evidence("layer/*/weight_norm", (int(steps[0]), end), factor, 1.5, told)


def was_thrown(case: Case, since: float, until: float) -> bool:
    """Whether the loss was far away in some step: what is learned after that is of weights that are."""
    series, curve = case.loss(), Curve.of(case.loss())
    if series is None or curve is None or not (then := (series.steps >= since) & (series.steps <= until)).any():
        return False
    return bool((series.maximum[then] > AWAY * max(abs(curve.start), 1.0)).any())


def left_at(case: Case, until: float) -> int | None:
    """The first step, up to one, in which the loss was several times what it began with: what throws it so far acts
    before what is learned after it."""
    series, curve = case.loss(), Curve.of(case.loss())
    if series is None or curve is None:
        return None
    far = (series.maximum > FIVEFOLD * max(abs(curve.start), 1.0)) & (series.steps <= until)
    return int(series.steps[np.argmax(far)]) if far.any() else None


def swells(case: Case) -> Iterator[Sign]:
    """What layers give back is a thousand times what it was at first: their weights were thrown, not trained."""
    steps, _, rms_WL = case.history.layers.values("activation_rms")
    if len(steps) < 4:
        return
    first, last = rms_WL[0], rms_WL[-1]
    there = np.isfinite(first) & np.isfinite(last) & (first > 0)
    if there.any() and (times := median(last[there] / first[there])) > SWOLLEN:
        told = f"what the median layer gives back grew {times:,.0f}-fold by step {int(steps[-1]):,}"
        yield 1.5, Evidence("layer/*/activation_rms", (int(steps[0]), int(steps[-1])), times, SWOLLEN, told)


@once
def jump(case: Case) -> Change | None:
    """The one window in which the weights of all layers grew at once, as no update grows them; not where the run was
    resumed there, which is the reason then."""
    steps, names, norms_WL = _weights(case)
    columns = [at for at, name in enumerate(names) if "norm" not in name]
    if len(steps) < 5 or not columns:
        return None
    num_W = np.count_nonzero(norms_WL[1:] > 0.999 * JUMPED * norms_WL[:-1], axis=1)
    if 2 * int(num_W.max()) < len(columns):
        return None  # as nearly always, without their logarithms
    logs_WL = _logs(case)[2][:, columns]
    changes = medians(np.diff(logs_WL, axis=0))
    at = int(np.argmax(changes))
    begin, end = int(steps[at]), int(steps[at + 1])
    others = float(np.abs(np.delete(changes, at)).max(initial=0.0))
    if changes[at] < max(np.log(JUMPED), ALONE * others):
        return None
    if any(begin - 1 <= (start.resumed_from or 0) <= end for start in case.history.starts[1:]):
        return None
    return Change(begin, end, float(np.exp(changes[at])))


@once
def growing(case: Case) -> Change | None:
    """Weights of all layers, and what norms multiply by, too, that grow by one and the same part of themselves in each
    step from some step to the end: something multiplies them."""
    steps, _, norms_WL = _weights(case)
    if len(steps) < 6 or not norms_WL.size:
        return None
    lately = np.diff(np.log(norms_WL[-LATELY - 1 :]), axis=0) / np.maximum(np.diff(steps[-LATELY - 1 :]), 1)[:, None]
    if (medians(lately) < TOGETHER).any():
        return None  # which is soon seen of nearly all runs
    _, _, logs_WL = _logs(case)
    per_step_WL = np.diff(logs_WL, axis=0) / np.maximum(np.diff(steps), 1)[:, None]
    usual, least = medians(per_step_WL), quantiles(per_step_WL, 0.1)
    apart = np.flatnonzero((usual < TOGETHER) | (least < 0.5 * usual))
    first = int(apart[-1]) + 1 if len(apart) else 0
    times = float(np.exp(median(logs_WL[-1] - logs_WL[first])))
    return Change(int(steps[first]), int(steps[-1]), times) if len(usual) - first >= LATELY and times > GROWN else None


def outgrown(case: Case) -> Change | None:
    """A gradient that grows from examination to examination, while that of the examined batch, which is taken apart
    from the training, does not: something multiplies it on its way to the update."""
    norms, own = Curve.of(case.history.get("grad_norm")), Curve.of(case.history.get("probe/grad_norm"))
    if norms is None or own is None or len(own) < 3 or not (own.values > 0).all() or is_another_gradient(case):
        return None
    beside = np.array([norms.level(step - NEAR, step + NEAR) for step in own.steps])
    ratios, times = beside / own.values, float(beside[-1] / beside[0])
    if not (np.diff(ratios) > 0).all() or own.values[-1] > 2.0 * own.values[0] or not times > FIVEFOLD:
        return None
    return Change(int(own.steps[0]), int(own.steps[-1]), times) if ratios[-1] > FIVEFOLD * ratios[0] else None


def is_another_gradient(case: Case) -> bool:
    """Whether training takes the gradient of more than the loss that examinations take."""
    usual = {"procedure.name": "plain", "sharpness.name": "none", "embedding.mixup.alpha": 0.0}
    usual |= {"penalties.l2.strength": 0.0, "embedding.noise.alpha": 0.0, "embedding.cutout.rate": 0.0}
    weights = case.setting("task.class_weights")  # whose gradient is that of the few samples that weigh
    return isinstance(weights, Mapping) or any(case.setting(name) not in (None, value) for name, value in usual.items())


def thrown_once(case: Case) -> Thrown | None:
    """Where the weights of all layers jump between two updates, the loss rises with them, and comes back."""
    found, judged = jump(case), Curve.of(case.validation_loss())
    if found is None or judged is None:
        return None
    before, after = judged.between(0, found.begin), judged.between(found.begin + 1, judged.last_step)
    if before is None or after is None or len(after) < 3:
        return None
    was, top = float(before.values[-1]), float(after.values[: max(2, len(after) // 2)].max())
    if top <= was or judged.end > was + 0.75 * (top - was):
        return None
    return Thrown(found, (before.last_step, judged.last_step), was, top, judged.end)


def grows_without_gradient(case: Case, curve: Curve) -> Change | None:
    """A validation loss that grows by much the same part of itself in each step, to the end, though no
    gradient reaches any weight: what moves them is not learned."""
    since, judged = no_gradient_since(case, curve), Curve.of(case.validation_loss())
    part = None if since is None or judged is None else judged.between(since, judged.last_step)
    if part is None or len(part) < 4 or not (part.values > 0).all():
        return None
    times = float(part.values[-1] / part.values[0])
    grown = np.diff(np.log(part.values)) / np.diff(part.steps)
    evenly = grown.min() > 0.5 * median(grown)
    return Change(part.first_step, part.last_step, times) if evenly and times > FIVEFOLD else None


@once
def _logs(case: Case) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.float64]]:
    """Steps, the names of weights that were measured at each, and the logarithms of their norms [W, L]."""
    steps, names, norms_WL = _weights(case)
    return steps, names, np.log(norms_WL)


@once
def _weights(case: Case) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.float64]]:
    """The same with the norms themselves."""
    steps, names, norms_WL = case.history.layers.values("weight_norm")
    if not norms_WL.size:
        return steps[:0], (), np.empty((0, 0))
    there_L = np.ones(len(names), np.bool_)
    if not (norms_WL.min() > 0 and norms_WL.max() < np.inf):
        there_L = (norms_WL.min(axis=0) > 0) & (norms_WL.max(axis=0) < np.inf)
    kept = [at for at, name in enumerate(names) if there_L[at] and "bias" not in name]
    return steps, tuple(names[at] for at in kept), norms_WL[:, kept]
