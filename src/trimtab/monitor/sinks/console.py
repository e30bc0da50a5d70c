"""A run as a person follows it: in a terminal, in a log, or as JSON lines."""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TextIO, final

import numpy as np
import rich.console
from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trimtab import __version__
from trimtab.events import (
    Advise,
    AlertRaised,
    ArtifactLogged,
    CheckpointSaved,
    DecisionTaken,
    Evaluate,
    EvaluationEnded,
    Event,
    FindingsChanged,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
)
from trimtab.runs import event_to_json, format
from trimtab.runs.metrics import better_direction, of_the_same_weights
from trimtab.runs.printable import printable
from trimtab.runs.summary import (
    YARDSTICKS,
    describe_decision,
    describe_finding,
    describe_quality,
    next_command,
    wrapped,
)

_SMOOTHING: Final = 0.95
"""Weight of the past in the moving average of the loss, per step."""
_REDRAW_SECONDS: Final = 0.2
_SAMPLE_LINES: Final = 4
_LAST_SAMPLE_LINES: Final = 14
_MOST_ALERTS: Final = 3
"""Steps that are told one by one; the record has all."""
_CLEAR: Final = "\r\x1b[2K"
"""To the beginning of the row, which is emptied."""
_SEVERITY: Final = {"error": "bold red", "warning": "yellow"}
_STATUS: Final = {"finished": "bold green", "stopped": "bold green", "interrupted": "bold yellow"}


