"""Heat maps of attention, by matplotlib: a row for each token that looks, a column for each that is looked at."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from trimtab.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trimtab.evaluation.attention import AttentionView

SUFFIXES: Final = (".png", ".svg", ".pdf")
_MOST_COLUMNS: Final = 4
_WIDEST: Final = 13.0
"""All maps of a row, in inches: about 1,800 pixels."""
_LARGEST: Final = 9.0
"""One map, in inches."""
_EACH_LABEL: Final = 0.16
"""Inches; of a text that is longer than has room every so many tokens are named."""
_BESIDE: Final = 0.9
"""Inches that the labels of the other axis take of a map."""
_UNSEEN: Final = "#e4e4e4"


def draw(view: AttentionView) -> Figure:
    """A heat map for each head of `view`. Raises: UsageError without matplotlib."""
    _require()
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    num_heads, num_queries, num_keys = view.weights.shape
    columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(num_heads)))
    rows = math.ceil(num_heads / columns)
    largest = min(_LARGEST, _WIDEST / columns)
    # A map is never smaller than its title.
    each = [min(largest, max(2.6, _EACH_LABEL * size + _BESIDE)) for size in (num_keys, num_queries)]
    labels = int((largest - _BESIDE) / _EACH_LABEL)
    figure = Figure(figsize=(columns * each[0] + 0.9, rows * (each[1] + 0.35) + 0.6), layout="constrained")
    figure.suptitle(f"{view.name}, {view.place}: which tokens each row's token reads", parse_math=False)
    colors = colormaps["viridis"].with_extremes(bad=_UNSEEN)
    # By their roots, so that small weights show beside a head that has all of its weight in one place.
    scale = PowerNorm(0.5, vmin=0.0, vmax=max(float(np.nanmax(view.weights)), 1e-6))
    image: Any = None
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    shown_HTS = np.where(view.seen, view.weights, np.nan)
    for axes, shown_TS, head, entropy, first in zip(
        all_axes, shown_HTS, view.heads, view.entropy, view.first, strict=False
    ):
        image = axes.imshow(shown_TS, cmap=colors, norm=scale, aspect="auto", interpolation="none")
        axes.set_title(f"head {head} · entropy {entropy:.2f} · first {first:.2f}", fontsize=8)
        _label(axes.xaxis, view.keys, labels, upright=max(map(len, view.keys)) < 3)
        _label(axes.yaxis, view.tokens, labels, upright=True)
        axes.tick_params(length=0)
    for axes in all_axes[num_heads:]:
        axes.set_axis_off()
    figure.colorbar(image, ax=list(all_axes), label="weight", shrink=0.8, aspect=30, pad=0.01)
    return figure


def save(view: AttentionView, path: Path) -> None:
    """Write the picture of `view` to `path`, as its suffix says. Raises: UsageError."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"attention: a picture must end in {', '.join(SUFFIXES)}. Received: {str(path)!r}")
    _require()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box in its place says as much
        draw(view).savefig(path, dpi=130)


def as_png(view: AttentionView) -> bytes:
    """The picture's bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        draw(view).savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _label(axis: Any, tokens: tuple[str, ...], most: int, *, upright: bool) -> None:
    every = math.ceil(len(tokens) / most)
    places = range(0, len(tokens), every)
    axis.set_ticks(list(places))
    # Text is only text: a dollar sign in it begins no formula.
    labels = [_visible(tokens[place]) for place in places]
    rotation = 0.0 if upright else 90.0
    axis.set_ticklabels(labels, rotation=rotation, fontsize=7, family="monospace", parse_math=False)


def _visible(token: str) -> str:
    """A token as a label: white space and what cannot be printed by signs, and long ones cut."""
    shown = token.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥")
    shown = "".join(one if one.isprintable() else "\ufffd" for one in shown)
    return shown if len(shown) <= 14 else f"{shown[:13]}…"


def _require() -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError("pictures of attention need matplotlib", hint="pip install 'trimtab[plots]'") from error
