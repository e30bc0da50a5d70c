"""The runs by other code: `benchmarks/doctor/strangers`. Its table, a few of its runs, and that they can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from strangers.faults import planted
from strangers.logs_text import FORMATS
from strangers.make import one, stratum
from strangers.plan import Plan, draw
from strangers.train import Trace, train
from strangers.view import look

from trimtab.doctor.codes import CODES
from trimtab.doctor.load import open_foreign_case

LEFT_OUT = {
    "leakage",
    "communication-bound",
    "rank-imbalance",
    "thread-oversubscription",
    "validation-regression",
    "no-loss",
}


@pytest.fixture(scope="module")
def trace() -> Trace:
    plan: Plan = draw(np.random.RandomState(3), ("cls",), lambda name, task: name == "moons")
    plan.steps, plan.evaluations, plan.batch, plan.every, plan.layers, plan.warmup = 60, 6, 32, 5, True, 4
    return train(plan)


def test_every_code_that_a_log_can_show_is_planted() -> None:
    assert set(planted()) == {code for code, row in CODES.items() if row.kind != "lint"} - LEFT_OUT


def test_strata_fill_evenly() -> None:
    codes = [stratum(index)[0] for index in range(1000)]
    assert codes.count("healthy") == 350
    counts = {code: codes.count(code) for code in planted()}
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_is_read_without_a_mapping(form: str, trace: Trace, tmp_path: Path) -> None:
    write, carries = FORMATS[form]
    rng = np.random.RandomState(5)
    view = look(
        trace, rng, frozenset(carries & {"lr", "accuracy"}) | {"validation"}, False, by_epoch="epochs" in carries
    )
    name = write(view, tmp_path, rng)
    case, _ = open_foreign_case(tmp_path / name)
    losses = case.history.get("train/loss")
    assert losses is not None
    assert len(losses.finite()[1]) >= 5
    validation = case.history.get("validation/loss")
    assert validation is not None
    assert validation.finite()[1][-1] == pytest.approx(trace.final, abs=2e-3)


def test_a_seed_gives_its_bytes(trace: Trace, tmp_path: Path) -> None:
    again = train(trace.plan)
    for folder, one_of_both in (("a", trace), ("b", again)):
        (tmp_path / folder).mkdir()
        rng = np.random.RandomState(8)
        FORMATS["jsonl"][0](look(one_of_both, rng, frozenset({"layers"}), False), tmp_path / folder, rng)
    (first,), (second,) = ((tmp_path / folder).iterdir() for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_is_made_once_with_its_truth(tmp_path: Path) -> None:
    index = next(i for i in range(200) if stratum(i)[0] == "memory-leak")
    assert "FAILED" not in one(tmp_path, index, seed=1)
    (folder,) = tmp_path.iterdir()
    truth = json.loads((folder / "truth.json").read_text())
    assert truth["code"] == "memory-leak"
    assert truth["twin"]
    assert one(tmp_path, index, seed=1) == "there"
    case, _ = open_foreign_case(folder / truth["path"])
    assert case.history.get("train/loss") is not None
