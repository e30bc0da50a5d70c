"""Where the model is wrong: reliability, slices, confusion of classes, the hardest texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trimtab.report.blocks import folded, scrolled
from trimtab.report.gather import Report
from trimtab.report.markup import Content, Markup, element, join
from trimtab.runs import format
from trimtab.runs.calibration import in_words

SIDE: Final = 220
MARGIN: Final = 34
MOST_SHOWN: Final = 20
"""Classes in the table of which is taken for which."""


def wrong(report: Report) -> Markup:
    """What `evaluation.details` or `trimtab evaluate RUN --details` found, and the temperature."""
    found, parts = report.judged, list[Content]()
    if report.calibration:
        parts.append(element("p", f"Calibration of answers: {in_words(report.calibration)}."))
    curves = [("as it is", found.get("reliability"))] if found.get("reliability") else []
    if "before" in report.calibration:
        curves = [(name, report.calibration[name]["reliability"]) for name in ("before", "after")]
    drawn = [_reliability(name, bins) for name, bins in curves if bins]
    if drawn:
        parts.append(element("div", drawn, class_="small"))
    for name, rows in found.get("slices", {}).items():
        if name != "class":
            parts.append(folded(f"By {name}", f"{len(rows)} groups", _rows(rows), is_open=True))
    if "classes" in found:
        parts.append(folded("By class", f"{len(found['classes'])} classes", _rows(found["classes"]), is_open=True))
    if "confusion" in found:
        parts.append(_confusion(found["confusion"]))
    if hardest := [one for one in found.get("hardest", ()) if one.get("text")]:
        texts = [element("p", element("b", format.decimal(one["loss"])), " ", str(one["text"])) for one in hardest]
        parts.append(folded("Hardest texts", f"the {len(texts)} with the highest loss", texts))
    return join(parts)


def _reliability(name: str, bins: Sequence[Mapping[str, float]]) -> Markup:
    """How often answers are right, by how sure they are; on the line they would be as right as they are sure."""
    most = max(bin_["count"] for bin_ in bins)
    parts = [element("line", class_="base", x1=MARGIN, y1=SIDE, x2=MARGIN + SIDE, y2=0)]
    for bin_ in bins:
        x, width = MARGIN + SIDE * bin_["low"], SIDE * (bin_["high"] - bin_["low"]) - 1
        height = SIDE * bin_["accuracy"]
        title = element(
            "title",
            f"sure {bin_['confidence']:.1%}, right {bin_['accuracy']:.1%}: {format.count(bin_['count'])} answers",
        )
        opacity = f"{0.25 + 0.75 * (bin_['count'] / most) ** 0.5:.2f}"
        parts.append(
            element(
                "rect", title, class_="split-0", x=f"{x:.1f}", y=f"{SIDE - height:.1f}", width=f"{width:.1f}",
                height=f"{height:.1f}", fill_opacity=opacity,
            )
        )  # fmt: skip
        point_x, point_y = MARGIN + SIDE * bin_["confidence"], SIDE - height
        parts.append(element("circle", class_="point validation", cx=f"{point_x:.1f}", cy=f"{point_y:.1f}", r=2.5))
    for part in (0.0, 0.5, 1.0):
        parts.append(
            element("text", f"{part:.0%}", class_="tick", x=MARGIN - 4, y=SIDE * (1 - part) + 4, text_anchor="end")
        )
        parts.append(
            element("text", f"{part:.0%}", class_="tick", x=MARGIN + SIDE * part, y=SIDE + 16, text_anchor="middle")
        )
    told = ", ".join(f"sure {one['confidence']:.0%} right {one['accuracy']:.0%}" for one in bins)
    drawn = element(
        "svg",
        parts,
        class_="field",
        width=MARGIN + SIDE + 16,
        height=SIDE + 20,
        role="img",
        aria_label=f"{name}: {told}",
    )
    caption = element("figcaption", element("span", f"Right, by how sure: {name}", class_="panel-title"))
    return element("figure", caption, drawn, class_="panel")


def _rows(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """A table of whatever the rows hold."""
    names = [name for name in rows[0] if any(row.get(name) is not None for row in rows)] if rows else []
    head = element(
        "tr", [element("th", name.replace("_", " "), class_=None if name == "name" else "n") for name in names]
    )
    body = [
        element(
            "tr", [element("td", _cell(name, row.get(name)), class_=None if name == "name" else "n") for name in names]
        )
        for row in rows
    ]
    return scrolled(element("table", head, body))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1%}" if name in ("accuracy", "precision", "recall", "f1") else format.decimal(value)
    return format.count(value) if isinstance(value, int) else str(value)


def _confusion(found: Mapping[str, Any]) -> Markup:
    """Rows are what is right, columns what was said; of many classes the most frequent."""
    classes, counts = found["classes"], found["counts"]
    order = sorted(range(len(classes)), key=lambda place: -sum(counts[place]))[:MOST_SHOWN]
    order.sort()
    head = element("tr", element("th", "right \\ said"), [element("th", classes[place], class_="n") for place in order])
    rows = [
        element(
            "tr",
            element("th", classes[row]),
            [
                element("td", format.count(counts[row][column]), class_="n marked" if row == column else "n")
                for column in order
            ],
        )
        for row in order
    ]
    told = f"{len(order)} of {len(classes)} classes" if len(order) < len(classes) else f"{len(classes)} classes"
    return folded("Which class is taken for which", told, scrolled(element("table", head, rows)), is_open=True)
