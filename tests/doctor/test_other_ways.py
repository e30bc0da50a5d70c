"""Ways to go wrong that an examination by other code planted, and the sound runs beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import Array, case_of, cosine, falling, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.rules import RULES
from trimtab.events import RunEnded
from trimtab.model.answers import within_one

LETTERS: dict[str, Any] = {"classes": list("abcdefghij"), "counts": [100] * 10}


def said(case: Case, code: str) -> Finding | None:
    return next((one for one in RULES[code](case) if isinstance(one, Finding)), None)


def severity(case: Case, code: str) -> str | None:
    told = said(case, code)
    return told.severity if told else None


def layered(case: Case, faded_until: int, windows: int = 40) -> Case:
    """Eight layers whose gradient fades tenfold from one to the next until some window, and not at all after it."""
    names = tuple(f"layer/layers.{at}.weight/grad_norm" for at in range(8))
    last = case.history.last_step
    for window in range(windows):
        fade = 10.0 ** np.arange(-7.0, 1.0) if window < faded_until else np.ones(8)
        case.history.layers.append((window + 1) * last // windows, names, fade)
    return case


@pytest.mark.parametrize(("faded", "expected"), [(16, "warning"), (3, None)])
def test_a_gradient_that_came_back_after_a_part_of_the_run_has_cost_that_part(faded: int, expected: str | None) -> None:
    stood = 400 * faded // 40
    loss = np.concatenate(
        [np.full(stood, 2.3), falling(400 - stood, start=2.3, floor=1.9, noise=0.0)]
    ) + 0.01 * noise_of(400)
    assert severity(layered(case_of(loss, rates=cosine(400)), faded), "vanishing-gradients") == expected


def test_a_gradient_that_fades_while_the_run_learns_costs_nothing() -> None:
    case = case_of(falling(400, start=2.3, floor=0.5, noise=0.0) + 0.01 * noise_of(400), rates=cosine(400))
    assert severity(layered(case, 16), "vanishing-gradients") is None


@pytest.mark.parametrize(
    ("seconds", "train", "expected"),
    [
        ([1.0] * 8, 4.0, "warning"),
        ([1.0] * 8, 8.0, None),
        ([0.25] * 8, 1.0, None),
        ([7.0] * 10, 100.0, "info"),
        ([30.0] * 10, 100.0, "warning"),
        ([8.0], 4.0, None),
        ([30.0, *[0.2] * 10], 8.0, None),
        ([300.0, *[0.2] * 10], 8.0, "info"),
    ],
    ids=["most", "half", "of no time", "much", "most of much", "one", "the first compiles", "that costs much"],
)
def test_a_run_that_rather_evaluates_than_trains(seconds: list[float], train: float, expected: str | None) -> None:
    case = case_of(falling(200), rates=cosine(200))
    case.history.evaluation_seconds.extend(seconds)
    evaluation = sum(seconds)
    split = {"start": 50.0, "evaluation": evaluation, "training": train}
    case.history.observe(RunEnded(200, "finished", "", None, None, None, evaluation + train, split))
    assert severity(case, "evaluation-bound") == expected


@pytest.mark.parametrize(("evaluation", "expected"), [(8.0, None), (80.0, "info")])
def test_a_run_that_was_cut_off_after_its_first_evaluation_says_little(evaluation: float, expected: str | None) -> None:
    case = case_of(falling(4), rates=cosine(4), total_steps=2000)
    split = {"start": 2.0, "evaluation": evaluation, "training": 2.0}
    case.history.observe(RunEnded(4, "interrupted", "", None, None, None, evaluation + 2.0, split))
    assert severity(case, "evaluation-bound") == expected


@pytest.mark.parametrize(("deviation", "expected"), [(0.9, "info"), (7.0, "warning"), (None, "warning")])
def test_a_first_loss_that_is_somewhat_high_where_guesses_are_unsure(deviation: float | None, expected: str) -> None:
    loss = np.concatenate([[3.6, 2.9, 2.4], falling(297, start=2.3, floor=0.3, noise=0.0)]) + 0.01 * noise_of(300)
    facts = {"task": "classification", "targets": LETTERS, "first_pass": {"logits_std": deviation}}
    assert severity(case_of(loss, rates=cosine(300), facts=facts), "bad-initialization") == expected


def test_weights_of_classes_make_the_first_loss_what_it_is() -> None:
    facts = {"task": "classification", "targets": LETTERS}
    loss = falling(300, start=1000.0, floor=1.0)
    weighed = {"task.class_weights": {"a": 1000.0}}
    assert severity(case_of(loss, rates=cosine(300), facts=facts, config=weighed), "bad-initialization") is None


@pytest.mark.parametrize(("objective", "first", "expected"), [("huber", 170.0, "warning"), ("mae", 3.0, None)])
def test_a_regression_that_begins_far_off_by_any_loss(objective: str, first: float, expected: str | None) -> None:
    facts = {
        "task": "regression",
        "targets": {"classes": [], "counts": [], "mean": 3.0, "deviation": 2.0},
        "first_batch": {"input_rms": 1.0},
    }
    loss = falling(300, start=first, floor=0.5, noise=0.0) + 0.01 * noise_of(300)
    case = case_of(loss, rates=cosine(300), facts=facts, config={"objective.name": objective})
    assert severity(case, "bad-initialization") == expected


@pytest.mark.parametrize(("deviation", "expected"), [(2.0, "warning"), (0.1, None)])
def test_embeddings_that_no_step_can_move_by_their_own_size(deviation: float, expected: str | None) -> None:
    config = {"model.name": "mlp", "model.initialization.standard_deviation": deviation, "optimizer.name": "adamw"}
    facts = {"task": "classification", "targets": LETTERS, "first_pass": {"logits_std": 0.2}}
    loss = falling(300, start=2.3, floor=1.5, noise=0.0) + 0.01 * noise_of(300)
    case = case_of(loss, rates=np.full(300, 2e-3), facts=facts, config=config)
    assert severity(case, "bad-initialization") == expected


def short_model(rest: float, gains: float) -> Case:
    """A model that saw four tokens a parameter, and lies at `rest` from an eighth of the run on, but for its gains."""
    steps = np.arange(1, 601)
    loss: Array = rest + 3.5 * np.exp(-steps / 15.0) + gains * (1.0 - steps / 600)
    facts = {
        "task": "causal_lm",
        "parameters": {"total": 100_000, "non_embedding": 80_000},
        "yardsticks": {"bigram": 4.0, "unigram": 5.0, "judged_tokens": 1000, "judged_bytes": 719},
    }
    judged = {int(at): float(loss[at - 1]) for at in range(50, 601, 50)}
    noisy = loss + 0.02 * noise_of(600)
    return case_of(noisy, rates=cosine(600), validation=judged, facts=facts, tokens=np.full(600, 700.0))


@pytest.mark.parametrize(("rest", "gains", "expected"), [(2.0, 0.03, True), (2.0, 0.6, False), (1.6, 0.03, False)])
def test_a_model_that_rests_where_pairs_are_sees_one_token(rest: float, gains: float, expected: bool) -> None:
    assert (said(short_model(rest, gains), "underfitting") is not None) == expected


def test_a_sigmoid_of_a_sigmoid_is_told_by_the_first_answers() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 5, generator=draw)
    assert within_one(logits.sigmoid()) == 1.0
    assert within_one(logits) < 0.6
    loss = falling(300, start=0.74, floor=0.693, noise=0.001)
    facts = {"task": "classification", "targets": LETTERS, "first_batch": {"within_one": 1.0, "sum_to_one": None}}
    assert severity(case_of(loss, rates=cosine(300), facts=facts), "double-softmax") == "warning"
    facts["first_batch"] = {"within_one": 0.4, "sum_to_one": None}
    assert severity(case_of(loss, rates=cosine(300), facts=facts), "double-softmax") is None


@pytest.mark.parametrize(
    ("labels", "floor", "steps", "expected"), [(10, 0.1, 300, None), (3, 0.693, 30, None), (3, 0.693, 300, "warning")]
)
def test_logits_that_happen_to_lie_between_zero_and_one_are_no_sigmoid_of_a_sigmoid(
    labels: int, floor: float, steps: int, expected: str | None
) -> None:
    """A head that begins at nothing; small logits of few labels, that are above 0 by chance, in one of eight of three;
    a loss that no sigmoid of a sigmoid comes to."""
    assert within_one(torch.zeros(2, 5)) == 0.0
    letters = {"classes": list("abcdefghij")[:labels], "counts": [100] * labels}
    facts = {"task": "classification", "targets": letters, "first_batch": {"within_one": 1.0, "sum_to_one": None}}
    loss = falling(steps, start=0.74, floor=floor, noise=0.001)
    case = case_of(loss, rates=cosine(300)[:steps], facts=facts, total_steps=300)
    assert severity(case, "double-softmax") == expected


def test_a_rate_that_throws_the_loss_comes_before_the_one_class_that_is_left() -> None:
    loss = np.concatenate([[2.3, 2.2, 2.1, 43.0, 30.0, 9.0], np.full(394, 2.31)]) + 0.005 * noise_of(400)
    judged = dict.fromkeys(range(40, 401, 40), 2.33)
    facts = {"task": "classification", "targets": LETTERS, "optimizer": "sgd"}
    case = case_of(loss, rates=np.full(400, 5.0), validation=judged, facts=facts)
    for step in judged:
        case.history.add("validation/accuracy", np.array([step]), np.array([0.07]))
        case.history.add("validation/macro_f1", np.array([step]), np.array([0.0131]))
    told = said(case, "class-collapse")
    assert told is not None
    assert told.onset_step == 4
    assert diagnose(case, "run").findings[0].code == "learning-rate-too-high"


@pytest.mark.parametrize(
    ("rate", "momentum", "end", "expected"),
    [(2e-4, 0.9, 1.9, "warning"), (2e-2, 0.9, 1.9, None), (2e-4, 0.9, 0.4, None)],
)
def test_a_rate_of_adams_size_is_far_too_low_for_descent(
    rate: float, momentum: float, end: float, expected: str | None
) -> None:
    config = {"optimizer.name": "sgd", "optimizer.learning_rate": rate, "optimizer.momentum": momentum}
    facts = {"task": "classification", "targets": LETTERS, "optimizer": "sgd"}
    loss = end + (2.4 - end) * np.exp(-np.arange(500) / 80.0) + 0.02 * noise_of(500)
    case = case_of(loss, rates=rate * cosine(500) / cosine(500).max(), facts=facts, config=config)
    assert severity(case, "learning-rate-too-low") == expected


@pytest.mark.parametrize(("reached", "expected"), [(0.1, None), (2.2, "warning")])
def test_large_embeddings_of_a_model_that_tells_new_texts_apart_were_no_mistake(
    reached: float, expected: str | None
) -> None:
    facts = {"task": "classification", "targets": LETTERS}
    drawn = {"model.name": "mlp", "model.initialization.standard_deviation": 1.0, "optimizer.name": "adamw"}
    loss = falling(400, start=2.3, floor=0.1, noise=0.0) + 0.01 * noise_of(400)
    judged = {at: 2.3 + (reached - 2.3) * at / 400 for at in range(40, 401, 40)}
    case = case_of(loss, rates=cosine(400), validation=judged, facts=facts, config=drawn)
    assert severity(case, "bad-initialization") == expected
