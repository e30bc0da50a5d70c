"""What is proposed can be done."""

from __future__ import annotations

import math
from typing import Any

import pytest
from cases import case_of, falling

from trimtab.config import load_config
from trimtab.doctor.case import Case
from trimtab.doctor.levels import uniform_loss
from trimtab.doctor.lint import lint
from trimtab.doctor.narrate import summarize
from trimtab.doctor.remedies import kept_checkpoint, sound_rate
from trimtab.events import CheckpointSaved, FindingsChanged, RunStarted


def saved(steps: list[int], settings: dict[str, Any], validation: dict[int, float]) -> Case:
    case = case_of(falling(100), validation=validation or None, config=settings)
    for step in steps:
        case.history.observe(CheckpointSaved(step, "", 1, 0.1, "scheduled"))
    return case


@pytest.mark.parametrize(
    ("settings", "onset", "kept"),
    [
        ({}, 35, 30),
        ({"checkpoint.keep_latest": 2, "checkpoint.keep_best": 0}, 35, None),
        ({"checkpoint.keep_latest": 2, "checkpoint.keep_best": 1}, 35, 20),
        ({"checkpoint.keep_latest": 2, "checkpoint.keep_best": 2}, 35, 30),
        ({"checkpoint.keep_latest": 2, "checkpoint.keep_best": 0}, 60, 60),
        ({}, 5, None),
    ],
)
def test_the_checkpoint_to_go_back_to_is_one_that_pruning_left(
    settings: dict[str, Any], onset: int, kept: int | None
) -> None:
    validation = {10: 3.0, 20: 1.0, 30: 2.0, 40: 4.0, 50: 5.0, 60: 6.0}
    assert kept_checkpoint(saved([10, 20, 30, 40, 50, 60], settings, validation), onset) == kept


def test_the_checkpoint_that_an_attempt_began_from_counts() -> None:
    case = saved([], {}, {})
    case.history.observe(RunStarted(20, 2, 1, 20, 100))
    assert kept_checkpoint(case, 30) == 20


def test_the_verdict_names_what_was_told_and_has_passed() -> None:
    case = case_of(falling(100))
    assert "has passed" not in summarize(case, "healthy", [], [])
    finding = {"code": "divergence", "severity": "error"}
    case.history.observe(FindingsChanged(40, (finding, {"code": "noisy-loss", "severity": "info"})))
    text = summarize(case, "healthy", [], [])
    assert "what was told during the run has passed, seen from its end (divergence at step 40)" in text


@pytest.mark.parametrize(
    ("facts", "objective", "level"),
    [
        ({"tokenizer": {"vocabulary_size": 100}}, "cross_entropy", math.log(100)),
        ({"task": "classification", "targets": {"classes": ["a", "b", "c"]}}, "cross_entropy", math.log(3)),
        ({"task": "classification", "targets": {"classes": ["a", "b"]}}, "binary_cross_entropy", None),
        ({"task": "regression", "tokenizer": {"vocabulary_size": 100}}, "mse", None),
    ],
)
def test_what_guessing_costs_goes_by_the_task(facts: dict[str, Any], objective: str, level: float | None) -> None:
    assert uniform_loss(case_of(falling(50), config={"objective.name": objective}, facts=facts)) == level


def test_lint_and_doctor_propose_the_same_rate() -> None:
    facts = {"parameters": {"total": 1_300_000, "non_embedding": 800_000}, "optimizer": "adamw"}
    (finding,) = [
        f
        for f in lint(load_config("gpt-1m", ["optimizer.learning_rate=0.3"]), facts)
        if f.code == "learning-rate-range"
    ]
    case = case_of(falling(50), config={"model.hidden_size": 128}, facts=facts)
    assert float(finding.fix.partition("=")[2]) == float(f"{sound_rate(case):.0e}")
