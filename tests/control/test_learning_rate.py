"""The learning rate falls when it should, by as much as was said, and never below its bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import ADJUSTABLE, Config
from trimtab.control import ReduceOnPlateau, ReduceOnUnsteadiness, build_controllers
from trimtab.errors import ConfigError
from trimtab.events import Adjust, EvaluationEnded, Event, RunStarted, StepsEnded
from trimtab.testing import check_controller, sample_events


def evaluations(values: Sequence[float], metric: str = "validation/loss") -> list[Event]:
    return [EvaluationEnded(10 * index, {metric: value}, 0.1) for index, value in enumerate(values, 1)]


def factors(controller: Any, events: Sequence[Event]) -> list[float]:
    """The factor in use after each event."""
    now, trace = 1.0, []
    for event in events:
        if (answer := controller.decide(event)) is not None:
            assert isinstance(answer, Adjust)
            assert answer.name == "learning_rate"
            now = answer.value
        trace.append(now)
    return trace


@settings(deadline=None)  # the first call imports torch's compiler
@given(
    values=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60),
    patience=st.integers(1, 4),
    factor=st.floats(0.1, 0.9),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    mode=st.sampled_from(["relative", "absolute"]),
    cooldown=st.integers(0, 3),
    metric=st.sampled_from(["validation/loss", "validation/accuracy"]),
)
def test_it_reduces_where_torch_does(
    values: list[float], patience: int, factor: float, threshold: float, mode: Any, cooldown: int, metric: str
) -> None:
    higher = metric == "validation/accuracy"
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="max" if higher else "min",
        factor=factor,
        patience=patience - 1,
        threshold=threshold,
        threshold_mode="rel" if mode == "relative" else "abs",
        cooldown=cooldown,
        min_lr=0.01,
        eps=0.0,
    )
    expected = []
    for value in values:
        reference.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    ours = ReduceOnPlateau(
        patience, metric=metric, factor=factor, threshold=threshold, threshold_mode=mode, cooldown=cooldown
    )
    assert factors(ours, evaluations(values, metric)) == pytest.approx(expected)


def test_a_value_that_is_not_finite_is_no_improvement_and_a_lost_branch_is_forgotten() -> None:
    plateau = ReduceOnPlateau(2)
    assert factors(plateau, evaluations([math.nan, math.inf])) == [1.0, 0.5]
    plateau = ReduceOnPlateau(1)
    factors(plateau, evaluations([3.0, 2.0, 1.0]))
    assert plateau.decide(RunStarted(15, 1, 1, 15, 100)) is None
    assert plateau.decide(EvaluationEnded(20, {"validation/loss": 2.5}, 0.1)) is None, "the best of 1.0 was given up"


def test_the_reason_says_what_was_seen_and_what_is_done() -> None:
    answers = [ReduceOnPlateau(1).decide(event) for event in evaluations([2.0])]
    plateau = ReduceOnPlateau(1)
    answers = [plateau.decide(event) for event in evaluations([2.0, 2.5])]
    assert answers[1] == Adjust(
        "validation/loss has not improved by more than 0.0001 of its best for 1 evaluation "
        "(best 2.0000 at step 10, now 2.5000): factor on the learning rate from 1 to 0.5",
        "learning_rate",
        0.5,
    )


def windows(
    losses: Sequence[float], norms: Sequence[float], cuts: Sequence[int] = (), skipped: Sequence[int] = ()
) -> list[Event]:
    """One event for the steps between `cuts`, all in one without."""
    events: list[Event] = []
    edges = [0, *cuts, len(losses)]
    flags = np.isin(np.arange(len(losses)), skipped).astype(float)
    for first, last in pairwise(edges):
        part = slice(first, last)
        columns = {"train/loss": losses, "grad_norm": norms, "skipped": flags}
        events.append(
            StepsEnded(first + 1, last, {name: np.asarray(v, float)[part] for name, v in columns.items()}, {})
        )
    return events


def quiet(steps: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    falling = 6.0 - 3.0 * np.linspace(0.0, 1.0, steps)
    return falling + 0.05 * generator.standard_normal(steps), np.exp(0.1 * generator.standard_normal(steps))


@pytest.mark.parametrize("seed", range(5))
def test_a_quiet_run_is_left_alone(seed: int) -> None:
    losses, norms = quiet(3000, seed)
    assert set(factors(ReduceOnUnsteadiness(), windows(losses, norms, range(10, 3000, 10)))) == {1.0}


@pytest.mark.parametrize("signal", ["grad_norm", "loss_spread"])
def test_a_signal_that_stays_high_lowers_the_rate_and_is_named(signal: Any) -> None:
    losses, norms = quiet(600)
    if signal == "grad_norm":
        norms[400:] *= 5.0
    else:
        losses[400:] += 1.0 * np.random.default_rng(9).standard_normal(200)
    controller = ReduceOnUnsteadiness(patience=3, cooldown=0, memory=40)
    events = windows(losses, norms, range(10, 600, 10))
    answers = [controller.decide(event) for event in events]
    first = next(index for index, answer in enumerate(answers) if answer is not None)
    assert events[first].last_step == 430, "three stretches of ten steps"
    answer = answers[first]
    assert answer is not None
    assert answer.value == 0.5
    named = "the gradient norm was high 3 times" if signal == "grad_norm" else "the spread of the loss was high 3 times"
    assert answer.reason.startswith(named)
    other = "loss_spread" if signal == "grad_norm" else "grad_norm"
    assert set(factors(ReduceOnUnsteadiness(other), events)) == {1.0}


def test_the_score_is_that_of_the_paper() -> None:
    """Iglewicz and Hoaglin's modified z-score, 0.6745 (x - median) / MAD, on one stretch by hand."""
    past = [math.log(1.0 + 0.1 * index) for index in range(9)]
    value = math.log(9.0)
    median = float(np.median(past))
    score = 0.6745 * (value - median) / float(np.median(np.abs(np.asarray(past) - median)))
    norms = np.repeat(np.exp([*past, value]), 4)
    steps = windows(np.linspace(3, 2, 40), norms)
    just_below = ReduceOnUnsteadiness("grad_norm", every=4, patience=1, deviations=score * 1.001)
    just_above = ReduceOnUnsteadiness("grad_norm", every=4, patience=1, deviations=score * 0.999)
    assert just_below.decide(steps[0]) is None
    answer = just_above.decide(steps[0])
    assert answer is not None
    assert f"({score:.1f} robust deviations" in answer.reason


