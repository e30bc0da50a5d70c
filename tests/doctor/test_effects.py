"""Effects of settings over a project's runs: recovered where they are planted, with intervals that hold."""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from trimtab import cli
from trimtab.doctor.effects import RunOutcome, effects_of, quantile_of_t, seed_spread
from trimtab.report.effects import render_effects

ARCHIVE = Path(__file__).parent / "runs" / "runs.tar.xz"


def row(value: float, **settings: Any) -> RunOutcome:
    kept = {"seed": 0, "optimizer.name": "adamw", **{key.replace("__", "."): one for key, one in settings.items()}}
    return RunOutcome(f"r{value}", kept, "validation/loss", value, ())


def test_a_doubling_by_hand() -> None:
    rows = [row(3.0, optimizer__learning_rate=1e-3), row(2.8, optimizer__learning_rate=2e-3)]
    rows += [row(2.5, optimizer__learning_rate=4e-3)]
    found = effects_of(rows)
    assert found is not None
    (effect,) = found.effects
    # x = 0, 1, 2; y = 3.0, 2.8, 2.5: slope -0.25, residuals 1/60 (1, -2, 1), so s^2 = 6/3600, and sum x^2 = 2
    assert effect.change == pytest.approx(-0.25)
    assert effect.low == pytest.approx(-0.25 - 12.706 * math.sqrt(6 / 3600 / 2))
    assert (effect.contrast, effect.controlled, effect.num_runs) == ("each doubling", True, 3)


def test_what_is_equal_in_all_else_is_controlled_for() -> None:
    """A wide model is better by 1, and was trained with dropout only: without control dropout would look good."""
    rng = np.random.default_rng(0)
    rows = [
        row(
            3 - width / 128 + 0.3 * dropout + 0.01 * rng.normal(),
            model__hidden_size=width,
            model__dropout=dropout,
            seed=s,
        )
        for width, dropout in [(128, 0.0), (256, 0.0), (256, 0.5), (256, 0.5), (128, 0.0)]
        for s in range(3)
    ]
    found = effects_of(rows)
    assert found is not None
    effects = {one.settings[0]: one for one in found.effects}
    dropout = effects["model.dropout"]
    assert dropout.controlled
    assert dropout.contrast == "0 to 0.5"
    assert dropout.low is not None
    assert dropout.high is not None
    assert dropout.low < 0.15 < dropout.high
    assert dropout.is_clear


def test_what_changes_along_is_said() -> None:
    rows = [
        row(
            3.0 - 0.5 * (i > 2) + 0.01 * i,
            model__hidden_size=64 * (1 + (i > 2)),
            model__activation="gelu" if i < 3 else "swiglu",
            training__steps=100 + i,
        )
        for i in range(6)
    ]
    found = effects_of(rows)
    assert found is not None
    together = next(one for one in found.effects if len(one.settings) > 1)
    assert set(together.settings) == {"model.activation", "model.hidden_size"}
    assert not together.controlled
    assert together.beside == ("training.steps",)
    told = " ".join(render_effects(found).split())
    assert "these only ever changed together" in told
    assert "confounded: training.steps changed along with it" in told
    assert "chance: not known" in told


def test_intervals_hold_in_95_of_100() -> None:
    rng, held, num = np.random.default_rng(1), 0, 200
    for _ in range(num):
        rows = [row(0.2 * x + float(rng.normal()), model__num_layers=2**x, seed=s) for x in (0, 1) for s in range(5)]
        found = effects_of(rows)
        assert found is not None
        (effect,) = found.effects
        assert effect.low is not None
        assert effect.high is not None
        held += effect.low <= 0.2 <= effect.high
    assert 0.91 <= held / num <= 0.99


def test_chance_is_told_by_runs_that_differ_in_the_seed_alone() -> None:
    rows = [
        row(1.0, seed=1),
        row(1.2, seed=2),
        row(2.0, seed=1, model__num_layers=2),
        row(2.2, seed=2, model__num_layers=2),
    ]
    spread = seed_spread(rows)
    assert spread is not None
    assert spread.deviation == pytest.approx(math.sqrt(0.02))
    assert (spread.num_runs, spread.freedom) == (4, 2)
    assert seed_spread([row(1.0, seed=1), row(1.0, seed=1)]) is None, "the same run twice is no chance"


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.7062), (2, 4.3027), (7, 2.3646), (30, 2.0423), (31, 2.0395), (40, 2.0211), (100, 1.9840), (10_000, 1.9602)],
)
def test_quantiles_of_t_are_those_of_tables(freedom: int, value: float) -> None:
    assert quantile_of_t(freedom) == pytest.approx(value, abs=1e-3)


def test_too_few_runs() -> None:
    assert effects_of([row(1.0), row(2.0)]) is None


def test_the_command(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        wanted = ("1/cosine/", "1/learning-rate-too-high/", "1/learning-rate-too-low/", "1/nan-loss/")
        archive.extractall(tmp_path, [one for one in archive if one.name.startswith(wanted)], filter="data")
    done = CliRunner().invoke(cli.app, ["runs", str(tmp_path / "1"), "--effects", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["runs"], told["left_out"]) == (3, ["nan-loss"])
    assert ["optimizer.learning_rate"] in [one["settings"] for one in told["effects"]]
    done = CliRunner().invoke(cli.app, ["runs", str(tmp_path / "1"), "--effects"])
    assert "optimizer.learning_rate, each doubling" in done.output
    assert not any("nan-loss" in line for line in done.output.splitlines() if line.startswith("next:"))
    done = CliRunner().invoke(cli.app, ["runs", str(tmp_path), "--effects"])
    assert "effects need 3 runs" in str(done.exception)
