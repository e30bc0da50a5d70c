"""The curve of a range test: as text for a terminal, and as a picture by matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from trimtab.errors import UsageError

if TYPE_CHECKING:
    from trimtab.experiments.range_test import RangeTest

SUFFIXES: Final = (".png", ".svg", ".pdf")
_CURVE, _MARK, _BAD = "#2a6f97", "#5b5b5b", "#b00020"


def text_curve(test: RangeTest, width: int = 64, height: int = 12) -> str:
    """The smoothed loss over the logarithm of the rate, `width` by `height` characters and a frame.

    `*` is the curve and `|` the suggestion. Losses far above the first one are cut off at the top.
    """
    x = np.log10(test.rates)
    y = np.asarray(test.smoothed)
    known = np.isfinite(y)
    if not known.any():
        return "no loss is a number: there is no curve"
    low = float(y[known].min())
    high = max(min(float(y[known].max()), low + 1.5 * (float(y[known][0]) - low)), low + 1e-9)
    cells = [[" "] * width for _ in range(height)]
    if test.suggestion is not None:
        column = _column(math.log10(test.suggestion * test.scale), x, width)
        for row in cells:
            row[column] = "|"
    at = np.linspace(x[0], x[known][-1], width * 4)
    for place, value in zip(at, np.interp(at, x[known], y[known]), strict=True):
        if value <= high:
            row_index = round((high - value) / (high - low) * (height - 1))
            cells[row_index][_column(float(place), x, width)] = "*"
    label = max(len(f"{high:.2f}"), len(f"{low:.2f}"))
    margins = [f"{high:.2f}", *[""] * (height - 2), f"{low:.2f}"]
    lines = [f"{margin:>{label}} |{''.join(row)}".rstrip() for margin, row in zip(margins, cells, strict=True)]
    first, last = f"{test.rates[0]:.0e}", f"{test.rates[-1]:.0e}"
    middle = "learning rate"
    gap = max(2, width - len(first) - len(last) - len(middle))
    axis = f"{first}{' ' * (gap // 2)}{middle}{' ' * (gap - gap // 2)}{last}"
    return "\n".join([*lines, f"{'':>{label}} +{'-' * width}", f"{'':>{label}}  {axis}"])


def _column(place: float, x: np.ndarray[tuple[int], np.dtype[np.float64]], width: int) -> int:
    return min(width - 1, max(0, round((place - float(x[0])) / float(x[-1] - x[0]) * (width - 1))))


def require_picture(path: Path) -> None:
    """Nothing, when `save_picture` can write there. Raises: UsageError, before anything was computed."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot: must end in {', '.join(SUFFIXES)}. Received: {str(path)!r}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot: there is no such folder: {path.parent}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError("--plot: pictures need matplotlib", hint="pip install 'trimtab[plots]'") from error


def save_picture(test: RangeTest, path: Path) -> None:
    """Write losses, smoothed curve and suggestion to `path`, as its suffix says. Raises: UsageError."""
    require_picture(path)
    from matplotlib.figure import Figure

    rates, losses, smoothed = (np.asarray(values) for values in (test.rates, test.losses, test.smoothed))
    known = np.isfinite(smoothed)
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color=_CURVE, alpha=0.3, markersize=4, label="training loss of a step")
    axes.plot(rates[known], smoothed[known], color=_CURVE, linewidth=1.6, label="smoothed")
    marks = (("steepest", test.steepest, _MARK, ":"), ("diverges", test.diverged, _BAD, "--"))
    for label, rate, color, style in marks:
        if rate is not None:
            axes.axvline(rate, color=color, linestyle=style, linewidth=1.0, label=f"{label}: {rate:.2g}")
    if test.suggestion is not None:
        applied = test.suggestion * test.scale
        axes.axvline(applied, color=_MARK, linewidth=1.0, label=f"suggested: {applied:.2g}")
    if known.any():
        low, first = float(smoothed[known].min()), float(smoothed[known][0])
        room = max(first - low, 1e-9)
        axes.set_ylim(low - 0.3 * room, first + 0.7 * room)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
