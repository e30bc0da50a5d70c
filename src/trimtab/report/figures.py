"""Which diagrams a report has: the learning curves, the part of them that a finding speaks of, and all the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from trimtab.doctor import Finding
from trimtab.events import Advise, Evaluate
from trimtab.report.diagram import draw
from trimtab.report.gather import Report
from trimtab.report.markup import Markup, element, percentage
from trimtab.report.panel import Panel, Role, Shade, Trace, Window
from trimtab.report.words import SEVERITIES, metric_name, metric_unit
from trimtab.runs import format
from trimtab.runs.described import describe_decision
from trimtab.runs.leading import leading_of
from trimtab.runs.record import event_to_json
from trimtab.runs.unnamed_losses import SEVERAL

LANE: Final = 22
MOST_PANELS: Final = 24
_GAPS: Final = ("generalization_gap", "validation - training loss")
_MAIN: Final = ("train/loss", "validation/loss", *_GAPS, "learning_rate", "grad_norm")
_AVERAGED: Final = "validation/loss@"
_DULL: Final = ("tokens", "skipped")
_MACHINE: Final = ("time/", "hardware/")
_TELLING: Final = ("cpu_percent", "process_memory_bytes", "utilization_percent", "power_watts", "temperature_celsius")
"""Of the machine's readings, those that are drawn; means of all are told beside the time."""
_ROLES: Final[dict[str, Role]] = {
    "training_slice/loss": "train",
    "learning_rate": "rate",
    "grad_norm": "gradient",
    "generalization_gap": "gap",
    "validation - training loss": "gap",
}


def learning_curves(report: Report) -> Markup:
    """Loss, what else leads, gap, learning rate and gradient norm over the same steps, with findings and decisions
    above."""
    shown = [*_leading(report), *_GAPS, "learning_rate", "grad_norm"]
    panels = [_loss_panel(report, 280), *_single_panels(report, shown)]
    onsets = tuple((finding.onset_step, finding.code) for finding in report.diagnosis.findings)
    window = Window(_origin(report), max(report.last_step, _origin(report) + 1), onsets, unit=report.diagnosis.unit)
    drawn = [draw(panel, window) for panel in panels if panel.traces]
    return _stack([_lanes(report, window), *drawn], window)


def finding_curves(report: Report, finding: Finding) -> Markup:
    """The curves that a finding's evidence speaks of, around the steps where it shows."""
    panels, window = finding_panels(report, finding), _around(report, finding)
    drawn = [draw(panel, replace(window, shades=shades_of(finding, panel))) for panel in panels]
    return _stack(drawn, window) if drawn else Markup()


def finding_panels(report: Report, finding: Finding) -> list[Panel]:
    """What a finding's evidence speaks of, three panels at most; the training loss where it speaks of no curve."""
    names = list(dict.fromkeys(item.metric for item in finding.evidence if item.metric in report.curves))
    if not names and "train/loss" in report.curves:
        names = ["train/loss"]
    panels: list[Panel] = []
    if any(name in ("train/loss", "validation/loss") for name in names):
        panels.append(_loss_panel(report, 170, {*names, "train/loss"}))
    panels += _single_panels(report, [name for name in names if name not in ("train/loss", "validation/loss")], 110)
    return [panel for panel in panels[:3] if panel.traces]


def with_loss(report: Report, panels: list[Panel]) -> list[Panel]:
    """The same with the losses before them, where none of them is of a loss."""
    loss = _loss_panel(report, 170)
    return panels if not loss.traces or any("train/loss" in panel.metrics for panel in panels) else [loss, *panels]


def whole_run(report: Report, finding: Finding) -> Window:
    """All steps, with where a finding begins."""
    begin = _origin(report)
    onsets = ((finding.onset_step, f"onset of {finding.code}"),)
    return Window(begin, max(report.last_step, begin + 1), onsets, unit=report.diagnosis.unit)


def other_curves(report: Report) -> list[Markup]:
    """Every further metric, small; of the machine the most telling ones."""
    apart = {*_MAIN, *_DULL, *_leading(report)}
    names = [name for name in report.curves if name not in apart and not name.startswith(_AVERAGED)]
    names = [name for name in names if not name.startswith(_MACHINE) or name.rsplit("/", 1)[-1] in _TELLING]
    names += [name for name in ("skipped",) if name in report.curves and (report.curves[name].high > 0).any()]
    window = Window(_origin(report), max(report.last_step, _origin(report) + 1), unit=report.diagnosis.unit)
    panels = list(_single_panels(report, names, 110))[:MOST_PANELS]
    return [_stack([drawn], window) for panel in panels if (drawn := draw(panel, window))]


def _leading(report: Report) -> list[str]:
    """The metrics that lead, but the losses, which have a panel of their own."""
    return [name for name in leading_of(report.facts) if name.partition("@")[0] != "validation/loss"]


def _origin(report: Report) -> int:
    """Where the axis of steps begins: at 0 unless the record begins late."""
    return 0 if report.first_step <= 1 + 0.05 * report.last_step else report.first_step


