"""Means of pace and machine over a run, by hand, and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trimtab.events import StepsEnded
from trimtab.runs import History
from trimtab.runs.machine import describe_machine, describe_parts, means_of, means_of_series, parts_of


def window(first: int, last: int, seconds: float, **values: float) -> StepsEnded:
    count = last - first + 1
    per_step = {"step_seconds": np.full(count, seconds), "data_seconds": np.full(count, 0.1 * seconds)}
    return StepsEnded(first, last, per_step, {name.replace("__", "/"): value for name, value in values.items()})


WINDOWS = [
    window(1, 1, 9.0, mfu=0.01, time__forward_seconds=5.0, hardware__energy_wh=1.0),
    window(2, 2, 9.0),
    window(3, 12, 1.0, mfu=0.4, time__forward_seconds=0.2, time__backward_seconds=0.5, hardware__energy_wh=2.0),
    window(13, 42, 1.0, mfu=0.2, time__forward_seconds=0.4, hardware__process_cpu_percent=150.0),
]


def test_windows_count_by_their_steps_and_the_first_are_left_out() -> None:
    means = means_of(WINDOWS)
    assert means == {
        "step_seconds": 1.0,
        "data_seconds": pytest.approx(0.1),
        "mfu": pytest.approx((10 * 0.4 + 30 * 0.2) / 40),
        "time/forward_seconds": pytest.approx((10 * 0.2 + 30 * 0.4) / 40),
        "time/backward_seconds": 0.5,
        "hardware/process_cpu_percent": 150.0,
        "hardware/energy_wh": 3.0,
    }
    assert parts_of(means) == {
        "backward": 0.5,
        "forward": pytest.approx(0.35),
        "data": pytest.approx(0.1),
        "other": pytest.approx(0.05),
    }
    assert describe_parts(means) == "backward 50 %, forward 35 %, data 10 %, other 5.0 %"
    assert describe_machine(means) == "MFU 25.0 %, 1.5 cores busy here, 3 Wh"


def test_a_history_comes_to_the_same_sums() -> None:
    history = History()
    for one in WINDOWS:
        history.observe(one)
    means = means_of_series(history.series)
    assert means["hardware/energy_wh"] == 3.0
    assert means["mfu"] == pytest.approx(0.3)  # of two windows, one each
    assert means["step_seconds"] == pytest.approx(1.0)


def test_of_a_gpu_what_holds_its_clocks_down_is_said() -> None:
    means: dict[str, Any] = {
        "hardware/gpu0/utilization_percent": 97.4,
        "hardware/gpu0/power_watts": 688.0,
        "hardware/gpu0/temperature_celsius": 61.0,
        "hardware/gpu0/sm_clock_mhz": 1755.0,
        "hardware/gpu0/throttled_power": 0.4,
        "hardware/gpu0/throttled_heat": 0.01,
        "hardware/energy_wh": 12.0,
        "hardware/tokens_per_wh": 3.1e6,
    }
    assert describe_machine(means) == (
        "gpu0 (97 % busy, 688 W, 61 °C, 1755 MHz, clocks held down by power in 40 % of the readings), "
        "12 Wh, 3.10M tokens/Wh"
    )


def test_of_a_run_that_measured_nothing_there_is_nothing_to_say() -> None:
    means = means_of([window(3, 4, 1.0)])
    assert (describe_parts(means), describe_machine(means)) == ("", "")
    assert means_of([]) == {}