def test_a_lasting_level_is_not_punished_for_ever_and_the_bound_holds() -> None:
    losses, norms = quiet(4000)
    norms[1000:] *= 4.0
    reduced = factors(ReduceOnUnsteadiness(cooldown=0, minimum=0.3), windows(losses, norms, range(10, 4000, 10)))
    assert min(reduced) == 0.3
    trace = factors(ReduceOnUnsteadiness(cooldown=30, minimum=0.01), windows(losses, norms, range(10, 4000, 10)))
    assert trace[-1] == trace[200], "from then on the new level is the usual one"


def test_calm_takes_reductions_back_one_by_one() -> None:
    losses, norms = quiet(2000)
    norms[500:560] *= 10.0
    trace = factors(
        ReduceOnUnsteadiness(cooldown=0, recovery=10, patience=2), windows(losses, norms, range(10, 2000, 10))
    )
    assert min(trace) < 0.5
    assert trace[-1] == 1.0
    rises = [after / before for before, after in pairwise(trace) if after > before]
    assert rises == pytest.approx([2.0] * len(rises))


@given(cuts=st.sets(st.integers(1, 599)))
def test_how_windows_are_cut_changes_nothing(cuts: set[int]) -> None:
    losses, norms = quiet(600)
    norms[300:] *= 5.0
    losses[20], norms[20] = math.nan, math.inf
    make = lambda: ReduceOnUnsteadiness(cooldown=2, patience=2)  # noqa: E731
    whole, cut = make(), make()
    for event in windows(losses, norms, skipped=[20, 21]):
        whole.decide(event)
    for event in windows(losses, norms, sorted(cuts), skipped=[20, 21]):
        cut.decide(event)
    assert whole.state() | {"seen": 0} == cut.state() | {"seen": 0}
    assert whole.state()["factor"] < 1.0


def test_skipped_and_non_finite_steps_say_nothing() -> None:
    losses, norms = quiet(400)
    plain = ReduceOnUnsteadiness(every=8, patience=1)
    norms[300:304] = 1e6
    losses[310] = math.nan
    assert set(factors(plain, windows(losses, norms, skipped=range(300, 304)))) == {1.0}
    assert all(math.isfinite(value) for values in plain.state()["past"].values() for value in values)


def test_a_rollback_drops_the_open_stretch() -> None:
    controller = ReduceOnUnsteadiness(every=10)
    losses, norms = quiet(15)
    controller.decide(windows(losses, norms)[0])
    assert controller.state()["steps"] == 5
    controller.decide(RunStarted(15, 2, 1, 15, 100))
    assert controller.state()["steps"] == 5, "a resume loses nothing"
    controller.decide(RunStarted(8, 2, 2, 8, 100))
    assert controller.state()["steps"] == 0


@pytest.mark.parametrize("recovery", [None, 2])
def test_they_survive_a_kill_anywhere(recovery: int | None) -> None:
    losses, norms = quiet(200)
    norms[120:150] *= 8.0
    events = [*windows(losses, norms, range(7, 200, 7)), *sample_events()]
    make = lambda: ReduceOnUnsteadiness(every=5, patience=2, cooldown=1, recovery=recovery)  # noqa: E731
    assert any(make_one is not None for make_one in map(make().decide, events))
    check_controller(make, events)
    check_controller(lambda: ReduceOnPlateau(1, metric="validation/accuracy", cooldown=1))


def test_the_configuration_builds_them_and_refuses_what_is_not_measured() -> None:
    config = Config.model_validate({"control": {"learning_rate": {"name": "plateau", "patience": 7, "minimum": 0.2}}})
    (plateau,) = [c for c in build_controllers(config) if isinstance(c, ReduceOnPlateau)]
    assert (plateau.patience, plateau.minimum, plateau.metric) == (7, 0.2, "validation/loss")
    config = Config.model_validate({"control": {"learning_rate": {"name": "unsteadiness", "signal": "loss_spread"}}})
    (unsteady,) = [c for c in build_controllers(config) if isinstance(c, ReduceOnUnsteadiness)]
    assert unsteady.signals == ("loss_spread",)
    wrong = {"learning_rate": {"name": "plateau", "metric": "validation/los"}}
    with pytest.raises(ConfigError, match=r"control\.learning_rate\.metric: no evaluation measures it"):
        build_controllers(Config.model_validate({"control": wrong}))
    assert ADJUSTABLE["learning_rate"].low <= 1e-4
