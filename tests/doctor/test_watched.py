"""Runs of other trainers that a callback watched: what its facts say reaches the rules, as in runs of our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trimtab.doctor import Case
from trimtab.doctor.differential import guesses_of
from trimtab.doctor.differential.resemble import _can_be
from trimtab.doctor.rules import RULES
from trimtab.events import EvaluationEnded, RunEnded

from .cases import case_of, noise_of


def watched(loss: np.ndarray[Any, Any], **told: Any) -> Case:
    return replace(case_of(loss, **told), target="huggingface")


def short(facts: dict[str, Any]) -> Case:
    """Forty steps, with evaluations that get better to the end."""
    loss = 3.0 + 1.6 * np.arange(1, 41) ** -0.5 + 0.02 * noise_of(40)
    validation = {step: 2.95 + 1.6 * step**-0.5 for step in range(4, 41, 4)}
    return watched(loss, rates=np.full(40, 3e-3), validation=validation, facts=facts)


@pytest.mark.parametrize("facts", [{}, {"tokenizer": {"vocabulary_size": 97}}])
def test_few_updates_are_few_whether_the_vocabulary_is_known_or_not(facts: dict[str, Any]) -> None:
    assert [one.severity for one in RULES["stopped-too-early"](short(facts))] == ["warning"]


def test_seconds_of_evaluations_weigh_as_in_runs_of_our_own() -> None:
    def case(split: dict[str, float]) -> Case:
        found = short({})
        for step in range(4, 41, 4):
            found.history.observe(EvaluationEnded(step, {}, 0.05))
        found.history.observe(RunEnded(40, "finished", "done", None, None, None, 1.0, split))
        return found

    assert list(RULES["evaluation-bound"](case({"training": 0.3, "evaluation": 0.5}))) == []
    [finding] = RULES["evaluation-bound"](case({"training": 500.0, "evaluation": 300.0}))
    assert finding.severity == "info"
    [finding] = RULES["evaluation-bound"](case({"training": 300.0, "evaluation": 500.0}))
    assert finding.severity == "warning"


@pytest.mark.parametrize(
    ("code", "seen", "unknown"),
    [
        ("double-softmax", {"first_batch": {"sum_to_one": 0.0}}, {"first_batch": {"sum_to_one": None}}),
        ("evaluated-in-training-mode", {"evaluated_in_training_mode": False}, {"evaluated_in_training_mode": None}),
    ],
)
def test_what_was_seen_not_to_be_is_no_guess(code: str, seen: Mapping[str, Any], unknown: Mapping[str, Any]) -> None:
    assert guesses_of(short(dict(seen)), [])
    assert _can_be(short(dict(unknown)), code)
    assert not _can_be(short(dict(seen)), code)


@pytest.mark.parametrize("dropout", [0.8, 0.1])
def test_the_dropout_that_a_callback_saw_is_weighed(dropout: float) -> None:
    loss = 1.53 + 0.4 * np.exp(-np.arange(200) / 20) + 0.05 * noise_of(200)
    validation = {step: 1.53 + 0.1 * 0.98**step for step in range(20, 201, 20)}
    facts = {"num_classes": 5, "largest_dropout": dropout, "epochs": 2.6}
    case = watched(
        loss, rates=np.full(200, 3e-3), validation=validation, facts=facts, config={"optimizer.weight_decay": 0.01}
    )
    assert [one.severity for one in RULES["over-regularised"](case)] == (["warning"] if dropout > 0.5 else [])