def _loss_panel(report: Report, height: int, wanted: Iterable[str] = ("train/loss", "validation/loss")) -> Panel:
    traces = []
    if "train/loss" in wanted and report.curves.get("train/loss") is not None:
        traces.append(Trace("training", report.curves["train/loss"], "train"))
    if "validation/loss" in report.curves:
        best = report.best.step if report.best is not None and report.best.metric == "validation/loss" else None
        traces.append(Trace("validation", report.curves["validation/loss"], "validation", True, best))
    for name, curve in report.curves.items():
        if name.startswith(_AVERAGED):
            best = report.best.step if report.best is not None and report.best.metric == name else None
            traces.append(Trace(f"validation, {name.removeprefix(_AVERAGED)} weights", curve, "other", True, best))
    return Panel(
        "loss",
        tuple(traces),
        _unit_of_loss(report),
        height,
        metrics=("train/loss", "validation/loss"),
    )


def _unit_of_loss(report: Report) -> str:
    """What the loss is in: of a regression and where no task is known, nobody says."""
    task = report.facts.get("task")
    if task in (None, "regression", SEVERAL):
        return ""
    return f"nats per {report.counted.removesuffix('s')}"


def _single_panels(report: Report, names: Sequence[str], height: int = 120) -> Iterator[Panel]:
    for name in names:
        curve = report.curves.get(name)
        if curve is None or not (curve or curve.bad.any()):
            continue
        role = _ROLES.get(name, "validation" if name.startswith("validation/") else "other")
        is_points = len(curve.last) <= 400 and name.startswith(("validation/", "training_slice/", *_GAPS))
        title = metric_name(name)
        from_zero = role in ("rate", "gap") or metric_unit(name) in ("bytes", "seconds", "tokens/s")
        yield Panel(
            title,
            (Trace(title, curve, role, is_points),),
            metric_unit(name),
            height,
            from_zero=from_zero,
            positive=role in ("gradient", "other"),
            metrics=(name,),
        )


def _around(report: Report, finding: Finding) -> Window:
    """Evidence and onset with half as much on either side; the whole run when that is most of it."""
    begin, end = _origin(report), max(report.last_step, _origin(report) + 1)
    ranges = [item.steps for item in finding.evidence if item.steps[0] <= end and item.steps[1] >= begin]
    first = min([finding.onset_step, *(max(steps[0], begin) for steps in ranges)])
    last = max([finding.onset_step, *(min(steps[1], end) for steps in ranges)])
    room = max(round(0.75 * (last - first)), round(0.06 * (end - begin)), 10)
    first, last = max(begin, first - room), min(end, last + room)
    if last - first > 0.55 * (end - begin) or last <= first:
        first, last = begin, end
    return Window(first, last, ((finding.onset_step, f"onset of {finding.code}"),), unit=report.diagnosis.unit)


def shades_of(finding: Finding, panel: Panel) -> tuple[Shade, ...]:
    """The steps that the evidence on this panel's metrics names; the same steps are shaded once."""
    by_range: dict[tuple[int, int], list[str]] = {}
    for item in finding.evidence:
        if item.metric in panel.metrics:
            by_range.setdefault(item.steps, []).append(item.text)
    return tuple(Shade(first, last, " ".join(labels)) for (first, last), labels in by_range.items())


def _stack(content: Sequence[Markup | None], window: Window) -> Markup:
    return element("div", content, class_="stack", data_first=window.first, data_last=window.last)


def _lanes(report: Report, window: Window) -> Markup | None:
    """Findings, decisions and resumes as signs above the curves."""
    signs: list[tuple[int, Markup]] = []
    for index, finding in enumerate(report.diagnosis.findings, start=1):
        since = format.count(finding.onset_step)
        told = f"{SEVERITIES[finding.severity]} {finding.code}, from {report.diagnosis.unit} {since}"
        circle = element("circle", class_=f"flag {finding.severity}", cx=0, cy=0, r=9)
        digit = element("text", str(index), class_="flag", x=0, y=4)
        inner = element("g", element("title", told), circle, digit)
        signs.append((finding.onset_step, element("a", inner, href=f"#finding-{index}", aria_label=told)))
    for step, why in report.resumed:
        told = f"step {format.count(step)}: {why}"
        signs.append((step, element("g", element("title", told), element("path", class_="sign", d="M-4 -6l9 6l-9 6z"))))
    for taken in report.decisions:
        if not isinstance(taken.decision, Evaluate | Advise):
            told = f"step {format.count(taken.step)}, {describe_decision(event_to_json(taken))}"
            sign = element("path", class_="sign", d="M0 -7l7 7l-7 7l-7 -7z")
            signs.append((taken.step, element("g", element("title", told), sign)))
    if not signs:
        return None
    placed: list[list[float]] = []
    drawn = []
    for step, sign in sorted(signs, key=lambda item: item[0]):
        place = min(max(window.place(step), 0.0), 1.0)
        row = next((i for i, row in enumerate(placed) if place - row[-1] >= 0.07), len(placed))
        if row == len(placed):
            placed.append([])
        placed[row].append(place)
        drawn.append((place, row, sign))
    svgs = [
        element("svg", sign, x=percentage(place), y=row * LANE + LANE // 2, overflow="visible")
        for place, row, sign in drawn
        if row < 6
    ]
    height = min(len(placed), 6) * LANE
    field = element(
        "svg",
        svgs,
        class_="lanes",
        width="100%",
        height=height,
        role="group",
        aria_label="findings and decisions by step",
    )
    return element("div", field, class_="plot lane")
