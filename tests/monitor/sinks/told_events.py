"""A run as events, killed in mid-way, resumed, and rolled back: what was told, and what a record holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trimtab.events import (
    AlertRaised,
    ArtifactLogged,
    EvaluationEnded,
    Event,
    FindingsChanged,
    RunEnded,
    RunStarted,
    StepsEnded,
)
from trimtab.monitor.sinks.contract import Sink
from trimtab.runs import Recorder
from trimtab.runs.record import RecordWriter

WINDOW = 5


def window(last: int, shift: float = 0.0) -> StepsEnded:
    steps = np.arange(last - WINDOW + 1, last + 1)
    per_step = {
        "train/loss": 4.0 - steps / 100 + shift,
        "learning_rate": np.full(WINDOW, 1e-3),
        "tokens": np.full(WINDOW, 64.0),
        "skipped": np.zeros(WINDOW),
        "grad_norm": np.where(steps == 7, np.inf, 1.0),
    }
    return StepsEnded(
        last - WINDOW + 1, last, per_step, {"tokens_per_second": 1e4}, {"layer/blocks.0/activation_rms": 0.5}
    )


def evaluation(step: int, shift: float = 0.0) -> EvaluationEnded:
    loss = 4.0 - step / 100 + shift
    return EvaluationEnded(step, {"validation/loss": loss, "validation/loss@ema": loss + 0.1}, 0.1)


def killed_at_30() -> list[Event]:
    """Saved at 20, with the window up to 20 undelivered; killed after 30 was told and judged."""
    events: list[Event] = [RunStarted(0, 1, 0, None, 40)]
    for last in (5, 10, 15, 20, 25, 30):
        events.append(window(last))
        if last % 10 == 0:
            events.append(evaluation(last))
    events.append(ArtifactLogged(30, "sample", "sample-0", "def f(x):\n    return <b>x</b>"))
    return events


def resumed_from_20(*, facts: dict[str, object] | None = None, shift: float = 0.0) -> list[Event]:
    """Tells the window up to 20 again, and goes on to the end."""
    events: list[Event] = [RunStarted(20, 2, 1, 20, 40, facts or {})]
    for last in (20, 25, 30, 35, 40):
        events.append(window(last, shift if last > 20 else 0.0))
        if last in (30, 40):
            events.append(evaluation(last, shift))
    events.append(AlertRaised(40, "non_finite_step", "step 7 is not finite"))
    finding = {"code": "overfitting", "severity": "warning", "cause": "it learns by heart"}
    events.append(FindingsChanged(40, (finding,)))
    events.append(RunEnded(40, "finished", "all 40 steps done", 40, 3.6, None, 1.0, {"training": 0.9}))
    events.append(ArtifactLogged(40, "text", "diagnosis", "healthy: all is well", "report.html"))
    return events


def rolled_back_from_20_to_10() -> list[Event]:
    events: list[Event] = [RunStarted(0, 1, 0, None, 20), *map(window, (5, 10, 15, 20))]
    events += [RunStarted(10, 1, 1, 10, 20), window(15, 0.5), window(20, 0.5)]
    events.append(RunEnded(20, "finished", "done", None, None, None, 1.0))
    return events


def record(path: Path, events: Sequence[Event]) -> None:
    """Append `events` to the record at `path`, as the loop does."""
    recorder = Recorder(RecordWriter(path))
    for event in events:
        recorder.record(event)
    recorder.close()


def tell(sink: Sink, events: Sequence[Event], *, close: bool = True) -> None:
    """Without `close` as a process that was killed: what was flushed is what it leaves."""
    for event in events:
        sink.observe(event)
    sink.flush()
    if close:
        sink.close()
