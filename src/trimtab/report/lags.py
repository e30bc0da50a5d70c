"""What broke first: the metrics in the order in which they left their course, as bars over steps and in words."""

from __future__ import annotations

from typing import Final

from trimtab.doctor.finding import Break
from trimtab.doctor.order import told_order
from trimtab.report.axes import step_labels
from trimtab.report.markup import Markup, element, join, percentage
from trimtab.report.words import metric_name
from trimtab.runs import format

ROW: Final = 24
LEAST: Final = 0.006
"""Width of a bar that is one step wide, as a part of the whole."""
CAUTION: Final = (
    "What broke first need not be the cause: it may be the most sensitive, or the most often measured. A bar is the "
    "steps between which it broke; where two overlap, their order is not known."
)


def lag_diagram(order: tuple[Break, ...], unit: str = "step") -> Markup:
    """A row for each metric; nothing when fewer than two broke, as there is no order then."""
    if len(order) < 2:
        return Markup()
    begin, end = min(one.earliest for one in order), max(one.latest for one in order)
    room = max(round(0.08 * (end - begin)), 2)
    first, last = max(begin - room, 0), end + room
    height = ROW * len(order)
    bars, names = [], []
    for index, (one, how) in enumerate(told_order(order)):
        middle = ROW * (index + 0.5)
        start, width = (one.earliest - first) / (last - first), (one.latest - one.earliest) / (last - first)
        told = element("title", lag_told(one, how, unit))
        bars.append(element("line", class_="grid", x1="0", x2="100%", y1=middle, y2=middle))
        bars.append(
            element(
                "rect",
                told,
                class_=f"lag {'same' if how.startswith('at about') else 'after'}",
                x=percentage(min(start, 1 - LEAST)),
                width=percentage(max(width, LEAST)),
                y=middle - 6,
                height=12,
                rx=3,
            )
        )
        names.append(element("text", _shortened(lag_name(one.metric)), x="100%", dx=-8, y=middle + 3.5))
    names.append(element("text", unit, x="100%", dx=-8, y=height + 16))
    ticks = step_labels(first, last, height)
    label = "; ".join(lag_told(one, how, unit) for one, how in told_order(order))
    scale = element("svg", names, class_="layer-names", width="100%", height=height + 22, aria_hidden="true")
    field = element("svg", bars, ticks, class_="field", width="100%", height=height + 22, role="img", aria_label=label)
    caption = element("figcaption", element("span", "What broke first", class_="panel-title"))
    figure = element("figure", caption, element("div", scale, field, class_="plot wide-scale"), class_="panel strip")
    return join(figure, element("p", CAUTION, class_="soft"))


def lag_lines(order: tuple[Break, ...], unit: str = "step") -> list[str]:
    """Each break in a line, for a terminal."""
    return [lag_told(one, how, unit) for one, how in told_order(order)]


def lag_told(one: Break, how: str, unit: str = "step") -> str:
    """One break in words: "then training loss up, between steps 200 and 206"."""
    where = f"at {unit} {format.count(one.earliest)}"
    if one.latest > one.earliest:
        where = f"between {unit}s {format.count(one.earliest)} and {format.count(one.latest)}"
    return f"{how} {lag_name(one.metric)} {one.direction}, {where}"


def lag_name(metric: str) -> str:
    """A metric as a reader says it; one of a layer with the layer's name."""
    if metric.startswith("layer/"):
        layer, _, name = metric.removeprefix("layer/").rpartition("/")
        return f"{metric_name(name)} of {layer}"
    return metric_name(metric)


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
