"""Whether a remedy held, from outcomes alone."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trimtab.experiments.proof import Outcome, Proof, judge, mean_with_interval, short_steps

CODE = "learning-rate-too-high"


def outcome(side: Literal["original", "fixed"], seed: int, loss: float | None, *found: str) -> Outcome:
    return Outcome(side, seed, f"proofs/{side}/seed-{seed}", "finished", 100, loss, found)


def proof(originals: list[float | None], fixed: list[float | None], *, shown: bool = True, left: bool = False) -> Proof:
    outcomes = []
    for seed, (one, other) in enumerate(zip(originals, fixed, strict=True)):
        outcomes.append(outcome("original", seed, one, *([CODE] if shown else [])))
        outcomes.append(outcome("fixed", seed, other, *([CODE] if left else [])))
    return judge(outcomes, [CODE], ["optimizer.learning_rate=0.001"], steps=100, of_steps=400)


@pytest.mark.parametrize(
    ("originals", "fixed", "shown", "left", "verdict"),
    [
        ([4.0], [3.0], True, False, "held"),
        ([4.0], [3.0], True, True, "helped"),
        ([4.0], [3.0], False, False, "held"),
        ([4.0], [3.99], True, False, "held"),
        ([4.0], [3.99], True, True, "failed"),
        ([4.0], [3.99], False, False, "unclear"),
        ([4.0], [4.5], True, False, "failed"),
        ([None], [4.5], True, False, "held"),
        ([4.0], [None], True, False, "failed"),
        ([None], [None], True, True, "failed"),
        ([4.0, 4.1, 3.9], [3.0, 3.2, 2.9], True, False, "held"),
        ([4.0, 4.1, 3.9], [3.0, 4.9, 3.9], False, False, "unclear"),
        ([4.0, None, 3.9], [3.9, 3.9, 4.0], True, False, "held"),
        ([3.0, 3.1, 2.9], [4.0, 4.1, 4.0], True, False, "failed"),
    ],
)
def test_the_verdict(
    originals: list[float | None], fixed: list[float | None], shown: bool, left: bool, verdict: str
) -> None:
    assert proof(originals, fixed, shown=shown, left=left).verdict == verdict


@pytest.mark.parametrize(
    ("shown", "left", "verdict"), [(True, False, "held"), (True, True, "failed"), (False, False, "unclear")]
)
def test_losses_of_different_kinds_prove_nothing(shown: bool, left: bool, verdict: str) -> None:
    outcomes = [
        outcome("original", 0, 4.0, *([CODE] if shown else [])),
        outcome("fixed", 0, 0.5, *([CODE] if left else [])),
    ]
    said = "their losses are not of one kind: objective.name is mse and huber"
    told = judge(outcomes, [CODE], ["objective.name=huber"], steps=100, of_steps=100, obstacles=[said])
    assert (told.verdict, told.difference, told.interval) == (verdict, None, None)
    assert f"cannot be held against each other ({said})" in told.text


def test_it_says_losses_interval_and_what_was_found() -> None:
    told = proof([4.0, 4.2, 4.1], [3.0, 3.1, 3.2])
    assert told.text.startswith("The remedy held: over 3 seeds, after 100 of 400 steps the validation loss is 4.1")
    assert "3.1" in told.text
    assert "95 % interval" in told.text
    assert f"On {CODE}: found in 3 of 3 originals and in 0 of 3 fixed runs." in told.text
    assert "--full takes all" in proof([4.0], [4.0], shown=False).text
    assert "no number" in proof([None], [3.0]).text
    assert json.loads(json.dumps(told.to_json()))["verdict"] == "held"


def test_a_side_without_its_pair_is_not_counted() -> None:
    alone = [outcome("original", 0, 4.0, CODE), outcome("fixed", 0, 3.0), outcome("original", 1, None, CODE)]
    told = judge(alone, [CODE], [], steps=100, of_steps=100)
    assert (told.verdict, told.shown, told.difference, told.interval) == ("held", 1, -1.0, None)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=21))
def test_the_interval_is_students(values: list[float]) -> None:
    mean, interval = mean_with_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert interval is not None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    wide = stats.t.ppf(0.975, len(values) - 1) * error
    assert interval[1] - interval[0] == pytest.approx(2 * wide, rel=2e-3, abs=1e-9)


@given(st.integers(1, 10_000), st.integers(1, 500), st.integers(0, 10_000))
def test_a_short_proof_ends_at_an_evaluation_beyond_the_onset(total: int, every: int, onset: int) -> None:
    steps = short_steps(total, every, min(onset, total))
    assert steps == total or steps % every == 0
    assert steps >= min(total, 2 * every)
    assert steps >= min(onset, total)
