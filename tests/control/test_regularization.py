"""Regularization follows the generalization gap: by hand, within bounds, without swinging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import ADJUSTABLE, Config, load_config
from trimtab.control import RegularizeByGap, build_controllers
from trimtab.errors import ConfigError
from trimtab.events import Adjust, EvaluationEnded, Event, RunStarted
from trimtab.testing import check_controller


def gaps(values: Sequence[float]) -> list[Event]:
    return [EvaluationEnded(10 * index, {"generalization_gap": gap}, 0.1) for index, gap in enumerate(values, 1)]


def trace(controller: RegularizeByGap, values: Sequence[float]) -> list[float]:
    now, found = 1.0, []
    for event in gaps(values):
        answer = controller.decide(event)
        now = now if answer is None else answer.value
        found.append(now)
    return found


def test_by_hand() -> None:
    def make(**more: Any) -> RegularizeByGap:
        bounds: dict[str, Any] = {"high": 0.3, "low": 0.1, "factor": 2.0, "highest": 3.0}
        return RegularizeByGap("dropout", **(bounds | more))

    wide, narrow, between = 0.5, 0.0, 0.2
    assert trace(make(cooldown=0), [wide, wide, wide, wide, wide]) == [1, 2, 2, 3, 3], "patience 2, bounded by 3"
    assert trace(make(cooldown=1), [wide, wide, wide, wide, wide]) == [1, 2, 2, 2, 3], "the third does not count"
    assert trace(make(), [wide, between, wide, wide]) == [1, 1, 1, 2], "on end, or not at all"
    assert trace(make(patience=1, cooldown=0), [wide, between, between, narrow]) == [2, 2, 2, 1], "hysteresis"
    assert trace(make(cooldown=0), [narrow] * 9) == [1] * 9, "never less than is configured"
    assert trace(make(cooldown=0, lowest=0.25), [narrow] * 9) == [1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]
    assert trace(make(cooldown=0), [wide, math.nan, wide]) == [1, 1, 2], "what is no number is passed over"


def test_the_reason_says_what_was_seen_and_what_is_done() -> None:
    controller = RegularizeByGap("weight_decay")
    answers = [controller.decide(event) for event in gaps([0.5, 0.6])]
    assert answers == [
        None,
        Adjust(
            "the generalization gap was above 0.3 at 2 evaluations on end (now +0.6000): "
            "factor on weight decay from 1 to 1.25",
            "weight_decay",
            1.25,
        ),
    ]


@given(
    values=st.lists(st.floats(-1.0, 2.0), max_size=60),
    patience=st.integers(1, 3),
    cooldown=st.integers(0, 2),
    lowest=st.floats(0.0, 0.9),
    highest=st.floats(1.1, 3.0),
)
def test_it_never_leaves_its_bounds_and_never_changes_between_the_thresholds(
    values: list[float], patience: int, cooldown: int, lowest: float, highest: float
) -> None:
    controller = RegularizeByGap("dropout", patience=patience, cooldown=cooldown, lowest=lowest, highest=highest)
    before = 1.0
    for value, now in zip(values, trace(controller, values), strict=True):
        assert lowest <= now <= highest
        assert now == before or value > 0.3 or value < 0.1
        assert (now > before) <= (value > 0.3)
        before = now


@pytest.mark.parametrize("setting", ["dropout", "weight_decay", "label_smoothing"])
def test_it_survives_a_kill_anywhere(setting: Any) -> None:
    events = [*gaps([0.5, 0.6, 0.7, 0.2, 0.0, 0.0, 0.5]), RunStarted(30, 1, 1, 30, 100), *gaps([0.5, 0.5])]
    check_controller(lambda: RegularizeByGap(setting, patience=1), events)
    assert ADJUSTABLE[setting].high >= 3.0


def test_after_a_rollback_it_counts_anew() -> None:
    controller = RegularizeByGap("dropout")
    controller.decide(gaps([0.5])[0])
    controller.decide(RunStarted(5, 1, 1, 5, 100))
    assert controller.decide(gaps([0.5])[0]) is None


def _names(*overrides: str) -> list[str]:
    config = load_config(None, ["control.regularization.name=gap", *overrides], environment={})
    return [c.name for c in build_controllers(config) if isinstance(c, RegularizeByGap)]


def test_without_names_all_that_the_run_has_is_adjusted() -> None:
    assert _names() == ["regularize_weight_decay"]
    everything = ["model.dropout.residual=0.1", "objective.label_smoothing=0.1"]
    assert _names(*everything) == ["regularize_dropout", "regularize_weight_decay", "regularize_label_smoothing"]
    assert _names(*everything, "control.regularization.settings=[dropout]") == ["regularize_dropout"]
    assert _names("model={name: custom, target: 'a:b'}", "optimizer.weight_decay=0.0") == ["regularize_dropout"]


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["control.regularization.settings=[dropout]"], "settings dropout has nothing to adjust: every rate of model"),
        (["control.regularization.settings=[label_smoothing]"], "there is no objective.label_smoothing above 0"),
        (["optimizer.weight_decay=0.0"], "control.regularization has nothing to adjust"),
        (["evaluation.gap_tokens=0"], "follows the generalization gap, and evaluation.gap_tokens is 0"),
        (["control.regularization.low=0.4"], "low must lie below high"),
        (["control.regularization.highest=1.0"], "nothing could be adjusted"),
        (["control.regularization.settings=[weight_decay, weight_decay]"], "settings names one twice"),
        (["control.regularization.settings=[]"], "must be a list of"),
    ],
)
def test_what_could_do_nothing_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _names(*overrides)
    assert said in str(caught.value)


def test_it_is_off_until_asked_for() -> None:
    assert [c.name for c in build_controllers(Config()) if isinstance(c, RegularizeByGap)] == []
