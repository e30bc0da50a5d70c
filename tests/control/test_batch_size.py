"""The batch is raised towards the noise scale: bounded, with hysteresis, for a reason, and through a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rig import Rig, Scripted

from trimtab.config import load_config
from trimtab.control import BatchSize, build_controllers
from trimtab.errors import ConfigError
from trimtab.events import Adjust, DecisionTaken, EvaluationEnded, Event, Rollback, RunStarted, StepsEnded
from trimtab.testing import check_controller
from trimtab.training import Adjustments, Progress


def window(last: int, scale: float, batch: float, error: float = 0.1) -> StepsEnded:
    values = {"gradient_noise_scale": scale, "gradient_noise_error": error, "batch_size": batch}
    return StepsEnded(last - 9, last, {}, values)


def controller(**changes: Any) -> BatchSize:
    return BatchSize(**{"part": 1.0, "most": 64, "hysteresis": 1.5, "wait": 20, "error": 0.5, **changes})


def asked(one: BatchSize, event: Event) -> float | None:
    decision = one.decide(event)
    return None if decision is None else decision.value


@pytest.mark.parametrize(
    "scale,batch,error,expected",
    [
        (11.9, 8, 0.1, None),  # within the hysteresis
        (12.5, 8, 0.1, 12.0),  # towards it, whole sequences
        (500.0, 8, 0.1, 16.0),  # at most doubled
        (500.0, 40, 0.1, 64.0),  # never beyond the bound
        (500.0, 60, 0.1, None),  # the bound is near
        (500.0, 8, 0.6, None),  # too uncertain
        (2.0, 8, 0.1, None),  # never lowered
    ],
)
def test_one_decision(scale: float, batch: float, error: float, expected: float | None) -> None:
    assert asked(controller(), window(10, scale, batch, error)) == expected


def test_the_reason_has_the_figures() -> None:
    decision = controller(part=0.5).decide(window(10, 80.0, 8.0, 0.2))
    assert decision is not None
    assert decision.name == "batch_size"
    assert decision.reason == (
        "the gradient noise scale is 80 sequences (± 20%), of which 0.5 is aimed at, and a batch has 8"
    )


def test_it_waits_and_sees_the_larger_batch_first() -> None:
    one = controller()
    assert asked(one, window(10, 100.0, 8.0)) == 16
    assert asked(one, window(20, 100.0, 16.0)) is None
    assert asked(one, window(30, 100.0, 16.0)) is None
    assert asked(one, window(40, 100.0, 8.0)) is None, "a measurement of the batch before"
    assert asked(one, window(50, 100.0, 16.0)) == 32


def test_without_a_measurement_or_its_error_it_does_nothing() -> None:
    assert controller().decide(StepsEnded(1, 10, {}, {"gradient_noise": 5.0, "gradient_signal": -1.0})) is None
    assert controller().decide(StepsEnded(1, 10, {}, {"gradient_noise_scale": 99.0, "batch_size": 2.0})) is None


def test_it_keeps_the_promises_of_a_controller() -> None:
    events: list[Event] = [RunStarted(0, 1, 0, None, 100)]
    events += [window(10 * i, 100.0, 8.0 * 2 ** (i // 4)) for i in range(1, 14)]
    events += [RunStarted(20, 1, 1, 20, 100), *(window(10 * i, 100.0, 32.0) for i in range(3, 9))]
    check_controller(controller, events)
    one = controller()
    assert sum(isinstance(one.decide(event), Adjust) for event in events) > 2


def test_in_a_run_the_batch_grows_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    from test_loop import _left_at

    def rig(name: str) -> Rig:
        one = controller(most=12, wait=4, error=1e9, hysteresis=1.1, part=1e6)
        return Rig(tmp_path / name, controllers=[one], accumulation=2, noise_every=1, steps=32, evaluate_every=8)

    whole = rig("whole")
    whole.go()
    tokens = np.concatenate([event.per_step["tokens"] for event in whole.watch.of(StepsEnded)])
    assert sorted(set(np.ceil(tokens / 8))) == [4, 8, 12], "sequences in a step"
    adjusts = [d for d in whole.watch.of(DecisionTaken) if isinstance(d.decision, Adjust)]
    assert [d.outcome for d in adjusts] == ["taken"] * 2
    assert whole.loop.progress.accumulation == 6

    part = rig("run")
    _left_at(part, 13)
    again = rig("run")
    again.go()
    assert again.resumed_from == 13
    told = np.concatenate([e.per_step["tokens"] for r in (part, again) for e in r.watch.of(StepsEnded)])
    assert told.tolist() == tokens.tolist()
    assert (whole.weights() == again.weights()).all()


@pytest.mark.parametrize("most,reached", [(16, 16), (14, 12), (9, 8)])
def test_the_bound_is_not_passed_by_rounding_to_whole_micro_batches(most: int, reached: int) -> None:
    progress = Progress(accumulation=2, micro_batch_size=4)
    adjustments = Adjustments(progress, {}, {}, largest_batch=most)
    for _ in range(3):
        if not adjustments.why_not("batch_size"):
            adjustments.take("batch_size", Adjust("", "batch_size", float(min(most, 2 * progress.accumulation * 4))))
    assert progress.accumulation * 4 == reached
    assert f"above batch_control.most {most}" in adjustments.why_not("batch_size")
    progress.divide(3, most)
    assert reached - 3 < progress.accumulation * 3 <= most


def test_of_a_batch_that_was_set_anew_the_raise_before_says_nothing() -> None:
    one = controller()
    assert asked(one, window(10, 100.0, 8.0)) == 16
    one.decide(RunStarted(10, 2, 1, 10, 100))
    assert asked(one, window(60, 100.0, 8.0)) is None, "a resume: the larger batch is still to come"
    one.decide(RunStarted(10, 3, 2, 10, 100, {"is_other_batch": True}))
    assert asked(one, window(60, 100.0, 8.0)) == 16


def test_after_a_rollback_the_batch_stays(tmp_path: Path) -> None:
    one = controller(most=16, wait=4, error=1e9, hysteresis=1.1, part=1e6)
    back = Scripted({(EvaluationEnded, 12): Rollback("spike", 6)})
    rig = Rig(tmp_path / "run", controllers=[one, back], accumulation=2, noise_every=1, steps=18, save_every=3)
    rig.go()
    assert rig.loop.progress.branch == 1
    assert rig.loop.progress.accumulation == 8


def test_it_is_built_from_the_configuration_and_refused_where_nothing_is_measured() -> None:
    base = ["training.accumulation=2", "batch_control.name=noise_scale", "batch_control.most=256"]
    config = load_config("gpt-1m", [*base, "logging.noise_scale.every=5"], environment={})
    (built,) = [one for one in build_controllers(config) if isinstance(one, BatchSize)]
    assert (built.most, built.part) == (256, 1.0)
    with pytest.raises(ConfigError, match=r"logging\.noise_scale\.every is 0"):
        load_config("gpt-1m", base, environment={})
    with pytest.raises(ConfigError, match=r"batch_control\.most 33 leaves nothing to raise"):
        load_config("gpt-1m", [*base[:2], "batch_control.most=33", "logging.noise_scale.every=5"], environment={})
    with pytest.raises(ConfigError, match=r"training\.accumulation is 1"):
        load_config("gpt-1m", [*base[1:], "logging.noise_scale.every=5"], environment={})
