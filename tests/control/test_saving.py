"""Saving the best, and saying so when there can be none."""

from __future__ import annotations

import math

import pytest

from trimtab.control import SaveBest
from trimtab.events import Advise, EvaluationEnded, Save


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
