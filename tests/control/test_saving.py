"""Saving the best, and saying so when there can be none."""

from __future__ import annotations

import math

import pytest

from trimtab.control import SaveBest
from trimtab.events import Advise, EvaluationEnded, RunStarted, Save


@pytest.mark.parametrize("metrics", [{}, {"validation/r2": math.nan}])
def test_a_metric_that_is_not_there_is_told_once(metrics: dict[str, float]) -> None:
    controller = SaveBest("validation/r2")
    event = EvaluationEnded(5, {"validation/loss": 1.0, **metrics}, 0.0)
    told = controller.decide(event)
    assert isinstance(told, Advise)
    assert "validation/r2 is not" in told.reason
    assert told.reason.endswith("There are: validation/loss")
    resumed = SaveBest("validation/r2")
    resumed.load_state(controller.state())
    assert controller.decide(event) is None
    assert resumed.decide(event) is None
    assert isinstance(resumed.decide(EvaluationEnded(6, {"validation/r2": 0.5}, 0.0)), Save)


def saved(controller: SaveBest, *losses: float) -> list[int]:
    """Which of the evaluations, from 1 on, are saved."""
    events = [EvaluationEnded(step, {controller.metric: loss}, 0.0) for step, loss in enumerate(losses, start=1)]
    return [event.step for event in events if isinstance(controller.decide(event), Save)]


def test_each_that_is_among_the_best_is_saved() -> None:
    losses = (5.0, 4.0, 4.5, 4.2, 4.4, 3.0, 4.1, 4.15)
    assert saved(SaveBest(), *losses) == [1, 2, 6]
    assert saved(SaveBest(most=3), *losses) == [1, 2, 3, 4, 5, 6, 7]
    # 4.2 comes for 5.0, 4.4 for 4.5, 3.0 for 4.4, 4.1 for 4.2; 4.15 would be the fourth.
    controller = SaveBest(most=2)
    assert [controller.decide(EvaluationEnded(s, {"validation/loss": v}, 0.0)) for s, v in ((1, 2.0), (2, 3.0))] == [
        Save("best validation/loss: 2.0000"),
        Save("2. best validation/loss: 3.0000"),
    ]


def test_what_is_hardly_better_is_not_saved() -> None:
    assert saved(SaveBest(min_improvement=0.25), 5.0, 4.75, 4.5, 4.25, 4.2, 4.0) == [1, 3, 5]
    assert saved(SaveBest("validation/accuracy", min_improvement=0.25), 0.0, 0.25, 0.5, 0.75) == [1, 3]


def test_its_state_goes_on_and_what_was_given_up_is_forgotten() -> None:
    controller = SaveBest(most=2)
    saved(controller, 5.0, 4.0, 3.0)
    resumed = SaveBest(most=2)
    resumed.load_state(controller.state())
    assert (
        resumed.state()
        == controller.state()
        == {
            "metric": "validation/loss",
            "best_ones": [[3.0, 3], [4.0, 2]],
            "has_told": False,
        }
    )
    resumed.decide(RunStarted(2, 1, 1, 2, 10))
    assert resumed.state()["best_ones"] == [[4.0, 2]]
    older = SaveBest()
    older.load_state({"best": 3.5, "best_step": 7})
    assert older.state()["best_ones"] == [[3.5, 7]]


def test_values_of_another_metric_are_not_held_against_those_of_this_one() -> None:
    by_loss, same = SaveBest("validation/loss"), SaveBest("validation/loss")
    assert saved(by_loss, 1.5, 1.38) == [1, 2]
    same.load_state(by_loss.state())
    assert saved(same, 1.4) == []
    other = SaveBest("validation/accuracy")
    other.load_state(by_loss.state())
    assert saved(other, 0.6, 0.5, 0.7) == [1, 3]
    older = SaveBest("validation/accuracy")  # such a state does not say of what: the trainer does, after drift
    older.load_state({name: value for name, value in by_loss.state().items() if name != "metric"})
    older.forget()
    assert saved(older, 0.6) == [1]
