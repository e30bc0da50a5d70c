"""What rules of runs of our own must leave alone: sound runs, and other faults, that look as theirs do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cases import case_of, noise_of
from test_other_code import EVALUATED, NUMBERS, STEPS, classes, found, regression

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import diagnose, in_causal_order
from trimtab.doctor.finding import Evidence
from trimtab.doctor.remedies import lower_rate

STEP = np.arange(STEPS)
MANY = {"targets": {"classes": [], "mean": 0.0, "deviation": 1.0, "total": 2_000_000}}


@pytest.mark.parametrize(
    ("explained", "facts"),
    [
        (0.45, {"validation": {"documents": 40}}),
        (0.015, {"validation": {"documents": 100_000}, **MANY}),
        (0.03, {**MANY}),
    ],
    ids=["few rows that are judged", "a weak relation on many", "a weak relation of many"],
)
def test_what_a_regression_explains_is_beside_chance(explained: float, facts: Mapping[str, Any]) -> None:
    """A fifth of the variance of 100 texts is no chance, nor are two hundredths of 100,000."""
    assert found(regression(1.0, 0.98, explained, {**NUMBERS, **facts}), "random-labels") is None


@pytest.mark.parametrize(
    ("level", "explained", "facts", "config"),
    [
        (0.12, -0.2, {}, {"objective.name": "quantile", "objective.quantile": 0.9}),
        (0.12, 0.005, {"outliers": {"share": 0.8}}, {"objective.name": "mae"}),
        (0.95, 0.005, {"outliers": {"share": 0.8}}, {}),
        (40.0, -900.0, {}, {"objective.name": "huber"}),
    ],
    ids=["a quantile", "medians of far targets", "far targets", "far above what the mean costs"],
)
def test_answers_that_explain_no_squares_may_know_their_inputs(
    level: float, explained: float, facts: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    case = regression(1.2 * level, level, explained, {**NUMBERS, **facts}, **config)
    assert found(case, "random-labels") is None


@pytest.mark.parametrize("end", [0.15, 0.4])
def test_the_rate_of_fine_tuning_is_not_too_low(end: float) -> None:
    """A model of 66 millions with a new head, at 2e-5: its weights hardly move, and it learns with each evaluation."""
    course = end + (0.69 - end) * np.exp(-STEP / 120)
    facts = {
        "task": "classification",
        "targets": {"classes": ["no", "yes"]},
        "optimizer": "adamw",
        "parameters": {"total": 66e6, "non_embedding": 42e6, "frozen": 0},
    }
    case = case_of(
        course * (1 + 0.05 * noise_of(STEPS)),
        rates=2e-5 * (1 - STEP / STEPS),
        validation={int(step): float(course[step - 1]) + 0.03 for step in EVALUATED},
        facts=facts,
        config={"optimizer.name": "adamw", "optimizer.learning_rate": 2e-5},
    )
    names = tuple(f"layer/blocks.{number}.up.weight/weight_norm" for number in range(6))
    for window, step in enumerate(range(25, STEPS + 1, 25)):
        case.history.layers.append(step, names, np.full(6, 20.0) * (1 + 0.003 * window / 20))
    assert found(case, "learning-rate-too-low") is None


@pytest.mark.parametrize(
    ("start", "high"), [(2.31, (400, 401, 500.0)), (0.02, (30, 31, 3.0))], ids=["a batch long after it", "a small loss"]
)
def test_one_class_beside_a_batch_that_threw_nothing(start: float, high: tuple[int, int, float]) -> None:
    begin, end, height = high
    facts = {
        "task": "classification",
        "targets": {"classes": [f"d{number}" for number in range(10)], "counts": [280] * 10, "total": 2800},
    }
    loss = np.full(STEPS, start) + 0.01 * noise_of(STEPS)
    loss[begin:end] += height
    case = case_of(loss, rates=np.full(STEPS, 1e-3), validation=dict.fromkeys(EVALUATED.tolist(), 2.31), facts=facts)
    for name, value in (("accuracy", 0.1), ("macro_f1", 0.018), ("mcc", 0.0)):
        case.history.add(f"validation/{name}", EVALUATED, np.full(len(EVALUATED), value))
    assert found(case, "class-collapse") is not None


@pytest.mark.parametrize(
    ("thrown", "config"), [(1e5, {}), (0.0, {"model.dropout.residual": 0.95})], ids=["thrown", "dropped"]
)
def test_a_regression_that_was_thrown_or_dropped_tells_nothing_of_its_labels(
    thrown: float, config: Mapping[str, Any]
) -> None:
    loss = 1.0 + 0.1 * noise_of(STEPS)
    loss[5:20] += thrown
    judged = dict.fromkeys(EVALUATED.tolist(), 1.0)
    case = case_of(loss, rates=np.full(STEPS, 3e-3), validation=judged, facts=NUMBERS, config=config)
    case.history.add("validation/r2", EVALUATED, -0.001 - 0.01 * np.abs(noise_of(len(EVALUATED))))
    assert found(case, "random-labels") is None


def test_the_second_of_two_damaged_batches_explains_what_follows_it() -> None:
    batches = tuple(Evidence("train/loss", (step, step), 9.0, 1.0, "") for step in (100, 900))
    cause = Finding("corrupt-batch", "warning", 0.8, 100, "", batches)
    ordered = in_causal_order([cause, Finding("nan-loss", "error", 0.8, 902, "", ())], 1000)
    assert ordered[0].consequences == ("nan-loss",)


@pytest.mark.parametrize(("warmup", "onset"), [(300, 450), (300, 550), (500, 700)])
def test_a_jump_long_after_a_long_warm_up_is_no_part_of_it(warmup: int, onset: int) -> None:
    steps = np.arange(1000)
    loss = 0.3 + 2.0 * np.exp(-steps / 60) + 0.02 * noise_of(1000)
    loss[onset : onset + 4] += 1.0
    finding = found(case_of(loss, rates=1e-3 * np.minimum(1.0, (steps + 1) / warmup)), "loss-spike")
    assert finding is not None
    assert finding.severity == "warning"


@pytest.mark.parametrize(("dropout", "expected"), [(0.35, False), (0.75, True)])
def test_a_loss_that_has_come_to_what_its_data_let_it(dropout: float, expected: bool) -> None:
    """Ten classes that overlap by nature, under a dropout that is strong and no more."""
    facts = {"task": "classification", "targets": {"classes": [f"d{number}" for number in range(10)]}, "epochs": 12.0}
    loss = 1.0 + 1.3 * np.exp(-STEP / 15) + 0.03 * noise_of(STEPS)
    judged = {int(step): float(0.9 + 0.01 * np.exp(-step / 40)) for step in EVALUATED}
    case = case_of(loss, validation=judged, facts=facts, config={"model.dropout.residual": dropout})
    case.history.add("generalization_gap", EVALUATED, np.full(len(EVALUATED), 0.01))
    assert (found(case, "over-regularised") is not None) == expected


@pytest.mark.parametrize(
    ("classes", "counted", "errors", "elsewhere", "right", "expected"),
    [
        (4, 0.5, [0.5, 0.5], 0.5, 0.96, False),
        (6, 0.333, [0.667, 0.667], 0.333, 0.96, False),
        (3, 0.53, [0.419, 0.433], 0.55, 0.58, True),
        (3, 0.53, [0.419, 0.433], 0.85, 0.9, True),
    ],
    ids=["two kinds of two classes", "two of three", "wrong labels", "wrong labels in training alone"],
)
def test_errors_of_counting_are_none_of_labels_that_the_model_gets_right(
    classes: int, counted: float, errors: list[float], elsewhere: float, right: float, expected: bool
) -> None:
    """Counting tells the kind of a class, and not which of its classes it is, as where their order decides."""
    labels = {"texts": 6000, "accuracy": counted, "majority": 1 / classes, "sure_errors": errors, "telling": 0.1}
    labels |= {"validation_texts": 400, "validation_accuracy": elsewhere}
    names = [f"d{number}" for number in range(classes)]
    facts = {
        "task": "classification",
        "targets": {"classes": names, "counts": [6000 // classes] * classes, "total": 6000},
        "validation": {"documents": 400},
        "counting": {"labels": labels},
    }
    case = case_of(0.1 + np.exp(-STEP / 100), facts=facts)
    case.history.add("validation/accuracy", EVALUATED, np.linspace(0.5, right, len(EVALUATED)))
    assert (found(case, "label-noise") is not None) == expected


def test_a_loss_that_leaves_in_the_first_steps_asks_for_no_rate_of_nothing() -> None:
    """At the second of 200 steps of a warm-up AdamW's rate is a hundredth of what is to blame for nothing."""
    facts = {"optimizer": "adamw", "parameters": {"total": 1e6, "non_embedding": 1e6}}
    rates = 1e-3 * np.minimum(1.0, (STEP + 1) / 200)
    case = case_of(1.0 + noise_of(STEPS), rates=rates, facts=facts, config={"optimizer.learning_rate": 1e-3})
    asked = [lower_rate(case, onset=onset).config["optimizer.learning_rate"] for onset in (2, 150, 400)]
    assert asked[0] > 1e-4
    assert asked[0] < asked[1] < asked[2] == 3e-4


