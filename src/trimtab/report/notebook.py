"""Curves for a notebook: losses and their gap, learning rate and gradient norm as one figure of matplotlib.

Nothing global is touched: no pyplot, no style, no window; the figure can be saved without a display.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import UsageError
from trimtab.runs.directory import RunDirectory
from trimtab.runs.history import History
from trimtab.runs.importers import read_foreign

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Sequence[float] | NDArray[Any]
_TRAINING, _VALIDATION, _OTHER, _BAD = "#2a6f97", "#d1495b", "#5b5b5b", "#b00020"
_SMOOTHED_FROM: Final = 200
"""Curves of fewer points are drawn as they are unless smoothing is asked for."""


@dataclass(frozen=True, slots=True)
class _Line:
    """Steps [N] and values [N], in the order of the steps."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def monitor_training_metrics(
    train_losses: Numbers | History | str | Path,
    val_losses: Numbers | None = None,
    learning_rates: Numbers | None = None,
    *,
    grad_norms: Numbers | None = None,
    smoothing: float | None = None,
    steps: Numbers | None = None,
    val_steps: Numbers | None = None,
    title: str | None = None,
) -> Figure:
    """Learning curves with their gap, learning rate and gradient norm: what is given, one panel each.

    `train_losses` may also be a History, a run directory, or the log of another trainer; the others are then read
    from it. `steps` belong to the losses, learning rates and norms; validation losses without `val_steps` are taken
    as evenly spread. `smoothing` from 0 (none) up to 1 is the part of the past in a running mean; by default 0.9 from
    200 points on. Points that are not finite are marked at the top.

    Raises: UsageError when lengths differ, nothing is there to draw, or matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("curves need matplotlib", hint="pip install 'trimtab[plots]'") from error
    if smoothing is not None and not 0 <= smoothing < 1:
        raise UsageError(f"smoothing: must be at least 0 and less than 1. Received: {smoothing}")
    if isinstance(train_losses, str | Path | History):
        if any(given is not None for given in (val_losses, learning_rates, grad_norms, steps, val_steps)):
            raise UsageError("a run, a log or a History has all of its curves: give nothing beside it")
        lines = _of_history(_history(train_losses))
    else:
        lines = _of_numbers(train_losses, val_losses, learning_rates, grad_norms, steps, val_steps)
    training, validation = lines.get("training"), lines.get("validation")
    if training is None and validation is None:
        raise UsageError("there is no loss to draw", hint="log train/loss or validation/loss")
    gap = lines.get("gap") or _gap(training, validation)
    drawn = {"losses": True, "gap": gap is not None, "rate": "rate" in lines, "norm": "norm" in lines}
    panels = [name for name, is_there in drawn.items() if is_there]
    heights = [3.0 if name == "losses" else 1.2 for name in panels]
    figure = Figure(figsize=(8.0, 0.8 + sum(heights)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True, gridspec_kw={"height_ratios": heights}))
    for name, axis in zip(panels, axes, strict=True):
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if name == "losses":
            _draw_losses(axis, training, validation, smoothing)
        elif name == "gap" and gap is not None:
            axis.axhline(0.0, color=_OTHER, linewidth=0.6)
            _draw(axis, gap, "validation - training", _VALIDATION, 0.0)
            axis.set_ylabel("gap")
        elif name == "rate":
            _draw(axis, lines["rate"], "learning rate", _OTHER, 0.0)
            axis.set_ylabel("learning rate")
        else:
            _draw(axis, lines["norm"], "gradient norm", _OTHER, smoothing)
            axis.set_ylabel("gradient norm")
            positive = lines["norm"].values[np.isfinite(lines["norm"].values)]
            if len(positive) and (positive > 0).all() and positive.max() > 30 * positive.min():
                axis.set_yscale("log")
    axes[-1].set_xlabel("step")
    if title:
        figure.suptitle(title)
    return figure


def _history(source: History | str | Path) -> History:
    if isinstance(source, History):
        return source
    path = Path(source)
    if RunDirectory.is_run(path):
        return History.read(RunDirectory(path).record)
    return read_foreign(path).history


def _of_history(history: History) -> dict[str, _Line]:
    names = {
        "training": "train/loss",
        "validation": "validation/loss",
        "gap": "generalization_gap",
        "rate": "learning_rate",
        "norm": "grad_norm",
    }
    lines = {}
    for ours, name in names.items():
        series = history.get(name)
        if series is not None and len(series):
            lines[ours] = _Line(series.steps.astype(np.float64), np.where(series.bad > 0, np.nan, series.mean))
    return lines


def _of_numbers(
    train_losses: Numbers,
    val_losses: Numbers | None,
    learning_rates: Numbers | None,
    grad_norms: Numbers | None,
    steps: Numbers | None,
    val_steps: Numbers | None,
) -> dict[str, _Line]:
    losses = _array("train_losses", train_losses)
    at = np.arange(1.0, len(losses) + 1) if steps is None else _array("steps", steps)
    lines = {"training": _line("train_losses", losses, at)} if len(losses) else {}
    for ours, name, given in (("rate", "learning_rates", learning_rates), ("norm", "grad_norms", grad_norms)):
        if given is not None and len(given):
            values = _array(name, given)
            lines[ours] = _line(name, values, at if len(losses) else np.arange(1.0, len(values) + 1))
    if val_losses is not None and len(val_losses):
        values = _array("val_losses", val_losses)
        if val_steps is not None:
            where = _array("val_steps", val_steps)
        elif len(losses) >= len(values):
            last = np.ceil(np.arange(1, len(values) + 1) * len(losses) / len(values)).astype(np.int64) - 1
            where = at[last]
        else:
            where = np.arange(1.0, len(values) + 1)
        lines["validation"] = _line("val_losses", values, where)
    return lines


def _array(name: str, values: Numbers) -> NDArray[np.float64]:
    try:
        array = np.array([float(value) for value in values], np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: must be numbers, one a step. Received: {type(values).__name__} ({error})") from error
    return array


def _line(name: str, values: NDArray[np.float64], steps: NDArray[np.float64]) -> _Line:
    if len(values) != len(steps):
        raise UsageError(f"{name}: must be as many as the steps, {len(steps):,}. Received: {len(values):,}")
    order = np.argsort(steps, kind="stable")
    return _Line(steps[order], values[order])


def _gap(training: _Line | None, validation: _Line | None) -> _Line | None:
    """Validation loss minus the mean of the training loss since the evaluation before."""
    if training is None or validation is None:
        return None
    ends = np.searchsorted(training.steps, validation.steps, side="right")
    begins = np.concatenate([[0], ends[:-1]])
    means = np.full(len(ends), np.nan)
    for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        part = training.values[begin:end] if end > begin else training.values[max(end - 1, 0) : end]
        part = part[np.isfinite(part)]
        means[index] = part.mean() if len(part) else np.nan
    gap = validation.values - means
    return _Line(validation.steps, gap) if np.isfinite(gap).any() else None


def _draw_losses(axis: Axes, training: _Line | None, validation: _Line | None, smoothing: float | None) -> None:
    if training is not None:
        _draw(axis, training, "training", _TRAINING, smoothing)
    if validation is not None:
        _draw(axis, validation, "validation", _VALIDATION, 0.0)
        finite = np.flatnonzero(np.isfinite(validation.values))
        if len(finite):
            best = finite[np.argmin(validation.values[finite])]
            where, value = validation.steps[best], validation.values[best]
            axis.plot([where], [value], "o", color=_VALIDATION, label=f"best: {value:.4g} at step {where:,.0f}")
    axis.set_ylabel("loss")
    axis.legend(frameon=False)


def _draw(axis: Axes, line: _Line, label: str, color: str, smoothing: float | None) -> None:
    weight = (0.9 if len(line.values) >= _SMOOTHED_FROM else 0.0) if smoothing is None else smoothing
    there = np.isfinite(line.values)
    if weight > 0:
        axis.plot(line.steps, line.values, color=color, linewidth=0.6, alpha=0.3)
        axis.plot(line.steps[there], _running_mean(line.values[there], weight), color=color, linewidth=1.4, label=label)
    else:
        marker = "." if there.sum() <= 60 else None
        axis.plot(line.steps, line.values, color=color, linewidth=1.4, marker=marker, label=label)
    bad = line.steps[~there]
    if len(bad):
        axis.plot(bad, np.ones(len(bad)), "v", color=_BAD, transform=axis.get_xaxis_transform(), clip_on=False)


def _running_mean(values: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """The exponentially weighted mean of what came before, without the bias of its start."""
    means = np.empty_like(values)
    total = count = 0.0
    for index, value in enumerate(values.tolist()):
        total, count = weight * total + (1 - weight) * value, weight * count + (1 - weight)
        means[index] = total / count
    return means
