"""What a step is set to: schedule times the controllers' factor, for the run and for groups."""

from __future__ import annotations

import pytest

from trimtab.schedules import Constant, Linear
from trimtab.training import Progress, Settings


def test_a_setting_is_value_times_schedule_times_every_controllers_factor() -> None:
    progress = Progress()
    progress.factors = {
        "learning_rate": {"a": 0.5, "b": 0.5},
        "weight_decay": {"a": 3.0},
        "clip_threshold": {"b": 2.0},
    }
    settings = Settings(Linear(10), 0.1, 0.4, {"head*": Constant(4)}, Linear(10, floor=0.5))
    rates = settings.rates(4, progress.factor)
    assert rates == {
        "learning_rate": pytest.approx(0.1 * 0.5 * 0.25),
        "learning_rate/head*": pytest.approx(0.1 * 0.25),
    }
    assert settings.others(4, progress.factor) == {
        "weight_decay": pytest.approx(0.75 * 3.0),
        "clip_threshold": pytest.approx(0.8),
    }
    assert settings.rates(0, progress.factor)["learning_rate/head*"] == pytest.approx(0.1 * 0.25 * 0.25)


def test_without_a_schedule_weight_decay_stays() -> None:
    settings = Settings(Linear(10), 0.1, 0.4)
    assert [settings.others(step, Progress().factor)["weight_decay"] for step in (0, 9)] == [1.0, 1.0]
    assert set(settings.rates(0, Progress().factor)) == {"learning_rate"}
