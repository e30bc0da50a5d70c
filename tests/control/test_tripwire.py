"""The tripwire trips where a loss leaves, not where it falls, and costs next to nothing."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from cases import falling

from trimtab.control import Tripwire
from trimtab.events import StepsEnded


def windows(loss: np.ndarray, size: int = 10) -> list[StepsEnded]:
    return [
        StepsEnded(first + 1, min(first + size, len(loss)), {"train/loss": loss[first : first + size]}, {})
        for first in range(0, len(loss), size)
    ]


def trips(loss: np.ndarray, wire: Tripwire | None = None) -> list[int]:
    wire = Tripwire() if wire is None else wire
    return [window.last_step for window in windows(loss) if wire.trips(window)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_a_sound_descent_hardly_ever_trips(seed: int, noise: float) -> None:
    assert len(trips(falling(1000, noise=noise, seed=seed))) <= 1


def test_a_loss_that_leaves_trips_soon() -> None:
    loss = falling(600, noise=0.1)
    loss[400:] += np.linspace(0.0, 4.0, 200)
    assert trips(loss)[0] in range(400, 460)
    loss = falling(600, noise=0.1)
    loss[300:304] = 9.0
    assert trips(loss)[0] in (300, 310)


def test_a_stretch_of_no_numbers_trips_once() -> None:
    loss = falling(600)
    loss[200:260] = np.nan
    loss[400] = np.inf
    assert trips(loss) == [210, 410]


def test_one_step_and_windows_without_a_loss_trip_nothing() -> None:
    loss = falling(600)
    loss[300] = 9.0
    assert trips(loss) == []
    assert not Tripwire().trips(StepsEnded(1, 2, {"grad_norm": np.ones(2)}, {}))


def test_its_state_goes_through_json_to_the_same() -> None:
    loss = falling(600, noise=0.1)
    loss[400:] += np.linspace(0.0, 4.0, 200)
    whole = trips(loss)
    for cut in (5, 39, 41):
        first, second = Tripwire(), Tripwire()
        before = [one.last_step for one in windows(loss)[:cut] if first.trips(one)]
        second.load_state(json.loads(json.dumps(first.state())))
        after = [one.last_step for one in windows(loss)[cut:] if second.trips(one)]
        assert before + after == whole


def test_steps_that_come_again_after_a_rollback_are_learned_anew() -> None:
    loss, wire, fresh = falling(600, noise=0.1), Tripwire(), Tripwire()
    for window in windows(loss)[:40]:
        wire.trips(window)
    for window in windows(loss)[20:50]:
        wire.trips(window)
        fresh.trips(window)
    assert wire.state() == fresh.state()


def test_a_window_costs_less_than_five_milliseconds() -> None:
    wire, long = Tripwire(), windows(falling(100_000), 1000)
    begun = time.process_time()
    for window in long:
        wire.trips(window)
    assert (time.process_time() - begun) / len(long) < 0.005
