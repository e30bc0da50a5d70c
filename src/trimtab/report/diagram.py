"""One diagram: curves over steps, with a scale, a legend and what a reader should notice.

Widths are parts of the page and heights are pixels, so that letters keep their size on a phone: places across are
percentages, and only the curves themselves are stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.report import marks
from trimtab.report.axes import Axis, step_ticks, value_axis
from trimtab.report.curves import COLUMNS, Curve, robust_range, smoothed, stretches
from trimtab.report.markup import Markup, element, percentage
from trimtab.report.panel import Panel, Trace, Window
from trimtab.runs import format

WIDTH: Final = 6000
HEIGHT: Final = 1000
"""Units of the stretched part of a diagram."""
SCALE_WIDTH: Final = 54
STEPS_HEIGHT: Final = 22


class Drawn(NamedTuple):
    """A panel that is drawn, in parts: a page and a picture put them together each in its own way."""

    panel: Panel
    traces: tuple[Trace, ...]
    """Those of which there is something to see."""
    notes: tuple[str, ...]
    """What cannot be drawn."""
    scale: Markup
    """The values, `SCALE_WIDTH` wide."""
    field: Markup
    """The curves and the steps, as wide as there is room."""
    height: int
    """Of both."""


def draw(panel: Panel, window: Window) -> Markup:
    """The panel as a figure; nothing when no curve has a value in the window."""
    parts = drawn(panel, window)
    return Markup() if parts is None else _figure(parts)


def drawn(panel: Panel, window: Window, num_columns: int = COLUMNS, *, readable: bool = True) -> Drawn | None:
    """The parts of a panel, of at most `num_columns` points a curve, with its values to read out if `readable`.

    None when no curve has a value in the window, nor anything that is not finite.
    """
    shown = [(trace, trace.curve.columns(window.first, window.last, num_columns)) for trace in panel.traces]
    shown = [(trace, columns) for trace, columns in shown if len(columns.last)]
    axis = _axis(panel, [columns for _, columns in shown])
    if axis is None:
        return _nothing(panel, shown, window)
    height = panel.height
    layers: list[Markup] = [*_grid(axis, window, height), *marks.shades(window, height)]
    notes: list[str] = []
    for trace, columns in shown:
        layers += marks.bad(columns, window, height)
        layers.append(_curve(trace, columns, axis, window, height, readable))
        layers += marks.points(trace, axis, window, height)
        layers += marks.beyond(columns, axis, window, height)
        notes += marks.far_values(trace.curve.between(window.first, window.last), axis)
    layers += [*marks.onsets(window, height), *marks.bests(shown, axis, window, height)]
    layers.append(element("line", class_="cross", x1="0", x2="0", y1=0, y2=height))
    field = element(
        "svg",
        layers,
        class_="field",
        width="100%",
        height=height + STEPS_HEIGHT,
        role="img",
        aria_label=_described(panel, shown),
    )
    traces = tuple(trace for trace, _ in shown)
    return Drawn(panel, traces, tuple(notes), _scale(axis, height, window.unit), field, height + STEPS_HEIGHT)


def _figure(parts: Drawn) -> Markup:
    panel, traces = parts.panel, parts.traces
    legend = [element("span", _swatch(trace), trace.label, class_="key") for trace in traces]
    caption = element(
        "figcaption",
        element("span", panel.title, class_="panel-title"),
        element("span", panel.unit, class_="unit") if panel.unit not in ("", "fraction") else None,
        legend if len(traces) > 1 or traces[0].label != panel.title else None,
        [element("span", note, class_="note") for note in parts.notes],
        element("output", class_="readout"),
    )
    return element("figure", caption, element("div", parts.scale, parts.field, class_="plot"), class_="panel")


def _nothing(panel: Panel, shown: Sequence[tuple[Trace, Curve]], window: Window) -> Drawn | None:
    """A panel whose every value is not a number."""
    bad = [span for _, columns in shown for span in columns.bad_spans()]
    if not bad:
        return None
    note = f"not finite from step {format.count(bad[0][0])} to {format.count(bad[-1][1])}: nothing to draw"
    scale = element("svg", class_="scale", width=SCALE_WIDTH, height=60)
    field = element(
        "svg", marks.bad(shown[0][1], window, 60), class_="field", width="100%", height=60, role="img", aria_label=note
    )
    return Drawn(panel, tuple(trace for trace, _ in shown), (note,), scale, field, 60)


def _axis(panel: Panel, curves: Sequence[Curve]) -> Axis | None:
    parts = [np.concatenate((curve.low, curve.high)) for curve in curves]
    values = np.concatenate(parts) if parts else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    if panel.positive and (values > 0).all() and len(values) > 1:
        low, high = robust_range(np.log10(values)) or (0.0, 0.0)
        middle = np.quantile(values, [0.02, 0.98])
        if math.log10(middle[1] / middle[0]) >= 1.2:
            return value_axis(10.0**low, 10.0**high, positive=True, unit=_kind(panel), from_zero=panel.from_zero)
    ranges = [bounds for part in parts if (bounds := robust_range(part)) is not None]
    low, high = min(bounds[0] for bounds in ranges), max(bounds[1] for bounds in ranges)
    return value_axis(low, high, positive=False, unit=_kind(panel), from_zero=panel.from_zero)


def _kind(panel: Panel) -> str:
    return panel.unit if panel.unit in ("bytes", "fraction") else ""


def _scale(axis: Axis, height: int, unit: str) -> Markup:
    labels = [
        element("text", label, x=SCALE_WIDTH - 8, y=(1 - place) * height + 4)
        for place, label in axis.ticks(max(2, height // 34))
        if -0.001 <= place <= 1.001
    ]
    labels.append(element("text", unit, x=SCALE_WIDTH - 8, y=height + 17))
    return element("svg", labels, class_="scale", width=SCALE_WIDTH, height=height + STEPS_HEIGHT, aria_hidden="true")


def _grid(axis: Axis, window: Window, height: int) -> Iterator[Markup]:
    for place, label in axis.ticks(max(2, height // 34)):
        if -0.001 <= place <= 1.001:
            y = (1 - place) * height
            yield element("line", class_="zero" if label == "0" else "grid", x1="0", x2="100%", y1=y, y2=y)
    yield element("line", class_="base", x1="0", x2="100%", y1=height, y2=height)
    for index, (place, label) in enumerate(step_ticks(window.first, window.last)):
        x = percentage(place)
        side = "start" if place < 0.02 else "end" if place > 0.97 else "middle"
        name = "tick" if index % 2 == 0 else "tick minor"
        yield element("line", class_=name, x1=x, x2=x, y1=height, y2=height + 4)
        yield element("text", label, class_=name, x=x, y=height + 17, text_anchor=side)


def _curve(trace: Trace, columns: Curve, axis: Axis, window: Window, height: int, readable: bool) -> Markup:
    """The stretched part: a band from least to largest, the raw line where it is all there is, the smoothed line."""
    x = np.rint((columns.last - window.first) / max(window.last - window.first, 1) * WIDTH)
    mean = _units(columns.mean, axis)
    there = np.isfinite(columns.mean)
    parts: list[Markup] = []
    is_noisy = trace.smooth and not trace.points and trace.role != "rate" and int(there.sum()) >= 40
    if is_noisy:
        low, high = _units(columns.low, axis), _units(columns.high, axis)
        if (low != high).mean() > 0.3:
            parts += [_closed(x[rows], low[rows], high[rows], trace.role) for rows in stretches(there)]
        else:
            parts.append(_line(x, mean, there, f"raw {trace.role}"))
        # As it is drawn: in powers on a logarithmic scale, and one far value does not lift its neighbours.
        mean = np.rint((1 - smoothed(np.clip(axis.place(columns.mean), -0.1, 1.1)).clip(0, 1)) * HEIGHT)
    read: dict[str, str] = {}
    if readable:
        steps = np.diff(columns.last[there], prepend=0).tolist()
        values = [round_value(value) for value in columns.mean[there]]
        read = {"label": trace.label, "steps": " ".join(map(str, steps)), "values": " ".join(values)}
    parts.append(_line(x, mean, there, f"curve {trace.role}{' dashed' * trace.dashed}", **read))
    return element(
        "svg",
        parts,
        width="100%",
        height=height,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
    )


def _units(values: NDArray[np.float64], axis: Axis) -> NDArray[np.float64]:
    placed = np.clip(axis.place(values), 0.0, 1.0)
    units: NDArray[np.float64] = np.rint((1 - placed) * HEIGHT)
    return units


def _line(x: NDArray[np.float64], y: NDArray[np.float64], there: NDArray[np.bool_], class_: str, **data: str) -> Markup:
    drawn = Markup("".join(_path(x[rows], y[rows]) for rows in stretches(there)))
    return element("path", class_=class_, d=drawn, **{f"data_{name}": value for name, value in data.items()})


def _closed(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], role: str) -> Markup:
    outline = _path(np.concatenate((x, x[::-1])), np.concatenate((high, low[::-1])))
    return element("path", class_=f"band {role}", d=Markup(outline + "z"))


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Straight lines through points, as differences: half the size of absolute places."""
    xs, ys = x.astype(int).tolist(), y.astype(int).tolist()
    dxs, dys = np.diff(x).astype(int).tolist(), np.diff(y).astype(int).tolist()
    moves = "".join(f"{dx}{'' if dy < 0 else ' '}{dy}{' '}" for dx, dy in zip(dxs, dys, strict=True))
    return f"M{xs[0]} {ys[0]}" + (f"l{moves.rstrip()}" if moves else "h1")


def _swatch(trace: Trace) -> Markup:
    mark = [element("line", class_=f"curve {trace.role}{' dashed' * trace.dashed}", x1=0, x2=16, y1=6, y2=6)]
    if trace.points:
        mark.append(element("circle", class_=f"point {trace.role}", cx=8, cy=6, r=3))
    return element("svg", mark, class_="swatch", width=16, height=12, aria_hidden="true")


def _described(panel: Panel, shown: Sequence[tuple[Trace, Curve]]) -> str:
    """The panel in words, for those who hear it."""
    parts = []
    for trace, columns in shown:
        steps, values = columns.finite()
        if len(steps):
            parts.append(
                f"{trace.label} from {format.decimal(float(values[0]))} at step {format.count(int(steps[0]))} "
                f"to {format.decimal(float(values[-1]))} at step {format.count(int(steps[-1]))}"
            )
    return f"{panel.title}: {'; '.join(parts)}"


def round_value(value: float) -> str:
    """A value in four digits, for a read-out."""
    return f"{value:.4g}"
