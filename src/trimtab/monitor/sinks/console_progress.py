"""The progress line: how far a run is, how it does, and how long it still takes."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Final, final

import numpy as np
from rich.text import Text

from trimtab.events import RunStarted, StepsEnded
from trimtab.runs import format
from trimtab.runs.metrics import better_direction
from trimtab.runs.printable import printable, shortened

_SMOOTHING: Final = 0.95
"""Weight of the past in the moving average of the loss, per step."""
_LEAST_BAR: Final = 8
_BAR: Final = 30
_LEFT_OUT: Final = ("memory", "mfu", "grad", "lr", "speed", "skipped", "best", "alerts", "left")
"""What a narrow terminal does without, the first first."""
_ORDER: Final = ("loss", "best", "lr", "grad", "speed", "mfu", "memory", "left", "skipped", "alerts")


@final
class Progress:
    """What the line is made of. Times are by the clock that `begun` was read from."""

    def __init__(self, total_steps: int, metric: str) -> None:
        """`metric` decides which evaluation is the best so far."""
        self.total_steps = max(total_steps, 1)
        self.metric = metric
        self.step = 0
        self.best: float | None = None
        self.skipped = 0
        self.alerts = 0
        """Without those of single steps."""
        self.wrong_steps = 0
        """Steps that were told as alerts; most of them were skipped, too, and count once."""
        self._begun = time.monotonic()
        self._smoothed = self._weight = 0.0
        self._shown: dict[str, str] = {}
        self._busy = 0.0
        self._pace: deque[tuple[float, int]] = deque(maxlen=50)

    @property
    def fraction(self) -> float:
        """How much of the run is done."""
        return self.step / self.total_steps

    @property
    def has_begun(self) -> bool:
        """Whether a window was told."""
        return bool(self._shown)

    def elapsed(self) -> str:
        """The time since the command was given."""
        return format.duration(time.monotonic() - self._begun)

    def begin(self, event: RunStarted) -> None:
        """Forget the pace and the average of an attempt, or of what was taken back."""
        self.step, self.total_steps = event.step, max(event.total_steps, 1)
        self._smoothed = self._weight = 0.0
        self._busy = 0.0
        self._pace.clear()

    def pause(self, seconds: float) -> None:
        """Time that was spent beside the steps."""
        self._busy += seconds

    def is_better(self, value: float) -> bool:
        """Whether `value` of the metric is better than all before."""
        if not math.isfinite(value):
            return False
        higher = better_direction(self.metric) == "higher"
        return self.best is None or (value > self.best if higher else value < self.best)

    def take(self, event: StepsEnded) -> None:
        """Take in a window."""
        # After a resume the first windows end before the step of the checkpoint, which has been shown already.
        self.step = max(self.step, event.last_step)
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
        if len(rates := event.per_step.get("learning_rate", nothing)):
            shown["lr"] = format.scientific(float(rates[-1]))
        if len(norms := event.per_step.get("grad_norm", nothing)):
            shown["grad"] = f"{float(norms[-1]):.3g}"
        if (speed := event.values.get("tokens_per_second")) is not None:
            shown["speed"] = format.tokens_per_second(speed)
        if (mfu := event.values.get("mfu")) is not None:
            shown["mfu"] = format.percent(mfu)
        if (memory := event.values.get("memory_bytes")) is not None:
            shown["memory"] = format.size(memory)
        if (left := self._seconds_left()) is not None:
            shown["left"] = format.duration(left)
        self._shown = shown
        self.skipped += int(event.per_step.get("skipped", nothing).sum())

    def on_a_terminal(self, width: int) -> Text:
        """As many parts as fit in `width`, the least important left out first; none is cut."""
        parts = self._parts("first steps …")
        done, total = format.count(self.step), format.count(self.total_steps)
        head = Text.assemble(f"  {done}/{total}", (f"  {format.percent(self.fraction)}", "dim"))
        if head.cell_len > width:
            head = Text(f"  {format.percent(self.fraction)}")

        def taken() -> int:
            return head.cell_len + sum(part.cell_len + 2 for part in parts.values())

        for name in _LEFT_OUT:
            if taken() + _LEAST_BAR + 2 > width:
                parts.pop(name, None)
        if taken() > width:
            parts.clear()
        room = width - taken() - 2
        bar = [_bar(self.fraction, min(room, _BAR))] if room >= _LEAST_BAR else []
        return Text("  ").join([head, *bar, *parts.values()])

    def in_plain_words(self) -> Text:
        """All parts, for a line that stays."""
        parts = self._parts("first steps").values()
        return Text("   ").join(
            [Text(f"{format.percent(self.fraction):>5}"), *parts, Text(f"{self.elapsed()} elapsed")]
        )

    def _parts(self, waiting: str) -> dict[str, Text]:
        if not self._shown:
            return {"waiting": Text(waiting, "dim")}
        shown = dict(self._shown)
        if self.best is not None:
            shown["best"] = format.decimal(self.best)
        labels = {"loss": "loss ", "best": self._best_label(), "lr": "lr ", "grad": "grad ", "mfu": "MFU "}
        parts = {
            name: Text.assemble((labels.get(name, ""), "dim"), (value, "bold" if name == "loss" else ""))
            for name, value in shown.items()
        }
        if "left" in parts:
            parts["left"].append(" left", "dim")
        if self.skipped:
            parts["skipped"] = Text(f"{format.count(self.skipped)} skipped", "yellow")
        if alerts := self.alerts + max(self.wrong_steps - self.skipped, 0):
            parts["alerts"] = Text(f"{format.count(alerts)} alert{'' if alerts == 1 else 's'}", "bold yellow")
        return {name: parts[name] for name in _ORDER if name in parts}

    def _best_label(self) -> str:
        name = self.metric.removeprefix("validation/")
        return "best " if name == "loss" else f"best {printable(name)} "

    def _seconds_left(self) -> float | None:
        (then, earlier), (now, step) = self._pace[0], self._pace[-1]
        if step <= earlier or now <= then:
            return None
        return (now - then) / (step - earlier) * max(self.total_steps - step, 0)


def preparing_line(what: str, fraction: float, width: int) -> Text:
    """What is done before the first step, as far as it is."""
    bar = 20 if width >= 60 else 0
    room = width - 2 - (bar + 2 if bar else 0)
    return Text.assemble("  ", *((_bar(fraction, bar), "  ") if bar else ()), (shortened(what, room), "dim"))


def _bar(fraction: float, width: int) -> Text:
    """A bar in half cells."""
    halves = round(2 * width * min(max(fraction, 0.0), 1.0))
    full, half = divmod(halves, 2)
    return Text.assemble(("━" * full + "╸" * half, "cyan"), ("━" * (width - full - half), "bright_black"))
