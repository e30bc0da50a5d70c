"""Seconds a step, without the first of each attempt."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.events import Event, RunStarted, StepsEnded
from trimtab.runs.pace import Pace
from trimtab.runs.summary import describe_pace


def window(first: int, seconds: list[float], **values: float) -> StepsEnded:
    series = {
        "step_seconds": np.array(seconds),
        "data_seconds": np.array(seconds) / 4,
        "tokens": np.full(len(seconds), 100.0),
    }
    return StepsEnded(first, first + len(seconds) - 1, series, values)


def test_first_steps_of_every_attempt_are_left_out() -> None:
    events: list[Event] = [
        RunStarted(0, 1, 0, None, 10),
        window(1, [9.0]),
        window(2, [9.0, 0.1, 0.3], memory_bytes=1.0),
        RunStarted(4, 2, 1, 4, 10),
        window(5, [8.0, 8.0, 0.2, 0.2, 0.2], memory_bytes=7.0),
    ]
    pace = Pace.of(events)
    assert pace is not None
    assert pace.num_steps == 5
    assert pace.step_seconds == pytest.approx(0.2)
    assert pace.quartiles == pytest.approx((0.2, 0.2))
    assert pace.data_seconds == pytest.approx(0.05)
    assert pace.tokens_per_second == pytest.approx(500.0)
    assert pace.memory_bytes == 7.0
    assert describe_pace(pace.to_json()) == "200 ms (quartiles 200 ms to 200 ms), waiting for data 25 %"


def test_too_few_steps_and_other_logs_say_nothing() -> None:
    assert Pace.of([RunStarted(0, 1, 0, None, 4), window(1, [1.0, 1.0, 1.0, 1.0])]) is None
    assert Pace.of([RunStarted(0, 1, 0, None, 4), StepsEnded(1, 9, {"train/loss": np.ones(9)}, {})]) is None
    alone = StepsEnded(1, 9, {"step_seconds": np.full(9, 0.5)}, {})
    pace = Pace.of([alone])
    assert pace is not None
    assert (pace.data_seconds, pace.tokens_per_second, pace.memory_bytes) == (0.0, 0.0, None)
