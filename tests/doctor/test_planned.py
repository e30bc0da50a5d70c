"""What the doctor takes for planned is what a run applied."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from cases import case_of, falling

from trimtab.config import flatten, load_config
from trimtab.doctor.load import open_case
from trimtab.doctor.reading.planned import planned_budget, planned_factor, planned_schedule
from trimtab.runs import RunDirectory

ARCHIVE = Path(__file__).parent / "runs" / "runs.tar.xz"


@pytest.mark.parametrize("name", ["1/cosine", "1/constant"])
def test_the_planned_rate_is_that_of_the_recorded_run(tmp_path: Path, name: str) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, [one for one in archive if one.name.startswith(name)], filter="data")
    case = open_case(RunDirectory.open(tmp_path / name))
    factor, series = planned_factor(case), case.history.get("learning_rate")
    assert factor is not None
    assert series is not None
    steps, rates = series.raw()
    planned = [case.setting("optimizer.learning_rate") * factor(step) for step in steps.tolist()]
    np.testing.assert_allclose(rates, planned, rtol=1e-5)
    assert planned_budget(case).tokens_per_step == case.fact("tokens_per_step")


def test_what_is_not_known_is_not_planned() -> None:
    assert planned_schedule(case_of(falling(50))) is None
    assert planned_factor(case_of(falling(50), config={"schedule.name": "of another version"})) is None
    config = flatten(load_config("gpt-1m", ["schedule.name=warm_restarts", "schedule.period=0.5 epochs"]))
    assert planned_factor(case_of(falling(50), config=config)) is None
    known = planned_factor(case_of(falling(50), config=config, facts={"tokens_per_epoch": 20 * 16 * 256}))
    assert known is not None
    assert [known(step) for step in (10, 20)] == [0.0, 0.0]  # a period is ten steps: the floor at the end of each
    assert known(11) > 0.9


def test_a_plan_is_the_same_along_steps_that_were_asked_for_before() -> None:
    config = flatten(load_config("gpt-1m", ["schedule.name=cosine", "schedule.warmup=1"]))
    plans = [planned_factor(case_of(falling(50), config={**config, "schedule.warmup": warmup})) for warmup in (1, 1.0)]
    for plan in plans:
        assert plan is not None
        for steps in ([1, 2, 3], [1, 2, 3, 4, 50], [1, 2, 5], [], [7], [7, 1], [1, 2, 3, 4, 5, 6], [2, 4, 6, 8]):
            assert plan.along(np.array(steps, np.int64)).tolist() == [plan(step) for step in steps]
        steps = np.array([1, 2, 3])
        given = plan.along(steps)
        with pytest.raises(ValueError, match="read-only"):
            given[0] = 0.0
        steps[0] = 40  # what the caller writes there is another question
        assert plan.along(steps).tolist() == [plan(40), plan(2), plan(3)]
    assert plans[0] is not plans[1]  # one step and the whole run are equal numbers