def test_a_usual_decay_takes_nothing_of_an_optimizer_that_finds_its_own_step() -> None:
    """Prodigy's rate is 1 and multiplies a step that it estimates."""
    facts = {
        "task": "classification",
        "targets": {"classes": ["a", "b", "c"]},
        "epochs": 2.0,
        "optimizer": "prodigy",
        "settings": {"weight_decay": 0.1},
    }
    course = 0.4 + 0.7 * np.exp(-STEP / 80)
    judged = {int(step): float(course[step - 1]) + 0.05 for step in EVALUATED}
    case = case_of(course + 0.02 * noise_of(STEPS), rates=np.full(STEPS, 1.0), validation=judged, facts=facts)
    assert found(case, "over-regularised") is None


def standing(rates: Any = 3e-3) -> Case:
    """A regression that explains nothing, and whose loss stands at what the mean costs."""
    judged = dict.fromkeys(EVALUATED.tolist(), 1.0)
    case = case_of(1.0 + 0.1 * noise_of(STEPS), rates=rates * np.ones(STEPS), validation=judged, facts=NUMBERS)
    case.history.add("validation/r2", EVALUATED, np.r_[-0.001, np.full(len(EVALUATED) - 1, -0.002)])
    return case


def test_a_regression_whose_layers_are_cut_off_tells_nothing_of_its_labels() -> None:
    names = tuple(f"layer/blocks.{number}.up.weight/grad_norm" for number in range(8))
    for still, expected in ((0, True), (4, False)):
        case = standing()
        for step in range(25, STEPS + 1, 25):
            case.history.layers.append(step, names, np.r_[np.zeros(still), np.full(8 - still, 0.1)])
        assert (found(case, "random-labels") is not None) == expected


