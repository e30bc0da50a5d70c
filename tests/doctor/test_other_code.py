"""Faults of our own runs as a program by other code planted them, each beside a look-alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import case_of, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import diagnose, in_causal_order
from trimtab.doctor.finding import Severity
from trimtab.doctor.load import open_foreign_case
from trimtab.doctor.rules import RULES

STEPS = 500
EVALUATED = np.arange(50, STEPS + 1, 50)
NUMBERS: Mapping[str, Any] = {
    "task": "regression",
    "targets": {"classes": [], "mean": 5.7, "deviation": 2.8, "total": 4000},
    "outliers": {"share": 0.07},
    "validation": {"documents": 400},
    "epochs": 8.0,
    "first_batch": {"input_rms": 1.04, "input_spread": 1.5},
}


def found(case: Case, code: str) -> Finding | None:
    return next((said for said in RULES[code](case) if isinstance(said, Finding)), None)


def regression(first: float, last: float, explained: float, facts: Mapping[str, Any] = NUMBERS, **config: Any) -> Case:
    """A loss that falls from `first` to `last` soon, and what it explains of the validation targets at best."""
    steps = np.arange(STEPS)
    loss = (last + (first - last) * np.exp(-steps / 40)) * (1 + 0.1 * noise_of(STEPS))
    judged = dict(zip(EVALUATED.tolist(), (last * (1 + 0.01 * noise_of(len(EVALUATED)))).tolist(), strict=True))
    case = case_of(loss, rates=np.full(STEPS, 3e-3), validation=judged, facts=facts, config=config)
    case.history.add("validation/r2", EVALUATED, explained - 0.02 * np.abs(noise_of(len(EVALUATED))))
    return case


@pytest.mark.parametrize(
    ("first", "facts", "config", "warned"),
    [
        (6.5e7, {}, {}, True),
        (40.0, {}, {}, True),
        (1.4, {}, {}, False),
        (40.0, {"outliers": {"share": 0.8}}, {}, False),
        (40.0, {"first_batch": {"input_rms": 60.0, "input_spread": 2.0}}, {}, False),
        (40.0, {}, {"objective.name": "mae"}, True),
        (40.0, {}, {"objective.name": "info_nce"}, False),
        (40.0, {"targets": {}}, {}, False),
    ],
    ids=[
        "millions",
        "tens",
        "a guess",
        "far targets",
        "unscaled inputs",
        "lighter errors",
        "another loss",
        "targets that are not known",
    ],
)
def test_a_regression_begins_at_what_the_mean_costs(
    first: float, facts: Mapping[str, Any], config: Mapping[str, Any], warned: bool
) -> None:
    case = regression(first, 0.1, 0.9, {**NUMBERS, **facts}, **config)
    finding = found(case, "bad-initialization")
    assert (finding is not None and finding.severity == "warning") == warned


@pytest.mark.parametrize(("outliers", "high"), [({"share": 0.45}, 1), (None, 3)], ids=["far", "most are equal"])
def test_far_targets_in_the_first_batches_are_no_bad_initialization(outliers: Any, high: int) -> None:
    loss = 0.3 + 0.7 * np.exp(-np.arange(STEPS) / 40)
    loss[:high] = 31.0
    assert found(case_of(loss, facts={**NUMBERS, "outliers": outliers}), "bad-initialization") is None


def test_unscaled_inputs_of_a_regression_are_grave_where_its_loss_begins_high() -> None:
    for first, grave in ((40.0, True), (1.2, False)):
        facts = {**NUMBERS, "first_batch": {"input_rms": 14.0, "input_spread": 2.0}}
        finding = found(regression(first, 0.1, 0.9, facts), "unscaled-inputs")
        assert finding is not None
        assert (finding.severity == "warning") == grave


@pytest.mark.parametrize(
    ("last", "explained", "facts", "warned"),
    [
        (0.98, 0.046, {}, True),
        (0.3, 0.7, {}, False),
        (0.88, 0.11, {}, False),
        (0.98, 0.046, {"epochs": 1.0}, False),
        (0.98, 0.046, {"validation": {"documents": 4000}}, False),
        (0.98, 0.046, {"parameters": {"total": 1000, "frozen": 900}}, False),
        (40.0, -30.0, {}, False),
    ],
    ids=[
        "nothing is learned",
        "learned",
        "little is learned",
        "one pass",
        "more than chance of many texts",
        "frozen",
        "far above what the mean costs",
    ],
)
def test_a_regression_that_explains_nothing(
    last: float, explained: float, facts: Mapping[str, Any], warned: bool
) -> None:
    finding = found(regression(1.0, last, explained, {**NUMBERS, **facts}), "random-labels")
    assert (finding is not None and finding.severity == "warning") == warned


@pytest.mark.parametrize(
    ("rate", "config"), [(2e-5, {}), (3e-3, {"optimizer.weight_decay": 10.0})], ids=["slow", "pulled"]
)
def test_a_regression_that_could_not_learn_tells_nothing_of_its_labels(rate: float, config: Mapping[str, Any]) -> None:
    judged = dict.fromkeys(EVALUATED.tolist(), 0.98)
    loss = (1.0 - 0.02 * np.arange(STEPS) / STEPS) * (1 + 0.1 * noise_of(STEPS))
    case = case_of(loss, rates=np.full(STEPS, rate), validation=judged, facts=NUMBERS, config=config)
    case.history.add("validation/r2", EVALUATED, 0.01 * np.ones(len(EVALUATED)))
    assert found(case, "random-labels") is None


def classes(counting: Mapping[str, Any]) -> Case:
    """Ten classes, learned in training, and answers that are guesses on the validation set."""
    names = [f"d{number}" for number in range(10)]
    facts = {
        "task": "classification",
        "targets": {"classes": names, "counts": [280] * 10, "total": 2800},
        "training": {"documents": 2800},
        "validation": {"documents": 360},
        "counting": counting,
    }
    loss = 2.3 * np.exp(-np.arange(STEPS) / 60) + 0.03
    judged = dict(zip(EVALUATED.tolist(), np.linspace(2.4, 4.4, len(EVALUATED)).tolist(), strict=True))
    case = case_of(loss, rates=np.full(STEPS, 3e-3), validation=judged, facts=facts)
    case.history.add("validation/accuracy", EVALUATED, 0.05 + 0.01 * np.abs(noise_of(len(EVALUATED))))
    case.history.add("training_slice/loss", EVALUATED, loss[EVALUATED - 1])
    return case


def test_labels_are_not_random_where_the_two_sets_are_of_different_kinds() -> None:
    labels = {"texts": 2800, "accuracy": 0.23, "majority": 0.1, "sure_errors": [0.61, 0.79], "telling": 0.1}
    labels |= {"validation_texts": 360, "validation_accuracy": 0.13}
    for apart, expected in ((1.0, "validation-shift"), (0.5, "random-labels")):
        case = classes({"sets": {"separability": apart, "documents": 360}, "labels": labels})
        assert diagnose(case).findings[0].code == expected


def test_few_copies_are_a_remark() -> None:
    for equal, near, severity in ((0, 6, "info"), (4, 0, "info"), (8, 0, "warning"), (0, 20, "warning"), (3, 0, None)):
        facts = {"leakage": equal, "validation": {"documents": 400}, "duplicates": {"near": {"leaked": near}}}
        finding = found(case_of(np.linspace(2.0, 1.0, 200), facts=facts), "leakage")
        assert (None if finding is None else finding.severity) == severity, (equal, near)


def test_where_counting_tells_little_its_errors_must_be_as_many_to_a_hair() -> None:
    for errors, texts, right, expected in (
        ([0.419, 0.433], 4000, 0.53, True),
        ([0.36, 0.44], 4000, 0.53, False),  # a hard task is right where it is sure
        ([0.419, 0.433], 400, 0.53, False),  # too few to say
        ([0.25, 0.27], 4000, 0.6, True),
        ([0.25, 0.4], 4000, 0.6, False),  # errors that grow with doubt are those of counting
    ):
        labels = {"texts": texts, "accuracy": right, "majority": 0.34, "sure_errors": errors, "telling": 0.1}
        labels |= {"validation_texts": 400, "validation_accuracy": 0.55}
        facts = {
            "task": "classification",
            "targets": {"classes": ["a", "b", "c"], "counts": [1360, 1320, 1320], "total": 4000},
            "counting": {"labels": labels},
        }
        case = case_of(1.1 - 0.2 * np.arange(300) / 300, facts=facts)
        assert (found(case, "label-noise") is not None) == expected


@pytest.mark.parametrize(
    ("wait", "every", "severity"),
    [(0.05, 50, "info"), (0.5, 50, "warning"), (0.001, 1, "warning")],
    ids=["two seconds in all are not reached", "seconds of them", "in every step"],
)
def test_waits_that_are_seldom_and_short_are_a_remark(wait: float, every: int, severity: str) -> None:
    """Of a model whose steps take milliseconds a few waits are a quarter of the time."""
    steps = np.arange(1000)
    waits = np.where(steps % every == 0, wait, 0.0)
    case = case_of(1.0 + np.exp(-steps / 300), step_seconds=waits + 2.0 * wait / every)
    case.history.add("data_seconds", steps + 1, waits)
    finding = found(case, "input-bound")
    assert finding is not None
    assert finding.severity == severity


def test_a_rate_that_is_too_low_is_seen_through_the_noise_of_steps() -> None:
    """Evaluations tell, each a little better than the one before, where steps scatter by a sixth."""
    for rate, gain, expected in ((2e-5, 0.03, True), (2e-3, 0.5, False)):
        shape = (1.0 - (1.0 - np.arange(STEPS) / STEPS) ** 2) * gain  # as a rate that falls to nothing has it
        rates = rate * (1.0 - np.arange(STEPS) / STEPS)
        loss = 1.0 - shape + 0.15 * noise_of(STEPS)
        loss[:30] += 0.17
        judged = {step: float(1.0 - shape[step - 1]) for step in range(40, STEPS + 1, 40)}
        config = {"optimizer.learning_rate": rate, "optimizer.name": "adamw"}
        facts = {**NUMBERS, "optimizer": "adamw", "parameters": {"total": 5000, "non_embedding": 5000, "frozen": 0}}
        case = case_of(loss, rates=rates, validation=judged, facts=facts, config=config)
        assert (found(case, "learning-rate-too-low") is not None) == expected


def test_a_jump_in_the_warm_up_that_is_soon_made_good_is_a_remark() -> None:
    steps = np.arange(STEPS)
    for onset, severity in ((12, "info"), (200, "warning")):
        loss = 0.02 + np.exp(-steps / 20) + 0.002 * noise_of(STEPS)
        loss[onset : onset + 4] += 0.5
        finding = found(case_of(loss, rates=3e-3 * np.minimum(1.0, (steps + 1) / 25)), "loss-spike")
        assert finding is not None
        assert finding.severity == severity, onset


def test_dropout_of_three_quarters_under_a_loss_that_stands() -> None:
    facts = {"task": "causal_lm", "tokenizer": {"vocabulary_size": 257}, "epochs": 2.4}
    for level, dropout, expected in ((3.0, 0.75, True), (3.0, 0.1, False), (0.5, 0.75, False)):
        loss = level + (5.5 - level) * np.exp(-np.arange(STEPS) / 15) + 0.03 * noise_of(STEPS)
        judged = {int(step): float(level + 0.01 * np.exp(-step / 40)) for step in EVALUATED}
        case = case_of(loss, validation=judged, facts=facts, config={"model.dropout.residual": dropout})
        case.history.add("generalization_gap", EVALUATED, np.full(len(EVALUATED), 0.01))
        assert (found(case, "over-regularised") is not None) == expected


def test_a_lower_rate_is_below_the_one_at_which_the_loss_left() -> None:
    """In the middle of a warm-up to 20: three tenths of 20 is where it left."""
    steps = np.arange(1, 201)
    rates = 20.0 * np.minimum(1.0, steps / 50)
    loss = np.where(steps < 8, 3.6, np.minimum(3.6 * np.exp(1.5 * (steps - 8.0)), 1e9))
    loss[13:] = np.nan
    finding = next(one for one in diagnose(case_of(loss, rates=rates)).findings if one.severity == "error")
    asked = [rate for one in finding.remedies for key, rate in one.config.items() if "learning_rate" in key]
    assert asked
    assert max(asked) < rates[7]


def test_a_damaged_batch_explains_nothing_that_begins_long_after_it() -> None:
    def finding(code: str, onset: int, severity: Severity) -> Finding:
        return Finding(code, severity, 0.8, onset, "", ())

    batch = finding("corrupt-batch", 100, "warning")
    for onset, explained in ((104, True), (900, False)):
        ordered = in_causal_order([batch, finding("nan-loss", onset, "error")], 1000)
        assert ("nan-loss" in ordered[0].consequences) == explained


@pytest.mark.parametrize(("name", "expected"), [("rate_too_high", "learning-rate-too-high"), ("rate_that_fits", None)])
def test_evaluations_that_never_come_back_tell_of_a_rate_whatever_the_optimizer(
    name: str, expected: str | None
) -> None:
    """Real logs of a small transformer on text, at rates of 0.09 and 0.002, which do not say what the optimizer is."""
    case, _ = open_foreign_case(Path(__file__).parent / "logs" / f"{name}.csv")
    loud = [one.code for one in diagnose(case).findings if one.severity != "info"]
    assert next(iter(loud), None) == expected


def test_a_decay_that_takes_a_fifth_of_each_weight_in_a_step() -> None:
    """Whatever the curves show, and after several passes, too."""
    facts = {"task": "classification", "targets": {"classes": ["a", "b", "c"]}, "epochs": 3.2, "optimizer": "adamw"}
    for decay, expected in ((116.0, True), (0.1, False)):
        loss = 0.73 + 0.37 * np.exp(-np.arange(STEPS) / 150) + 0.03 * noise_of(STEPS)
        judged = {int(step): float(0.73 + 0.2 * np.exp(-step / 150)) for step in EVALUATED}
        config = {"optimizer.weight_decay": decay, "optimizer.learning_rate": 1.7e-3, "optimizer.name": "adamw"}
        case = case_of(loss, rates=np.full(STEPS, 1.7e-3), validation=judged, facts=facts, config=config)
        case.history.add("generalization_gap", EVALUATED, np.full(len(EVALUATED), 0.016))
        assert (found(case, "over-regularised") is not None) == expected


def test_targets_that_explain_nothing_under_another_loss_than_squares() -> None:
    """Of Huber's loss nobody says what the mean costs; what explains nothing costs the same."""
    for explained, expected in ((-0.005, True), (0.6, False)):
        case = regression(0.44, 0.43, explained, **{"objective.name": "huber"})
        assert (found(case, "random-labels") is not None) == expected


def test_one_class_after_a_loss_that_was_thrown_is_no_fault_of_classes() -> None:
    names = [f"d{number}" for number in range(10)]
    facts = {"task": "classification", "targets": {"classes": names, "counts": [280] * 10, "total": 2800}}
    for height, expected in ((0.0, True), (1e6, False)):
        loss = np.full(STEPS, 2.31) + 0.01 * noise_of(STEPS)
        loss[15:25] += height
        judged = dict.fromkeys(EVALUATED.tolist(), 2.31)
        case = case_of(loss, rates=np.full(STEPS, 1e-2), validation=judged, facts=facts)
        case.history.add("validation/accuracy", EVALUATED, np.full(len(EVALUATED), 0.1))
        case.history.add("validation/macro_f1", EVALUATED, np.full(len(EVALUATED), 0.018))
        case.history.add("validation/mcc", EVALUATED, np.zeros(len(EVALUATED)))
        assert (found(case, "class-collapse") is not None) == expected