@final
class Console:
    """A monitor that writes to `stream`.

    In a terminal one line is drawn again and again below the lines that stay. Elsewhere, or when `plain`, there
    are only lines that stay, without control characters: progress at most every `every_seconds` and every
    hundredth of the run, except the first. With `log_format="json"` each event is a line of JSON, as in the
    record. A stream that is closed or breaks is no error: nothing more is written.
    """

    def __init__(
        self,
        stream: TextIO,
        total_steps: int,
        *,
        plain: bool | None = None,
        log_format: Literal["text", "json"] = "text",
        every_seconds: float = 10.0,
        metric: str = "validation/loss",
    ) -> None:
        """`metric` decides which evaluation is marked as the best so far."""
        self._stream = stream
        self._json = log_format == "json"
        self._every_seconds = every_seconds
        self._metric = metric
        self._total_steps = max(total_steps, 1)
        if plain is None:
            plain = not _is_terminal(stream)
        # Rich makes the text; writing it is ours: rich ends the process when a terminal goes away.
        self._screen: rich.console.Console | None = None
        if not plain and not self._json:
            self._screen = rich.console.Console(
                file=io.StringIO(), force_terminal=True, highlight=False, markup=False, emoji=False
            )
        self._below: Text | None = None
        self._broken = False
        self._begun = time.monotonic()
        self._last_drawn = -math.inf
        self._last_drawn_step = 0
        self._last_told: dict[str, int] = {}
        self._preparing = ""
        self._run = self._next = ""
        self._task, self._source = "causal_lm", "config"
        self._step = 0
        self._labelled_step: int | None = None
        self._started = False
        self._smoothed = self._weight = 0.0
        self._best: float | None = None
        self._best_bits: float | None = None
        self._yardsticks: Mapping[str, Any] = {}
        self._sample_text = ""
        self._newest: float | None = None
        self._skipped = 0
        self._alerts = 0
        self._shown: dict[str, str] = {}
        self._busy = 0.0
        self._pace: deque[tuple[float, int]] = deque(maxlen=50)

    def preparing(self, what: str, fraction: float) -> None:
        """Show what is done before the first step, and how far it is (0 to 1)."""
        what = printable(what, limit=60)
        if self._json or self._started:
            return
        if self._screen is not None:
            line = Text.assemble("  ", _bar(fraction, 20), ("  " + what, "dim"))
            self._draw(line, now=what != self._preparing)
        elif what != self._preparing:
            self._write(f"{what} ...\n")
        self._preparing = what

    def observe(self, event: Event) -> None:
        """Show `event`."""
        if self._json:
            if isinstance(event, StepsEnded):
                event = replace(event, layers={})
            self._write(json.dumps(event_to_json(event), ensure_ascii=True) + "\n")
            return
        match event:
            case RunStarted():
                self._begin(event)
            case StepsEnded():
                self._progress(event)
            case EvaluationEnded():
                self._evaluation(event)
            case CheckpointSaved():
                self._busy += event.stall_seconds
                if self._screen is not None or self._is_time_to_tell("saved", event.step):
                    shared = f" beside {format.size(event.shared_bytes)} unchanged" if event.shared_bytes else ""
                    written = format.size(event.bytes - event.shared_bytes)
                    text = f"saved {written}{shared} ({printable(event.reason, limit=100)})"
                    self._say(self._at(event.step), Text(text, "dim"))
            case ArtifactLogged(kind="sample"):
                self._sample(event)
            case ArtifactLogged(kind="text", name="diagnosis"):
                self._diagnosis(event)
            case ArtifactLogged(kind="text", name="goodput"):
                for index, line in enumerate(wrapped(event.text, min(self._width() - 14, 100))):
                    self._say("" if index else "time", Text(line))
            case ArtifactLogged(kind="text", name="quantized" | "calibration"):
                self._say("judged", Text(event.text))
            case DecisionTaken(decision=Save() | Evaluate()):
                pass
            case DecisionTaken(decision=Advise(finding=finding)) if finding:
                pass  # it is told as a finding
            case DecisionTaken():
                self._say(self._at(event.step), Text(describe_decision(event_to_json(event)), "bold yellow"))
            case FindingsChanged():
                self._findings(event)
            case AlertRaised():
                self._alert(event)
            case RunEnded():
                self._end(event)

    def close(self) -> None:
        """Take the progress line away; closing again does nothing."""
        if self._below is not None:
            self._below = None
            self._write(_CLEAR)
        if self._next:
            self._say(None, Text.assemble(("next: ", "dim"), self._next))
            self._next = ""

    def _begin(self, event: RunStarted) -> None:
        self._step, self._total_steps = event.step, max(event.total_steps, 1)
        self._smoothed = self._weight = 0.0
        self._busy = 0.0
        self._pace.clear()
        if self._started:
            self._say(self._at(event.step), Text(f"went back to step {format.count(event.step)}", "bold yellow"))
            return
        self._started = True
        facts = event.facts
        self._run = str(facts.get("run", ""))
        self._task = str(facts.get("task", self._task))
        self._source = str(facts.get("begun_by", self._source))
        self._yardsticks = facts.get("yardsticks") or {}
        if isinstance(best := facts.get("best_value"), int | float):
            self._best = float(best)
        if isinstance(metrics := facts.get("metrics"), Mapping):
            self._newest = metrics.get(self._shown_name("loss", metrics))
        self._say(None, Text.assemble(("trimtab ", "bold"), (__version__, "dim")))
        for label, text in _describe_facts(facts, event.total_steps):
            self._say(label, Text(printable(text)))
        if event.resumed_from is not None:
            text = f"goes on from step {format.count(event.resumed_from)}, attempt {event.attempt}"
            self._say("resumed", Text(text, "bold"))
        for note in list(facts.get("notes", ()))[:8]:
            self._say("note", Text(printable(str(note), limit=300), "yellow"))
        self._say(None, Text())
        self._draw(self._line(), now=True)

    def _progress(self, event: StepsEnded) -> None:
        # After a resume the first windows end before the step of the checkpoint, which has been shown already.
        self._step = max(self._step, event.last_step)
        nothing = np.empty(0)
        losses = event.per_step.get("train/loss", nothing)
        for loss in losses:
            if math.isfinite(loss):
                self._smoothed = _SMOOTHING * self._smoothed + (1 - _SMOOTHING) * float(loss)
                self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        # By the seconds of the steps themselves: a window is told when later ones are done already.
        seconds = event.per_step.get("step_seconds", nothing)
        if not self._pace:  # the first step warms up: it foretells nothing
            self._pace.append((self._busy, event.first_step))
            seconds = seconds[1:]
        self._busy += float(seconds.sum())
        self._pace.append((self._busy, event.last_step))
        shown: dict[str, str] = {}
        if len(losses):
            whole = self._weight and math.isfinite(losses[-1])
            shown["loss"] = format.decimal(self._smoothed / self._weight if whole else float(losses[-1]))
        if self._newest is not None:
            shown["val"] = format.decimal(self._newest)
        if len(rates := event.per_step.get("learning_rate", nothing)):
            shown["lr"] = format.scientific(float(rates[-1]))
        if len(norms := event.per_step.get("grad_norm", nothing)):
            shown["grad"] = f"{float(norms[-1]):.3g}"
        if (speed := event.values.get("tokens_per_second")) is not None:
            shown["speed"] = format.tokens_per_second(speed)
        if (left := self._seconds_left()) is not None:
            shown["left"] = format.duration(left)
        self._shown = shown
        skipped = int(event.per_step.get("skipped", nothing).sum())
        if skipped:
            self._skipped += skipped
            if self._is_time_to_tell("skipped", event.last_step):
                where = f"steps {event.first_step} to {event.last_step}"
                text = f"{skipped} of {where} skipped: not finite, or an outlier"
                self._say(self._at(event.last_step), Text(text, "yellow"))
        self._draw(self._line(), now=self._last_drawn_step == 0)

    def _evaluation(self, event: EvaluationEnded) -> None:
        self._busy += event.seconds
        text = Text()
        judged = event.metrics.get(self._metric, math.nan)
        better = math.isfinite(judged) and (
            self._best is None
            or (judged > self._best if better_direction(self._metric) == "higher" else judged < self._best)
        )
        if (loss := event.metrics.get(self._shown_name("loss", event.metrics))) is not None:
            self._newest = loss
            if self._shown:
                self._shown["val"] = format.decimal(loss)
            if self._below is not None:
                self._below = self._line()
            kind = self._shown_name("loss", event.metrics).partition("@")[2]
            text.append(f"val {kind} " if kind else "val ", "dim")
            text.append(format.decimal(loss), "bold green" if better else "bold")
            for name, other in event.metrics.items():
                if name.startswith("validation/loss@") and not kind:
                    text.append(f"   {printable(name.partition('@')[2])} ", "dim").append(format.decimal(other), "bold")
        elif math.isfinite(judged):
            text.append(f"{printable(self._metric)} ", "dim").append(format.decimal(judged), "bold")
        if (bits := event.metrics.get(self._shown_name("bits_per_byte", event.metrics))) is not None:
            text.append("   " + format.bits_per_byte(bits))
        if (accuracy := event.metrics.get(self._shown_name("accuracy", event.metrics))) is not None:
            text.append("   accuracy ", "dim").append(f"{100 * accuracy:.1f} %")
        if (gap := event.metrics.get(self._shown_name("generalization_gap", event.metrics, ""))) is not None:
            text.append("   gap ", "dim").append(format.signed(gap))
        text.append(f"   {format.duration(time.monotonic() - self._begun)}", "dim")
        if better:
            name = of_the_same_weights("validation/bits_per_byte", self._metric)
            self._best, self._best_bits = judged, event.metrics.get(name)
            text.append("   ★ best" if self._screen is not None else "   best", "green")
        self._say(self._at(event.step), text)

    @staticmethod
    def _shown_name(name: str, metrics: Mapping[str, float], room: str = "validation/") -> str:
        """The metric of the weights that are trained, or of their average where only that was judged."""
        plain = f"{room}{name}"
        return plain if plain in metrics else next((one for one in metrics if one.startswith(f"{plain}@")), plain)

    def _sample(self, event: ArtifactLogged) -> None:
        self._sample_text = event.text
        if not self._is_time_to_tell("sample", event.step):
            return
        if self._screen is None:
            text = " ".join(printable(event.text).split())
            self._say(self._at(event.step), Text(f"writes: {printable(text, limit=120)}"))
        else:
            self._say(self._at(event.step), _panel(event.text, _SAMPLE_LINES, "sample"))

    def _findings(self, event: FindingsChanged) -> None:
        for finding in event.findings:
            text = Text(describe_finding(finding), _SEVERITY.get(str(finding.get("severity")), ""))
            for remedy in list(finding.get("remedies", ()))[:1]:
                text.append(f" → {printable(str(remedy.get('summary', '')))}", "default")
            self._say(self._at(event.step), text)

    def _alert(self, event: AlertRaised) -> None:
        if event.kind in ("non_finite_step", "outlying_step"):
            self._alerts += 1  # the record has every one of them
            if self._alerts > _MOST_ALERTS:
                return
        self._say(self._at(event.step), Text(printable(event.text, limit=300), "bold yellow"))

    def _end(self, event: RunEnded) -> None:
        if self._screen is None and self._last_drawn_step < self._step:
            self._draw(self._line(), now=True)
        self.close()
        self._say(None, Text())
        style = _STATUS.get(event.status, "bold red")
        elapsed = format.duration(time.monotonic() - self._begun)  # the clock of the evaluations
        text = Text.assemble((event.status, style), f": {printable(event.reason)}, {elapsed}")
        self._say(None, text)
        if event.best_step is not None and event.best_value is not None:
            best = f"{printable(self._metric)} {format.decimal(event.best_value)}"
            restored = ", restored" if event.restored_step == event.best_step else ""
            self._say("best", Text(f"{best} at step {format.count(event.best_step)}{restored}"))
        if quality := describe_quality(self._best_bits, self._yardsticks):
            self._say("quality", Text(quality, "bold"))
        if self._sample_text and self._screen is not None:
            self._say("writes", _panel(self._sample_text, _LAST_SAMPLE_LINES, "the last sample"))
        if self._skipped:
            self._say("skipped", Text(f"{format.count(self._skipped)} updates", "yellow"))
        self._next = next_command(event.status, self._run, self._source, self._task) if self._run else ""

    def _diagnosis(self, event: ArtifactLogged) -> None:
        """The doctor's verdict, which comes after the end."""
        for index, line in enumerate(wrapped(event.text, min(self._width() - 14, 100))):
            self._say("verdict" if index == 0 else "", Text(line))
        if event.path is not None and self._run:
            self._say("report", Text(f"{printable(self._run)}/{event.path}"))
        self.close()

    def _at(self, step: int) -> str:
        """The label of what happened at `step`; in a terminal only the first of several lines says it."""
        if self._screen is not None and step == self._labelled_step:
            return ""
        self._labelled_step = step
        return f"step {format.count(step):>{len(format.count(self._total_steps))}}"

    def _seconds_left(self) -> float | None:
        (then, earlier), (now, step) = self._pace[0], self._pace[-1]
        if step <= earlier or now <= then:
            return None
        return (now - then) / (step - earlier) * max(self._total_steps - step, 0)

    def _is_time_to_tell(self, kind: str, step: int) -> bool:
        """Whether something that happens often is told again: at first, then every twentieth of the run."""
        last = self._last_told.get(kind)
        if last is not None and step - last < self._total_steps / 20:
            return False
        self._last_told[kind] = step
        return True

    def _line(self) -> Text:
        """The progress line: as many parts as fit, the least important left out first."""
        fraction = self._step / self._total_steps
        steps = f"{format.count(self._step)}/{format.count(self._total_steps)}"
        labels = {"loss": "loss ", "val": "val ", "lr": "lr ", "grad": "grad ", "speed": "", "left": ""}
        parts = {
            name: Text.assemble((labels[name], "dim"), (value, "bold" if name == "loss" else ""))
            for name, value in self._shown.items()
        }
        if "left" in parts:
            parts["left"].append(" left", "dim")
        if self._skipped:
            parts["skipped"] = Text(f"skipped {self._skipped}", "yellow")
        if not self._shown:
            parts["waiting"] = Text("first steps …" if self._screen is not None else "first steps", "dim")
        if self._screen is None:
            elapsed = Text(f"{format.duration(time.monotonic() - self._begun)} elapsed")
            return Text("   ").join([Text(f"{format.percent(fraction):>5}"), *parts.values(), elapsed])
        head = Text.assemble(f"  {steps}", (f"  {format.percent(fraction)}", "dim"))
        width = self._width() - 1
        for name in ("grad", "lr", "speed", "val", "skipped", "left"):
            if head.cell_len + 14 + sum(part.cell_len + 2 for part in parts.values()) > width:
                parts.pop(name, None)
        room = width - head.cell_len - 2 - sum(part.cell_len + 2 for part in parts.values())
        bar = [_bar(fraction, min(room, 30))] if room >= 8 else []
        line = Text("  ").join([head, *bar, *parts.values()])
        line.truncate(width, overflow="ellipsis")
        return line

    def _draw(self, line: Text, *, now: bool) -> None:
        """Show the progress line, if it is time."""
        seconds = time.monotonic() - self._last_drawn
        if self._screen is not None:
            if now or seconds >= _REDRAW_SECONDS:
                self._last_drawn, self._last_drawn_step = time.monotonic(), self._step
                self._below = line
                self._write(_CLEAR + self._rendered(line, end="\r"))
        elif self._shown and (
            now or (seconds >= self._every_seconds and self._step - self._last_drawn_step >= self._total_steps / 100)
        ):
            self._last_drawn, self._last_drawn_step = time.monotonic(), self._step
            self._say(self._at(self._step), line)

    def _say(self, label: str | None, content: Text | Panel) -> None:
        """Write a line that stays, with its label in a column of its own."""
        if self._screen is None:
            if isinstance(content, Text):
                self._write(content.plain + "\n" if label is None else f"{label:<8}  {content.plain}\n")
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True, min_width=11)
        grid.add_column(overflow="fold")
        grid.add_row(f"  {label}", content)
        text = self._rendered(content if label is None else grid, end="\n" if label is None else "")
        if self._below is None:
            self._write(text)
        else:
            self._write(_CLEAR + text + self._rendered(self._below, end="\r"))

    def _rendered(self, content: Text | Panel | Table, *, end: str) -> str:
        """`content` with the codes for colours, as wide as the terminal is now."""
        assert self._screen is not None
        self._screen.width = self._width()
        with self._screen.capture() as capture:
            self._screen.print(content, end=end)
        return capture.get()

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        if not columns:  # a terminal that was given no size
            columns = int(given) if (given := os.environ.get("COLUMNS", "")).isdigit() else 80
        return max(columns, 20)

    def _write(self, text: str) -> None:
        if self._broken:
            return
        try:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):
            self._broken = True


