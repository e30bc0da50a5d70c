"""A frame of `trimtab top`: one run with its curves, or several with a line each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trimtab.runs import format
from trimtab.runs.printable import printable, shortened
from trimtab.runs.reasons import reason_in_a_line

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS: Final = "_.-=+*%#"
_BAD: Final = "×"
_LOG_FROM: Final = 30.0
"""A curve whose largest value is so many times its smallest is drawn by its logarithm."""
_LABELS: Final[Mapping[str, str]] = {
    "train/loss": "train loss",
    "validation/loss": "val loss",
    "grad_norm": "grad norm",
    "grad_cosine": "grad cosine",
    "learning_rate": "rate",
    "tokens_per_second": "tokens/s",
    "mfu": "MFU",
    "memory_bytes": "memory",
}
_STATUS: Final = {"running": "bold cyan", "finished": "bold green", "stopped": "bold green", "new": "dim"}
_SEVERITY: Final = {"error": "bold red", "warning": "yellow"}
_COLUMNS: Final = ("run", "state", "steps", "done", "train loss", "best", "tokens/s", "left", "alerts", "loss")
_SILENT_SECONDS: Final = 20.0
"""A heartbeat comes every 5 s."""


def render_run(frame: Mapping[str, Any], width: int, *, hint: str = "") -> RenderableType:
    """One run on at most `width` columns; `hint` is the last line."""
    parts: list[RenderableType] = [_head(frame, width), _state(frame), Text()]
    if frame["metrics"]:
        parts.append(_curves(frame, width))
    elif frame["status"] == "running":
        parts.append(Text("  it prepares, or is in its first steps", "dim"))
    for label, lines in (
        ("findings", [_finding_text(one) for one in frame["findings"]]),
        ("alerts", [Text(f"step {one['step']:,}  {printable(one['text'])}", "yellow") for one in frame["alerts"]]),
        ("decisions", [Text(f"step {one['step']:,}  {printable(one['text'])}") for one in frame["decisions"]]),
    ):
        if lines:
            parts += [Text(), _listed(label, lines, width)]
    if frame["damaged_lines"]:
        parts += [Text(), Text(f"  {frame['damaged_lines']} damaged lines of the record are left out", "yellow")]
    if hint:
        parts += [Text(), Padding(Text(hint, "dim"), (0, 0, 0, 2))]
    return Group(*parts)


def render_runs(frames: Sequence[Mapping[str, Any]], width: int, *, hint: str = "") -> RenderableType:
    """Several runs, one line each; what does not fit is left out, the least important first."""
    columns: dict[str, list[Text]] = {name: [Text(name, "dim")] for name in _COLUMNS}
    room = max(12, min(28, width // 4))
    for frame in frames:
        total, loss, speed = frame["total_steps"], *map(frame["metrics"].get, ("train/loss", "tokens_per_second"))
        left, alerts = frame["seconds_left"], frame["num_alerts"]
        cells = {
            "run": Text(shortened(printable(frame["name"]), room), "bold"),
            "state": Text(_state_word(frame), _STATUS.get(frame["status"], "bold red")),
            "steps": Text(_steps(frame["step"], total)),
            "done": Text(format.percent(frame["step"] / total) if total else "-"),
            "train loss": Text(_number(loss["last"]) if loss else "-"),
            "best": Text(format.decimal(frame["best"]["value"]) if frame["best"] else "-"),
            "tokens/s": Text(format.short(float(speed["last"])) if speed else "-"),
            "left": Text(format.duration(left) if left is not None else "-"),
            "alerts": Text(str(alerts) if alerts else "-", "bold yellow" if alerts else ""),
            "loss": Text(sparkline(loss["curve"], 20) if loss else "", "cyan"),
        }
        for name, cell in cells.items():
            columns[name].append(cell)
    for name in ("loss", "tokens/s", "steps", "alerts", "best", "left", "train loss", "done", "state"):
        if sum(max(cell.cell_len for cell in column) + 2 for column in columns.values()) > width + 2:
            del columns[name]
    table = Table.grid(padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(justify="left" if name in ("run", "state", "loss") else "right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return Group(table, *([Text(), Text(hint, "dim")] if hint else []))


def sparkline(curve: Sequence[float | str | None], width: int, *, blocks: str = _BLOCKS) -> str:
    """`curve` in `width` characters, low to high; a space where nothing was measured, × where it was not finite."""
    values = [None if value is None else float(value) for value in curve]
    groups = [values[len(values) * place // width : len(values) * (place + 1) // width] for place in range(width)]
    if len(values) < width:
        groups = [[values[len(values) * place // width]] if values else [] for place in range(width)]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    by_logarithm = low > 0 and high > _LOG_FROM * low

    def height(value: float) -> str:
        if high <= low:
            return blocks[0]
        part = math.log(value / low) / math.log(high / low) if by_logarithm else (value - low) / (high - low)
        return blocks[min(int(part * len(blocks)), len(blocks) - 1)]

    drawn = ""
    for group in groups:
        known = [value for value in group if value is not None]
        if not known:
            drawn += " "
        elif not all(map(math.isfinite, known)):
            drawn += _BAD
        else:
            drawn += height(sum(known) / len(known))
    return drawn


def without_unicode(text: str) -> str:
    """`text` where an encoding has no blocks and dashes."""
    plain = str.maketrans(_BLOCKS + _BAD + "━·", _PLAIN_BLOCKS + "x=-") | str.maketrans({"→": "->", "…": "..."})
    return text.translate(plain)


def _head(frame: Mapping[str, Any], width: int) -> Text:
    total, step = frame["total_steps"], frame["step"]
    state = _state_word(frame)
    name = shortened(printable(frame["name"]), max(12, width - 30))
    line = Text.assemble("  ", (name, "bold"), "  ", (state, _STATUS.get(frame["status"], "bold red")))
    parts = [f"step {_steps(step, total)}", *([format.percent(step / total)] if total else [])]
    if frame["seconds_left"] is not None:
        parts.append(f"{format.duration(frame['seconds_left'])} left")
    for part in parts:
        if line.cell_len + 2 + len(part) <= width:
            line.append("  ").append(part)
    room = min(width - line.cell_len - 2, 30)
    if total and room >= 8:
        full = round(room * min(max(step / total, 0.0), 1.0))
        line.append("  ").append("━" * full, "cyan").append("━" * (room - full), "bright_black")
    return line


def _state(frame: Mapping[str, Any]) -> Padding:
    parts: list[str] = []
    if frame["pid"] is not None:
        ago = frame["alive_seconds_ago"]
        alive = f"alive {format.duration(ago)} ago" if ago < _SILENT_SECONDS else f"silent for {format.duration(ago)}"
        parts.append(f"pid {frame['pid']} on {printable(frame['host'], limit=40)}, {alive}")
    if (frame["attempt"] or 1) > 1:
        parts.append(f"attempt {frame['attempt']}")
    if frame["seconds"] is not None:
        parts.append(f"{format.duration(frame['seconds'])} since it began")
    if frame["reason"]:
        parts.append(reason_in_a_line(frame["reason"]))
    if frame["best"]:
        best = frame["best"]
        parts.append(f"best {printable(best['metric'])} {format.decimal(best['value'])} at step {best['step']:,}")
    return Padding(Text(" · ".join(parts), "dim"), (0, 0, 0, 2))


def _curves(frame: Mapping[str, Any], width: int) -> Table:
    rows = []
    for name, metric in frame["metrics"].items():
        show = _shown_as(name)
        ends = ""
        if metric["minimum"] is not None:
            ends = f"{show(metric['minimum'])} to {show(metric['maximum'])}"
        rows.append((_label(name), show(metric["last"]), metric["curve"], ends))
    labels, values, between = (max(len(str(row[place])) for row in rows) for place in (0, 1, 3))
    room = width - 2 - labels - 2 - values - 2 - 1
    with_ends = room - between - 2 >= 16
    room = min(room - (between + 2 if with_ends else 0), len(rows[0][2]))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    if room >= 8:
        table.add_column(no_wrap=True)
    if with_ends:
        table.add_column(no_wrap=True)
    for label, value, curve, ends in rows:
        cells = [Text(f"  {label}", "dim"), Text(value, "bold")]
        cells += [Text(sparkline(curve, room), "cyan")] if room >= 8 else []
        cells += [Text(ends, "dim")] if with_ends else []
        table.add_row(*cells)
    return table


def _listed(label: str, lines: Sequence[Text], width: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=11)
    table.add_column(overflow="fold", max_width=max(width - 13, 20))
    for index, line in enumerate(lines):
        table.add_row(Text("" if index else f"  {label}", "dim"), line)
    return table


def _finding_text(finding: Mapping[str, Any]) -> Text:
    at = f"step {finding['step']:,}  " if isinstance(finding["step"], int) else ""
    style = _SEVERITY.get(finding["severity"], "")
    text = Text(at).append(printable(f"{finding['severity']} {finding['code']}"), style)
    text.append(f": {printable(finding['text'], limit=200)}")
    return text.append(f" → {printable(finding['remedy'], limit=200)}", "dim") if finding["remedy"] else text


def _state_word(frame: Mapping[str, Any]) -> str:
    if frame["status"] == "running" and (frame["alive_seconds_ago"] or 0.0) >= _SILENT_SECONDS:
        return "silent"
    return str(frame["status"])


def _steps(step: int, total: int | None) -> str:
    return f"{format.count(step)}/{format.count(total)}" if total else format.count(step)


def _label(name: str) -> str:
    if name.startswith("hardware/"):
        return shortened(printable(name.removeprefix("hardware/").replace("/", " ").replace("_", " ")), 24)
    return _LABELS.get(name, shortened(printable(name.removeprefix("validation/")), 24))


def _number(value: float | str | None) -> str:
    return "-" if value is None else format.decimal(float(value))


def _shown_as(name: str) -> Any:
    """How a value of this metric is written."""
    if name == "learning_rate":
        return lambda value: format.scientific(float(value))
    if name == "tokens_per_second":
        return lambda value: format.short(float(value))
    if name == "mfu":
        return lambda value: format.percent(float(value))
    if name.endswith("_bytes"):
        return lambda value: format.size(float(value))
    if name.endswith("_percent"):
        return lambda value: f"{float(value):.0f} %"
    return _number
