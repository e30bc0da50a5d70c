"""Further ways to go wrong that an examination by other code planted, and the sound runs beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import case_of, cosine, falling, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.reading.counted import lucky, tells_nothing
from trimtab.doctor.rules import RULES

DIGITS: dict[str, Any] = {"classes": list("abcdefghij"), "counts": [100] * 10}
ADAM = {"optimizer.name": "adam", "optimizer.weight_decay": 0.0}


def severity(case: Case, code: str) -> str | None:
    told = next((one for one in RULES[code](case) if isinstance(one, Finding)), None)
    return told.severity if told else None


def late(rate: float, stood: int, *, warmup: float = 0.0, optimizer: str = "adam") -> Case:
    """Four hundred steps of a small model, of which some pass before its loss falls."""
    loss = np.concatenate([np.full(stood, 2.3), falling(400 - stood, start=2.3, floor=0.1, noise=0.0)])
    rates = cosine(400, rate, warmup) if warmup else cosine(400, rate, 1e-9)
    config = ADAM | {"optimizer.name": optimizer, "optimizer.learning_rate": rate}
    facts = {"parameters": {"total": 20_000, "non_embedding": 20_000}}
    return case_of(loss + 0.03 * noise_of(400), rates=rates, config=config, facts=facts)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (late(0.03, 50), "warning"),
        (late(0.03, 0), None),
        (late(0.002, 50), None),
        (late(0.018, 50), None),
        (late(0.03, 50, warmup=0.1), None),
        (late(0.03, 50, optimizer="sgd"), None),
        (late(0.03, 390), None),
    ],
    ids=["late", "at once", "at a usual rate", "at nine times it", "with a warm-up", "plain descent", "never"],
)
def test_a_run_that_begins_to_learn_late_at_many_times_the_usual_rate(case: Case, expected: str | None) -> None:
    assert severity(case, "missing-warmup") == expected


@pytest.mark.parametrize(
    ("placement", "rate", "expected"), [("post", 0.015, "info"), ("pre", 0.015, None), ("post", 0.003, None)]
)
def test_layers_that_normalize_behind_their_sums_often_need_a_warm_up(
    placement: str, rate: float, expected: str | None
) -> None:
    config = ADAM | {"optimizer.learning_rate": rate, "model.norm.placement": placement}
    facts = {"parameters": {"total": 20_000, "non_embedding": 20_000}}
    case = case_of(falling(300), rates=cosine(300, rate, 1e-9), config=config, facts=facts)
    assert severity(case, "missing-warmup") == expected


@pytest.mark.parametrize(("end", "expected"), [(1.5, "error"), (1.0, None)])
def test_a_loss_that_stands_above_its_start_has_left_however_high_it_was_thrown(
    end: float, expected: str | None
) -> None:
    loss = np.concatenate([falling(60, start=1.4, floor=1.0, noise=0.0), np.full(440, end)])
    loss[60:75] = 130.0 * 0.7 ** np.arange(15) + end
    case = case_of(loss + 0.1 * noise_of(500), rates=cosine(500))
    assert severity(case, "divergence") == expected


@pytest.mark.parametrize(("stands", "expected"), [(False, None), (True, "error")])
def test_a_loss_that_is_still_made_good_has_not_left(stands: bool, expected: str | None) -> None:
    """Thrown to a hundred times its start at a seventh of the run, it is nearly back at the end; or stands above it
    for long."""
    thrown = 130.0 * 0.7 ** np.arange(340) + 0.2 if stands else 130.0 * np.exp(-np.arange(340) / 45)
    loss = np.concatenate([falling(60, start=1.4, floor=1.0, noise=0.0), thrown + 1.3]) + 0.05 * noise_of(400)
    assert severity(case_of(loss, rates=cosine(400)), "divergence") == expected


@pytest.mark.parametrize(
    ("shuffle", "hurt", "expected"), [(False, False, "warning"), (None, False, None), (False, True, None)]
)
def test_two_sources_one_after_the_other(shuffle: bool | None, hurt: bool, expected: str | None) -> None:
    """At half of the run the loss is back at its start; the validation set has both, and is judged better and better,
    unless the weights were hurt."""
    first, second = (falling(110, start=5.6, floor=2.2, noise=0.0, seed=seed) for seed in (0, 1))
    loss = np.concatenate([first, second]) + 0.05 * noise_of(220)
    judged = dict(zip(range(20, 221, 20), [5.0, 4.7, 4.3, 4.1, 4.0, 3.4, 2.9, 2.8, 2.7, 2.7, 2.7], strict=True))
    judged[120] = 5.5 if hurt else judged[120]
    config = {} if shuffle is None else {"data.shuffle": shuffle}
    case = case_of(loss, rates=cosine(220), validation=judged, config=config)
    assert severity(case, "unshuffled-data") == expected


@pytest.mark.parametrize(
    ("momentum", "decay", "expected"), [(0.9, 0.3, "warning"), (0.0, 0.3, None), (0.9, 5e-3, None)]
)
def test_decay_with_momentum_takes_what_the_momentum_holds(momentum: float, decay: float, expected: str | None) -> None:
    config = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.02,
        "optimizer.momentum": momentum,
        "optimizer.weight_decay": decay,
    }
    case = case_of(falling(500, start=2.4, floor=0.2), rates=cosine(500, 0.02), config=config)
    assert severity(case, "over-regularised") == expected


def test_a_step_that_asks_for_four_tokens_leads_whatever_else_is_small() -> None:
    loss = falling(300, start=5.4, floor=3.4, noise=0.0) + 0.7 * noise_of(300)
    loss[100:] = loss[100:] - loss[100:].mean() + 3.5
    facts = {"validation": {"tokens": 200}, "task": "masked_lm"}
    validation = dict.fromkeys(range(30, 301, 30), 3.5)
    case = case_of(loss, rates=np.full(300, 1e-3), validation=validation, facts=facts, tokens=np.full(300, 4.0))
    told = [one.code for one in diagnose(case).findings if one.severity == "warning"]
    assert told[:2] == ["noisy-loss", "validation-too-small"]


@pytest.mark.parametrize(
    ("noise", "steps", "expected"), [(0.8, 2.0, "warning"), (0.8, 64.0, "info"), (0.3, 2.0, "info")]
)
def test_two_tokens_a_step_are_too_few_though_the_level_falls(noise: float, steps: float, expected: str) -> None:
    loss = 3.0 + 2.5 * np.linspace(1, 0, 260) ** 2 + noise * noise_of(260)
    case = case_of(loss, rates=cosine(260), facts={"task": "masked_lm"}, tokens=np.full(260, steps))
    assert severity(case, "noisy-loss") == expected


@pytest.mark.parametrize(("met", "first"), [(1, "corrupt-batch"), (40, "outlier-dominated-loss")])
def test_far_targets_that_lie_together_are_a_damaged_batch(met: int, first: str) -> None:
    loss = falling(350, start=0.5, floor=0.003, noise=0.0) * np.exp(0.2 * noise_of(350))
    loss[np.random.default_rng(2).choice(np.arange(100, 340), met, replace=False)] = 300.0
    facts = {"task": "regression", "outliers": {"share": 0.97, "twentieth": 0.98, "farthest": 276.0}}
    gradients = np.where(loss > 100, 40.0, 0.1) * np.exp(0.2 * noise_of(350, 3))
    case = case_of(loss, rates=cosine(350), facts=facts, grad_norm=gradients)
    assert diagnose(case).findings[0].code == first


def of_layers(back: float, windows: int = 40, steps: int = 400) -> Case:
    """Seven layers whose gradient fades by six orders of magnitude at first, and by two at the end, and a loss that
    scatters by more than it falls; evaluations tell that nothing is learned before a part `back` of the run."""
    fall = np.clip(np.arange(steps) / steps - back, 0.0, None) / (1 - back)
    judged = {step: 0.46 - 0.12 * float(fall[step - 1]) for step in range(25, steps + 1, 25)}
    case = case_of(0.45 - 0.1 * fall + 0.05 * noise_of(steps), rates=cosine(steps), validation=judged)
    names = tuple(f"layer/blocks.{at}.weight/grad_norm" for at in range(7))
    for window in range(windows):
        orders = 6.0 - 5.0 * min(window / windows / back, 1.0)
        case.history.layers.append((window + 1) * steps // windows, names, 10.0 ** np.linspace(-orders, 0, 7))
    return case


@pytest.mark.parametrize(("back", "expected"), [(0.5, "warning"), (0.05, None)])
def test_evaluations_tell_that_nothing_is_learned_while_the_gradient_has_faded(
    back: float, expected: str | None
) -> None:
    assert severity(of_layers(back), "vanishing-gradients") == expected


def of_rows(accuracy: float, validation: float, **changes: Any) -> dict[str, Any]:
    found = {
        "by": "the nearest rows",
        "texts": 4000,
        "accuracy": accuracy,
        "majority": 0.11,
        "sure_errors": [1 - accuracy, 1 - accuracy],
        "validation_texts": 360,
        "validation_accuracy": validation,
    }
    return found | changes


@pytest.mark.parametrize(
    ("counting", "nothing"),
    [
        (of_rows(0.11, 0.1), True),
        (of_rows(0.27, 0.09), True),
        (of_rows(0.27, 0.27), False),
        (of_rows(0.35, 0.33, majority=0.25, validation_texts=100), False),
        (of_rows(0.5, 0.1), False),
        (of_rows(0.27, 0.09, by="runs of tokens"), False),
        (of_rows(0.8, 0.72, majority=0.72), False),
    ],
)
def test_rows_that_were_drawn_together_tell_nothing_elsewhere(counting: dict[str, Any], nothing: bool) -> None:
    """Not where validation rows are too few to tell that from a hard table, as 33 % of 100 right is of 35 %."""
    assert tells_nothing(counting) is nothing
    assert (lucky(counting) > 4.0) is (nothing and counting["by"] == "the nearest rows")


@pytest.mark.parametrize(("best", "expected"), [(0.17, "warning"), (0.24, None)])
def test_a_little_that_is_found_by_heart_does_not_make_labels_belong(best: float, expected: str | None) -> None:
    loss = 2.3 - 0.15 * np.linspace(0, 1, 300) + 0.03 * noise_of(300)
    validation = {step: 2.31 - 0.04 * (step == 60) for step in range(20, 301, 20)}
    facts = {"task": "classification", "targets": DIGITS, "counting": {"labels": of_rows(0.107, 0.1)}}
    facts["validation"] = {"documents": 360}
    case = case_of(loss, rates=cosine(300), validation=validation, facts=facts)
    for at, step in enumerate(range(20, 301, 20)):
        case.history.add("validation/accuracy", np.array([step]), np.array([0.1 + (best - 0.1) * at / 14]))
    assert severity(case, "random-labels") == expected


def test_labels_that_contradict_the_nearest_rows_are_said_so() -> None:
    loss = falling(300, start=2.3, floor=1.4, noise=0.05)
    counting = of_rows(0.56, 0.6, sure_errors=[0.45, 0.42])
    facts = {"task": "classification", "targets": DIGITS, "counting": {"labels": counting}}
    [finding] = [one for one in RULES["label-noise"](case_of(loss, facts=facts)) if isinstance(one, Finding)]
    assert "asking the nearest rows tells 45.0%" in finding.evidence[0].text


@pytest.mark.parametrize(("surest", "expected"), [([0.055, 0.099], None), ([0.12, 0.13], "warning")])
def test_a_hard_table_errs_most_where_the_nearest_rows_are_of_several_classes(
    surest: list[float], expected: str | None
) -> None:
    """Three classes of clusters that overlap, of which a model tells 92 %: no label is wrong."""
    facts = {
        "task": "classification",
        "targets": {"classes": ["a", "b", "c"], "counts": [1900, 1100, 1000]},
        "counting": {"labels": of_rows(0.81, 0.8, majority=0.48, sure_errors=surest)},
    }
    assert severity(case_of(falling(300, start=1.1, floor=0.3), facts=facts), "label-noise") == expected


@pytest.mark.parametrize(
    ("reached", "elsewhere", "expected"), [(0.999, 0.85, None), (0.9, 0.85, "warning"), (0.999, 0.93, "warning")]
)
def test_a_model_that_is_always_right_shows_that_the_nearest_rows_err(
    reached: float, elsewhere: float, expected: str | None
) -> None:
    """Unless validation labels are right, and those of training are not."""
    counting = of_rows(0.85, elsewhere, majority=0.5, sure_errors=[0.09, 0.12], validation_texts=2000)
    facts = {
        "task": "classification",
        "targets": {"classes": ["a", "b"], "counts": [2000, 2000]},
        "counting": {"labels": counting},
        "validation": {"documents": 2000},
    }
    case = case_of(falling(300, start=0.7, floor=0.1), facts=facts)
    case.history.add("validation/accuracy", np.arange(20, 301, 20), np.full(15, reached))
    assert severity(case, "label-noise") == expected


@pytest.mark.parametrize(
    ("near", "explained", "expected"),
    [(-0.06, [0.1, 0.08, 0.04], "warning"), (0.6, [0.1, 0.08, 0.04], None), (-0.06, [0.1, 0.11, 0.1], None)],
    ids=["shuffled", "rows near by tell it", "a weak relation that is kept"],
)
def test_numbers_that_rows_near_by_tell_nothing_of(near: float, explained: list[float], expected: str | None) -> None:
    loss = 0.97 + 0.15 * noise_of(800)
    validation = {step: 0.96 - 0.005 * (step == 80) for step in range(80, 801, 80)}
    targets = {"classes": [], "counts": [], "total": 4000, "mean": 5.6, "deviation": 2.8}
    facts = {"task": "regression", "targets": targets, "counting": {"near": near}}
    facts |= {"validation": {"documents": 400}, "training": {"documents": 4000, "tokens": 36_000}, "epochs": 6.0}
    case = case_of(loss, rates=cosine(800), validation=validation, facts=facts, config={"data.name": "jsonl"})
    for step, value in zip(range(80, 801, 80), np.interp(range(10), [0, 5, 9], explained), strict=True):
        case.history.add("validation/r2", np.array([step]), np.array([value]))
    assert severity(case, "random-labels") == expected


@pytest.mark.parametrize(
    ("config", "facts", "part", "expected"),
    [
        ({"model.name": "custom"}, {"task": "classification"}, 0.67, "info"),
        ({}, {"task": "regression", "given": ["model"]}, 0.67, "info"),
        ({"model.name": "custom"}, {"task": "classification"}, 1.0, "warning"),
        ({"model.name": "custom", "logging.examine.sequences": 256}, {"task": "classification"}, 0.67, "warning"),
        ({"model.name": "custom"}, {"task": "causal_lm"}, 0.67, "warning"),
        ({"model.name": "encoder"}, {"task": "classification"}, 0.67, "warning"),
    ],
)
def test_units_that_are_silent_for_eight_rows_may_be_sparse(
    config: dict[str, Any], facts: dict[str, Any], part: float, expected: str
) -> None:
    case = case_of(falling(300), rates=cosine(300), config=config, facts=facts)
    names = tuple(f"layer/layers.{at}/dead_fraction" for at in range(2))
    case.history.examined.append(300, names, np.array([part, max(part, 0.95)]))
    assert severity(case, "dead-units") == expected


def test_shuffled_labels_lead_where_units_died_besides() -> None:
    loss = falling(300, start=2.3, floor=0.9, noise=0.02)
    validation = {step: 2.31 + step / 1500 for step in range(30, 301, 30)}
    facts = {"task": "classification", "targets": DIGITS, "counting": {"labels": of_rows(0.107, 0.1)}}
    case = case_of(loss, rates=cosine(300), validation=validation, facts=facts | {"validation": {"documents": 360}})
    case.history.examined.append(300, ("layer/a/dead_fraction",), np.array([0.6]))
    for step in validation:
        case.history.add("validation/accuracy", np.array([step]), np.array([0.1 + 0.001 * (step % 7)]))
    told = [one for one in diagnose(case).findings if one.severity == "warning"]
    assert told[0].code == "random-labels"


@pytest.mark.parametrize(
    ("accuracy", "by", "verdict"),
    [(0.3, "the nearest rows", "asking the nearest rows"), (0.3, "runs of tokens", "counting"), (0.9, "either", "")],
)
def test_a_classifier_far_below_what_counting_tells_learned_little(accuracy: float, by: str, verdict: str) -> None:
    facts = {"task": "classification", "counting": {"labels": of_rows(0.96, 0.97, by=by)}}
    loss = falling(300, start=2.3, floor=0.5)
    case = case_of(loss, rates=cosine(300), validation={150: 1.5, 300: 1.4}, facts=facts)
    case.history.add("validation/accuracy", np.array([150, 300]), np.array([accuracy - 0.01, accuracy]))
    diagnosis = diagnose(case)
    assert diagnosis.beaten_by == verdict
    assert (f"30% of its answers are right at best, where {verdict} tells 97%" in diagnosis.summary) is bool(verdict)


@pytest.mark.parametrize(("name", "expected"), [("adamw", None), ("adam", "warning")])
def test_a_usual_decay_is_not_to_blame_for_a_rate_that_is_too_high(name: str, expected: str | None) -> None:
    config = {"optimizer.name": name, "optimizer.learning_rate": 0.5, "optimizer.weight_decay": 0.1}
    facts = {"task": "classification", "targets": DIGITS}
    case = case_of(falling(300, start=2.31, floor=2.29, noise=0.01), rates=cosine(300, 0.5), config=config, facts=facts)
    assert severity(case, "over-regularised") == expected