def _describe_facts(facts: Mapping[str, Any], total_steps: int) -> list[tuple[str, str]]:
    """What is known before step 1, label and text; only what is there."""
    lines: list[tuple[str, str]] = []

    def number(*path: str) -> float | None:
        value: Any = facts
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) else None

    def tell(label: str, *parts: str | None) -> None:
        if text := ", ".join(part for part in parts if part):
            lines.append((label, text))

    def worded(value: float | None, words: str) -> str | None:
        return None if value is None else f"{format.short(value)} {words}"

    frozen = number("parameters", "frozen")
    tell("model", worded(number("parameters", "total"), "parameters"), worded(frozen or None, "frozen"))
    tell("data", str(facts["source"]).replace(f"{os.getcwd()}{os.sep}", "") if facts.get("source") else None)
    tell(
        "tokens",
        worded(number("training", "tokens"), "to train on"),
        worded(number("validation", "tokens"), "to validate"),
        worded(number("tokenizer", "vocabulary_size"), "in the vocabulary"),
    )
    epochs = number("epochs")
    tell(
        "plan",
        f"{format.count(total_steps)} steps",
        worded(number("tokens_per_step"), "tokens each"),
        None if epochs is None else f"{epochs:.2g} epochs",
    )
    plan = facts.get("plan")
    if isinstance(plan, Mapping):
        compiled = plan.get("compile")
        threads = number("plan", "threads")
        tell(
            "machine",
            str(plan.get("device", "")),
            None if threads is None else f"{threads:.0f} thread{'s' if threads != 1 else ''}",
            str(plan.get("precision", "")),
            "compiled" if isinstance(compiled, Mapping) and compiled.get("chosen") else None,
        )
    yardsticks = {name: number("yardsticks", name) for name in YARDSTICKS}
    known = [f"{name} {value:.2f}" for name, value in yardsticks.items() if value is not None]
    tell("to beat", ", ".join(known) + " bits/byte" if known else None)
    tell("run", str(facts["run"]) if facts.get("run") else None)
    return lines


def _bar(fraction: float, width: int) -> Text:
    """A bar in half cells."""
    halves = round(2 * width * min(max(fraction, 0.0), 1.0))
    full, half = divmod(halves, 2)
    return Text.assemble(("━" * full + "╸" * half, "cyan"), ("━" * (width - full - half), "bright_black"))


def _panel(text: str, num_lines: int, title: str) -> Panel:
    """The first lines of a text that the model wrote."""
    lines = [line for line in printable(text, lines=True).splitlines() if line.strip()]
    shown = "\n".join(lines[:num_lines]) + (" …" if len(lines) > num_lines else "")
    body = Text(shown or " ", no_wrap=True, overflow="ellipsis")
    return Panel(body, box=box.ROUNDED, border_style="dim", style="", title=title, title_align="left", width=76)


def _is_terminal(stream: TextIO) -> bool:
    """Whether lines can be drawn again there."""
    try:
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        return stream.isatty() and os.environ.get("TERM") != "dumb" and encoding in ("utf8", "utf8sig")
    except (OSError, ValueError):
        return False
