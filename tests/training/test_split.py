"""The split of a step's time, and what gauges add to the windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tiny_step import make_batch, make_step

from trimtab.training import Windows
from trimtab.training.split import StepTimer

EAGER = {"host_to_device", "forward", "backward", "optimizer", "probe"}
CPU = torch.device("cpu")


def split(values: Mapping[str, float]) -> dict[str, float]:
    return {name[5:-8]: value for name, value in values.items() if name.startswith("time/")}


def run(step: Any, number: int, num_batches: int = 2) -> float:
    batches = [make_batch(4, 10 * number + index) for index in range(num_batches)]
    begun = time.perf_counter()
    step.run(batches, number)
    return time.perf_counter() - begun


def test_the_parts_of_a_step_are_its_time() -> None:
    step = make_step()
    run(step, 1)
    step.timer.close(1, 1.0, 1.0)
    step.timer.every = 1
    seconds = [run(step, number) for number in (2, 3, 4)]
    found = split(step.timer.close(3, sum(seconds), 1.0)())
    assert set(found) == EAGER
    assert 0.5 * sum(seconds) / 3 < sum(found.values()) < sum(seconds) / 3
    assert found["forward"] + found["backward"] > 10 * found["host_to_device"]


def test_what_a_part_does_is_counted_there(monkeypatch: pytest.MonkeyPatch) -> None:
    step = make_step()
    forward, update = step.model.forward, step.optimizer.update
    monkeypatch.setattr(step.model, "forward", lambda *a, **k: (time.sleep(0.02), forward(*a, **k))[1])
    monkeypatch.setattr(step.optimizer, "update", lambda *a: (time.sleep(0.05), update(*a))[1])
    step.timer.every = 1
    run(step, 1)
    found = split(step.timer.close(1, 1.0, 1.0)())
    assert found["forward"] > 0.04  # of two micro-batches
    assert found["optimizer"] > 0.05
    assert found["host_to_device"] < found["forward"]


@pytest.mark.parametrize("every", [0, 1, 3])
def test_steps_that_are_not_split_cost_nothing_and_no_bit_changes(every: int) -> None:
    plain, timed = make_step(dropout=0.1), make_step(dropout=0.1)
    timed.timer.every = every
    for number in range(1, 7):
        run(plain, number)
        run(timed, number)
    found = split(timed.timer.close(6, 1.0, 1.0)())
    assert set(found) == (EAGER if every else set())
    for one, other in zip(plain.model.parameters(), timed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_that_failed_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    step = make_step()
    step.timer.every, step.timer.per_position = 1, {"mfu": 2.0}
    with monkeypatch.context() as broken:
        broken.setattr(step.optimizer, "update", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(step, 1)
    step.timer.abandon()
    step.timer.mark("forward")
    run(step, 1, num_batches=1)
    values = step.timer.close(1, 4.0, 1.0)()
    assert values["mfu"] == 2.0 * 4 * 8 / 4.0  # the positions of one batch, not of three
    assert set(split(values)) == EAGER


def test_rates_are_told_of_whole_windows_alone() -> None:
    timer = StepTimer(CPU)
    timer.per_position = {"mfu": 0.5}
    for number in (1, 2):
        timer.begin(number, [make_batch(4, number)])
        timer.end()
    timer.spend("logging", 0.25)
    timer.spend("logging", 0.35)
    assert timer.close(2, 8.0, 1.0)() == {"time/logging_seconds": pytest.approx(0.3), "mfu": 0.5 * 64 / 8.0}
    timer.begin(3, [make_batch(4, 3)])
    timer.end()
    assert timer.close(2, 8.0, 1.0)() == {}  # one of its steps was run by another process


class Counts:
    """A gauge that says what it was told."""

    def __init__(self) -> None:
        self.read = 0

    def close(self, num_steps: int, seconds: float, tokens: float) -> Callable[[], Mapping[str, float]]:
        def values() -> Mapping[str, float]:
            self.read += 1
            return {"user/steps": float(num_steps), "user/seconds": seconds, "user/tokens": tokens}

        return values


def test_what_gauges_measured_is_told_with_the_window_and_outlives_a_checkpoint() -> None:
    step, gauge = make_step(), Counts()
    windows = Windows(step.ring, lambda: 0.0)
    windows.gauges = (gauge,)
    for number in (1, 2, 3):
        run(step, number)
        windows.add({"step_seconds": 0.5, "tokens": 10.0})
        if number == 2:
            assert windows.close(2) == []
    assert gauge.read == 0  # nothing is waited for before the window is told
    values, tensors = windows.state()
    again = Windows(step.ring, lambda: 0.0)
    again.load_state(values, tensors)
    for one in (windows, again):
        told = one.close(3)[0] if one is windows else one.drain(2)[0]
        assert {name: told.values[name] for name in ("user/steps", "user/seconds", "user/tokens")} == {
            "user/steps": 2.0,
            "user/seconds": 1.0,
            "user/tokens": 20.0,
        }
