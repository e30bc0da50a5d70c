"""A run as a person follows it: in a terminal or in a log; or as JSON lines."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO, final

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
    Stop,
)
from trimtab.monitor.sinks.console_json import JsonLines
from trimtab.monitor.sinks.console_output import open_output
from trimtab.monitor.sinks.console_progress import Progress, preparing_line
from trimtab.monitor.sinks.console_texts import (
    LEADING,
    checkpoint_line,
    describe_facts,
    evaluation_line,
    finding_line,
    panel,
)
from trimtab.monitor.sinks.console_thinning import Thinning
from trimtab.runs import event_to_json, format
from trimtab.runs.described import describe_decision, describe_quality, wrapped
from trimtab.runs.leading import leading_of
from trimtab.runs.metrics import of_the_same_weights
from trimtab.runs.printable import printable
from trimtab.runs.reasons import next_command, reason_and_hint, would_repeat

_REDRAW_SECONDS: Final = 0.2
_SAMPLE_LINES: Final = 4
_LAST_SAMPLE_LINES: Final = 14
_MOST_ALERTS: Final = 3
"""Steps that are told one by one; the record has all."""
_STATUS: Final = {"finished": "bold green", "stopped": "bold green", "interrupted": "bold yellow"}


@final
class Console:
    """A monitor that writes to `stream`.

    In a terminal one line is drawn again and again below the lines that stay. Elsewhere, or when `plain`, there
    are only lines that stay, without control characters: progress at most every `every_seconds`, and of each kind as
    many as console_thinning.py allows. With `log_format="json"` each event is a line of JSON, as in the record. A
    stream that is closed or breaks is no error: nothing more is written.
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
        self._json = JsonLines(stream) if log_format == "json" else None
        self._output = open_output(stream, plain=plain)
        self._every_seconds = every_seconds
        self._metric = metric
        self._progress = Progress(total_steps, metric)
        self._thinning = Thinning()
        self._last_drawn = -math.inf
        self._last_drawn_step = 0
        self._last_sampled: int | None = None
        self._preparing = ""
        self._run = self._next = ""
        self._task, self._source = "causal_lm", "config"
        self._leading: tuple[str, ...] = LEADING
        self._labelled_step: int | None = None
        self._started = False
        self._best_bits: float | None = None
        self._yardsticks: Mapping[str, Any] = {}
        self._sample_text = ""
        self._skipped_in: StepsEnded | None = None
        self._stops: list[DecisionTaken] = []
        self._untold_evaluation: tuple[int, Text] | None = None

    def preparing(self, what: str, fraction: float) -> None:
        """Show what is done before the first step, and how far it is (0 to 1)."""
        what = printable(what, limit=200)
        if self._json is not None or self._started:
            return
        if self._output.redraws:
            self._draw(preparing_line(what, fraction, self._output.width - 1), now=what != self._preparing)
        elif what != self._preparing:
            self._output.say(None, Text(f"{what} ..."))
        self._preparing = what

    def observe(self, event: Event) -> None:
        """Show `event`."""
        if self._json is not None:
            self._json.observe(event)
            return
        self._tell_skipped(event)
        match event:
            case RunStarted():
                self._begin(event)
            case StepsEnded():
                self._take(event)
            case EvaluationEnded():
                self._evaluation(event)
            case CheckpointSaved():
                self._progress.pause(event.stall_seconds)
                self._tell("saved", event.step, checkpoint_line(event))
            case ArtifactLogged(kind="sample"):
                self._sample(event)
            case ArtifactLogged(kind="text", name="diagnosis"):
                self._diagnosis(event)
            case ArtifactLogged(kind="text", name="goodput"):
                self._say_wrapped("time", event.text)
            case ArtifactLogged(kind="text", name="quantized" | "calibration"):
                self._output.say("judged", Text(event.text))
            case DecisionTaken(decision=Save() | Evaluate()):
                pass
            case DecisionTaken(decision=Advise(finding=finding)) if finding:
                pass  # it is told as a finding
            case DecisionTaken():
                if isinstance(event.decision, Stop):
                    self._stops.append(event)
                text = Text(describe_decision(event_to_json(event)), "bold yellow")
                self._tell("decision", event.step, text)
            case FindingsChanged():
                for finding in event.findings:
                    self._tell("finding", event.step, finding_line(finding))
            case AlertRaised():
                self._alert(event)
            case RunEnded():
                self._end(event)

    def close(self) -> None:
        """Take the progress line away; closing again does nothing."""
        if self._json is not None:
            return
        self._output.clear()
        if self._next:
            self._output.say(None, Text.assemble(("next: ", "dim"), self._next))
            self._next = ""

    def _begin(self, event: RunStarted) -> None:
        self._progress.begin(event)
        if self._started:
            text = Text(f"went back to step {format.count(event.step)}", "bold yellow")
            self._tell("back", event.step, text)
            return
        self._started = True
        facts = event.facts
        self._run = str(facts.get("run", ""))
        self._task = str(facts.get("task", self._task))
        self._leading = leading_of(facts) or self._leading
        self._source = str(facts.get("begun_by", self._source))
        self._yardsticks = facts.get("yardsticks") or {}
        if isinstance(best := facts.get("best_value"), int | float):
            self._progress.best = float(best)
        self._output.say(None, Text.assemble(("trimtab ", "bold"), (__version__, "dim")))
        for label, fact in describe_facts(facts, event.total_steps):
            self._output.say(label, Text(printable(fact)))
        if event.resumed_from is not None:
            where = f"goes on from step {format.count(event.resumed_from)}, attempt {event.attempt}"
            self._output.say("resumed", Text(where, "bold"))
        for note in list(facts.get("notes", ()))[:8]:
            self._output.say("note", Text(printable(str(note), limit=300), "yellow"))
        self._output.say(None, Text())
        self._show_progress(now=True)

    def _take(self, event: StepsEnded) -> None:
        before = self._progress.skipped
        self._progress.take(event)
        if self._progress.skipped > before:
            self._skipped_in = event
        self._show_progress(now=self._last_drawn_step == 0)

    def _tell_skipped(self, event: Event) -> None:
        """Tell of updates that were skipped, unless the event behind them tells of each step."""
        window, self._skipped_in = self._skipped_in, None
        if window is None or (isinstance(event, AlertRaised) and event.kind != "write_failed"):
            return
        number = int(window.per_step["skipped"].sum())
        text = f"{number} of steps {window.first_step} to {window.last_step} skipped: not finite, or an outlier"
        self._tell("skipped", window.last_step, Text(text, "yellow"))

    def _evaluation(self, event: EvaluationEnded) -> None:
        self._progress.pause(event.seconds)
        judged = event.metrics.get(self._metric, math.nan)
        text = evaluation_line(event, self._metric, self._leading).append(f"   {self._progress.elapsed()}", "dim")
        if self._progress.is_better(judged):
            name = of_the_same_weights("validation/bits_per_byte", self._metric)
            self._progress.best, self._best_bits = judged, event.metrics.get(name)
            text.append("   ★ best" if self._output.redraws else "   best", "green")
        if self._output.redraws and self._started:
            self._output.draw(self._progress.on_a_terminal(self._output.width - 1))
        is_told = self._tell("evaluation", event.step, text)
        self._untold_evaluation = None if is_told else (event.step, text)

    def _sample(self, event: ArtifactLogged) -> None:
        self._sample_text = event.text
        if not self._output.redraws:
            text = printable(" ".join(printable(event.text).split()), limit=120)
            self._tell("sample", event.step, Text(f"writes: {text}"))
        elif self._last_sampled is None or event.step - self._last_sampled >= self._progress.total_steps / 20:
            self._last_sampled = event.step
            self._output.say(self._at(event.step), panel(event.text, _SAMPLE_LINES, "sample"))

    def _alert(self, event: AlertRaised) -> None:
        text = Text(printable(event.text, limit=300), "bold yellow")
        if event.kind in ("non_finite_step", "outlying_step"):
            self._progress.wrong_steps += 1
            if self._progress.wrong_steps == _MOST_ALERTS:
                text.append("; further steps that went wrong are counted here, and told in the record", "dim")
            elif self._progress.wrong_steps > _MOST_ALERTS:
                return
        else:
            self._progress.alerts += 1
        self._tell("alert", event.step, text)

    def _end(self, event: RunEnded) -> None:
        if self._untold_evaluation is not None:
            self._output.say(self._at(self._untold_evaluation[0]), self._untold_evaluation[1])
        if not self._output.redraws and self._last_drawn_step < self._progress.step and self._progress.has_begun:
            self._output.say(self._at(self._progress.step), self._progress.in_plain_words())
        self.close()
        self._output.say(None, Text())
        style = _STATUS.get(event.status, "bold red")
        told, hint = reason_and_hint(event.reason)
        self._output.say(None, Text.assemble((event.status, style), f": {told}, {self._progress.elapsed()}"))
        if hint:
            self._output.say("hint", Text(hint))
        if event.best_step is not None and event.best_value is not None:
            best = f"{printable(self._metric)} {format.decimal(event.best_value)}"
            restored = ", restored" if event.restored_step == event.best_step else ""
            self._output.say("best", Text(f"{best} at step {format.count(event.best_step)}{restored}"))
        if quality := describe_quality(self._best_bits, self._yardsticks):
            self._output.say("quality", Text(quality, "bold"))
        if self._sample_text and self._output.redraws:
            self._output.say("writes", panel(self._sample_text, _LAST_SAMPLE_LINES, "the last sample"))
        if skipped := self._progress.skipped:
            told = f"{format.count(skipped)} update{'' if skipped == 1 else 's'}, which changed nothing"
            self._output.say("skipped", Text(told, "yellow"))
        repeats = would_repeat([*self._stops, event])
        if self._run:
            self._next = next_command(event.status, self._run, self._source, self._task, repeats=repeats)

    def _diagnosis(self, event: ArtifactLogged) -> None:
        """The doctor's verdict, which comes after the end."""
        self._say_wrapped("verdict", event.text)
        if event.path is not None and self._run:
            self._output.say("report", Text(f"{printable(self._run)}/{event.path}"))
        self.close()

    def _at(self, step: int) -> str:
        """The label of what happened at `step`; in a terminal only the first of several lines says it."""
        if self._output.redraws and step == self._labelled_step:
            return ""
        self._labelled_step = step
        return f"step {format.count(step):>{len(format.count(self._progress.total_steps))}}"

    def _tell(self, kind: str, step: int, text: Text) -> bool:
        """A line about something that may happen often: in a log it may be left out, and the next of its kind says so.

        True when it was told."""
        if not self._output.redraws:
            if not self._thinning.admits(kind, step / self._progress.total_steps):
                return False
            if left_out := self._thinning.left_out(kind):
                text = text.copy().append(f"   ({left_out} before it not shown)")
        self._output.say(self._at(step), text)
        return True

    def _say_wrapped(self, label: str, text: str) -> None:
        for index, line in enumerate(wrapped(text, min(self._output.width - 14, 100))):
            self._output.say("" if index else label, Text(line))

    def _show_progress(self, *, now: bool) -> None:
        progress = self._progress
        if self._output.redraws:
            self._draw(progress.on_a_terminal(self._output.width - 1), now=now)
        elif progress.has_begun and (now or time.monotonic() - self._last_drawn >= self._every_seconds):
            self._last_drawn, self._last_drawn_step = time.monotonic(), progress.step
            if self._thinning.admits("progress", progress.fraction):
                self._output.say(self._at(progress.step), progress.in_plain_words())

    def _draw(self, line: Text, *, now: bool) -> None:
        """Draw the progress line, if it is time."""
        if now or time.monotonic() - self._last_drawn >= _REDRAW_SECONDS:
            self._last_drawn, self._last_drawn_step = time.monotonic(), self._progress.step
            self._output.draw(line)