def test_a_regression_whose_rate_is_soon_nothing_tells_nothing_of_its_labels() -> None:
    assert found(standing(np.where(STEP < 10, 3e-3, 1e-8)), "random-labels") is None


def test_what_is_frozen_explains_no_random_labels_that_are_learned_by_heart() -> None:
    labels = {"texts": 2800, "accuracy": 0.1, "majority": 0.1, "sure_errors": [0.9, 0.9], "telling": 0.1}
    labels |= {"validation_texts": 360, "validation_accuracy": 0.1}
    case = classes({"sets": {"separability": 0.5, "documents": 360}, "labels": labels})
    names = tuple(f"layer/blocks.{number}.up.weight/grad_norm" for number in range(20))
    for step in range(25, STEPS + 1, 25):
        case.history.layers.append(step, names, np.r_[np.zeros(3), np.full(17, 0.1)])
    assert diagnose(case).findings[0].code == "random-labels"


def test_one_class_from_a_step_on_beside_a_jump_that_was_made_good_long_before() -> None:
    every = np.arange(25, STEPS + 1, 25)
    facts = {
        "task": "classification",
        "targets": {"classes": [f"d{number}" for number in range(10)], "counts": [280] * 10, "total": 2800},
        "validation": {"documents": 400},
    }
    loss = 0.5 + 1.8 * np.exp(-STEP / 30) + 0.01 * noise_of(STEPS)
    loss[10:12], loss[300:] = 900.0, 2.31
    learned = every < 300
    judged = dict(zip(every.tolist(), np.where(learned, 0.6, 2.31).tolist(), strict=True))
    case = case_of(loss, rates=np.full(STEPS, 1e-3), validation=judged, facts=facts)
    for name, known, alike in (("accuracy", 0.8, 0.1), ("macro_f1", 0.79, 0.018), ("mcc", 0.77, 0.0)):
        values = np.where(learned, known + 0.01 * noise_of(len(every)), alike)
        case.history.add(f"validation/{name}", every, values)
    assert found(case, "class-collapse") is not None


def test_weights_that_were_trained_for_targets_of_another_unit_are_not_drawn_at_the_wrong_scale() -> None:
    for trained, expected in ((False, True), (True, False)):
        case = regression(40.0, 0.1, 0.9, {**NUMBERS, "first_pass": {"trained": trained}})
        assert (found(case, "bad-initialization") is not None) == expected


def test_a_regression_whose_units_give_nothing_tells_nothing_of_its_labels() -> None:
    names = tuple(f"layer/blocks.{number}/dead_fraction" for number in range(4))
    for dead, expected in ((0.1, True), (1.0, False)):
        case = standing()
        for step in range(25, STEPS + 1, 25):
            case.history.examined.append(step, names, np.full(4, dead))
        assert (found(case, "random-labels") is not None) == expected
