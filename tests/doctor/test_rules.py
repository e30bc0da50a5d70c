"""Each rule speaks where it must and is silent where it must not, on curves made by formula."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, cosine, falling, noise_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trimtab.config import flatten, load_config
from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import ask, diagnose
from trimtab.doctor.reading.curves import Curve, Phases
from trimtab.doctor.reading.curves import noise_of as estimated_noise
from trimtab.doctor.rules import RULES
from trimtab.events import Adjust, DecisionTaken, RunEnded
from trimtab.runs import format
from trimtab.schedules import build_schedule

FACTS: dict[str, Any] = {
    "parameters": {"total": 1_000_000, "non_embedding": 800_000, "frozen": 0},
    "optimizer": "adamw",
    "tokenizer": {"vocabulary_size": 2048},
    "yardsticks": {"bigram": 2.0, "unigram": 3.0, "judged_tokens": 1000, "judged_bytes": 3000},
    "epochs": 0.5,
}


def lead(case: Case) -> tuple[str, str]:
    findings = diagnose(case).findings
    return (findings[0].code, findings[0].severity) if findings else ("", "")


def found(case: Case, code: str) -> Finding | None:
    return next((one for one in diagnose(case).findings if one.code == code), None)


def spike_of(case: Case) -> Finding | None:
    """The spike, or the batch that it is traced to."""
    return found(case, "loss-spike") or found(case, "corrupt-batch")


HEALTHY: dict[str, Case] = {
    "cosine": case_of(falling(1000), rates=cosine(1000), validation={s: 3.2 + 20 / s for s in range(100, 1001, 100)}),
    "noisy": case_of(falling(1000, noise=0.5), rates=cosine(1000)),
    "long": case_of(falling(50_000, noise=0.3), rates=cosine(50_000)),
    "few points": case_of(falling(20, noise=0.02), rates=cosine(20)),
    "constant rate": case_of(falling(800), rates=np.full(800, 1e-3)),
    "no rates": case_of(falling(800)),
    "late drop": case_of(
        np.concatenate([falling(800), falling(800)[-1] - np.linspace(0, 0.4, 200) + 0.1 * noise_of(200, 1)]),
        rates=np.concatenate([np.full(800, 1e-3), np.linspace(1e-3, 0, 200)]),
    ),
    "restarts": case_of(
        np.concatenate([falling(500), falling(500, start=3.6, floor=2.9, seed=2)]),
        rates=np.concatenate([cosine(500), cosine(500, warmup=0.01)]),
    ),
    "negative loss": case_of(falling(600) - 6.0, rates=cosine(600)),
    "training above validation": case_of(
        falling(1000) + 0.3, rates=cosine(1000), validation={s: 3.0 + 20 / s for s in range(100, 1001, 100)}
    ),
    "steady gap": case_of(
        falling(1000) - 0.5, rates=cosine(1000), validation={s: 3.6 + 20 / s for s in range(100, 1001, 100)}
    ),
    "jittery validation": case_of(
        falling(1000),
        rates=cosine(1000),
        validation={s: 3.2 + 20 / s + 0.01 * (-1) ** (s // 50) for s in range(50, 1001, 50)},
    ),
    "student noise": case_of(
        falling(2000, noise=0) + 0.1 * np.random.default_rng(5).standard_t(3, size=2000), rates=cosine(2000)
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("facts", [{}, FACTS], ids=["log alone", "with facts"])
def test_sound_curves_are_left_in_peace(name: str, facts: dict[str, Any]) -> None:
    case = HEALTHY[name]
    diagnosis = diagnose(Case(case.history, case.config, {**facts, "yardsticks": None}))
    assert diagnosis.verdict == "healthy", diagnosis.findings


@pytest.mark.parametrize("part", [0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("name", ["cosine", "late drop", "steady gap"])
def test_no_prefix_of_a_sound_run_raises_an_alarm(name: str, part: float) -> None:
    series = HEALTHY[name].history.series
    steps = int(1000 * part)
    case = case_of(series["train/loss"].mean[:steps], rates=series["learning_rate"].mean[:steps], total_steps=1000)
    assert diagnose(case).verdict == "healthy"


@pytest.mark.parametrize("rise", [1.2, 3.0, 30.0, 1e5])
def test_a_loss_that_leaves_for_good_is_a_divergence(rise: float) -> None:
    loss = falling(600)
    loss[400:] += rise * np.minimum(1.0, np.arange(200) / 40)
    told = found(case_of(loss, rates=cosine(600)), "divergence")
    assert told is not None
    assert told.severity == "error"
    assert 370 <= told.onset_step <= 425


def test_a_loss_that_never_fell_and_rises_is_a_divergence() -> None:
    loss = 7.0 + np.linspace(0, 5, 300) + 0.1 * noise_of(300)
    told = found(case_of(loss, rates=np.full(300, 1e-3)), "divergence")
    assert told is not None
    assert told.onset_step < 60


@pytest.mark.parametrize(
    ("height", "length", "severity"), [(6.0, 1, "warning"), (4.0, 8, "warning"), (0.6, 30, "warning"), (1.2, 1, "info")]
)
def test_a_loss_that_comes_back_is_a_spike(height: float, length: int, severity: str) -> None:
    loss = falling(800, noise=0.08)
    loss[500 : 500 + length] += height
    case = case_of(loss, rates=cosine(800))
    told = spike_of(case)
    assert told is not None
    assert "loss-spike" in (told.code, *told.consequences)
    assert (told.severity, found(case, "divergence")) == (severity, None)
    assert 490 <= told.onset_step <= 512
    assert (told.code == "corrupt-batch") == (length == 1 and severity == "warning")


def hard_batches(steps: int = 400, seed: int = 0) -> Array:
    """A small classifier: it scatters early, when batches hold some hard samples, and lies flat when all is learned."""
    rng, at = np.random.default_rng(seed), np.arange(steps)
    level = 1.1 * np.exp(-at / 30) + 1e-4
    return level * rng.gamma(1.5, 1 / 1.5, steps) + 0.5 * np.exp(-at / 60) * (rng.random(steps) < 0.12)


@pytest.mark.parametrize("seed", range(8))
def test_noise_is_that_of_the_steps_there(seed: int) -> None:
    told = found(case_of(hard_batches(seed=seed)), "loss-spike")
    assert told is None or told.severity == "info", told
    loss = hard_batches(seed=seed)
    loss[250:256] += 3.0
    spiked = found(case_of(loss), "loss-spike")
    assert spiked is not None
    assert spiked.severity == "warning"


def test_a_warm_up_is_not_what_raised_the_rate() -> None:
    loss = falling(400, noise=0.03)
    loss[24:28] += 4.0
    told = found(case_of(loss, rates=cosine(400, warmup=0.2)), "loss-spike")
    assert told is not None
    assert "learning rate" not in told.cause
    assert told.remedies[0].summary.startswith("look at the batches")
    rates = cosine(400, warmup=0.2)
    rates[24:28] *= 10
    jumped = found(case_of(loss, rates=rates), "loss-spike")
    assert jumped is not None
    assert "the learning rate did it" in jumped.cause


def test_a_spike_at_the_end_is_not_called_over() -> None:
    loss = falling(800)
    loss[-4:] += 5
    assert found(case_of(loss, rates=cosine(800)), "loss-spike") is None


@pytest.mark.parametrize("place", ["train", "validation", "gradient"])
def test_any_value_that_is_no_number_is_told(place: str) -> None:
    loss, norms = falling(300), 1 + 0.1 * np.abs(noise_of(300))
    validation = dict.fromkeys(range(50, 301, 50), 3.5)
    if place == "train":
        loss[200:] = np.nan
    elif place == "gradient":
        norms[200] = np.inf
    else:
        validation[200] = np.nan
    told = found(case_of(loss, rates=cosine(300), validation=validation, grad_norm=norms), "nan-loss")
    assert told is not None
    assert told.severity == ("error" if place == "train" else "warning")
    assert 200 <= told.onset_step <= 201


def test_skipped_steps_of_a_loss_scale_are_no_fault() -> None:
    norms = 1 + 0.1 * np.abs(noise_of(300))
    norms[:8] = np.inf
    case = case_of(falling(300), rates=cosine(300), grad_norm=norms, loss_scale=np.full(300, 2.0**14))
    assert found(case, "nan-loss") is None


@pytest.mark.parametrize(
    ("begin", "lost", "end", "severity"),
    [
        (100, 3, 300, "info"),
        (100, 60, 300, "error"),
        (100, 3, 299, "warning"),
        (0, 32, 300, "info"),
        (0, 60, 300, "error"),
    ],
)
def test_norms_alone_that_are_no_numbers_are_steps_that_another_trainer_skipped(
    begin: int, lost: int, end: int, severity: str
) -> None:
    norms = 1 + 0.1 * np.abs(noise_of(300))
    norms[begin : begin + lost] = np.nan
    norms[end:] = np.nan
    case = case_of(falling(300), rates=cosine(300), grad_norm=norms)
    object.__setattr__(case, "target", "torch")
    told = found(case, "nan-loss")
    assert told is not None
    assert told.severity == severity


def test_an_exploding_gradient_is_seen_before_the_nan() -> None:
    loss, norms = falling(300), 1 + 0.1 * np.abs(noise_of(300))
    norms[195:200] = [5, 30, 200, 3000, 1e5]
    loss[200:] = np.nan
    case = case_of(loss, rates=cosine(300), grad_norm=norms)
    (told,) = [one for one in RULES["nan-loss"](case) if isinstance(one, Finding)]
    assert "exploded" in told.cause
    lead = diagnose(case).findings[0]
    assert (lead.code, lead.consequences) == ("exploding-gradients", ("nan-loss",))
    assert 194 <= lead.onset_step <= 196


@pytest.mark.parametrize("losses", [(7.6, 9.4, 31.0), (7.6, 7.9)], ids=["rises", "two steps"])
def test_an_absurd_rate_is_blamed_before_the_data(losses: tuple[float, ...]) -> None:
    loss = np.array([*losses, *[np.nan] * 5])
    rates = np.full(len(loss), 30.0)
    told = found(case_of(loss, rates=rates, facts=FACTS, total_steps=300), "nan-loss")
    assert told is not None
    assert "the learning rate is far too high" in told.cause
    assert any(one.metric == "learning_rate" and one.observed == 30.0 for one in told.evidence)
    assert any("had risen" in one.text for one in told.evidence) == (len(losses) == 3)
    assert not any("look at the data" in one.summary for one in told.remedies)
    assert 1e-4 <= told.remedies[0].config["optimizer.learning_rate"] <= 5e-3


@pytest.mark.parametrize(("rate", "facts"), [(1e-3, FACTS), (30.0, {}), (30.0, {**FACTS, "optimizer": "sgd"})])
def test_a_bearable_or_unknown_rate_is_not_blamed(rate: float, facts: dict[str, Any]) -> None:
    loss = np.array([7.6, 7.5, 7.4, np.nan, np.nan, np.nan])
    told = found(case_of(loss, rates=np.full(6, rate), facts=facts, total_steps=300), "nan-loss")
    assert told is not None
    assert "rate" not in told.cause
    assert "look at the data" in told.remedies[0].summary


@pytest.mark.parametrize(
    "losses",
    [[5.7, 289.0, 3.03e10, 4.74e33], [*np.linspace(5.7, 2.0, 40), 9.0, 80.0], [1.0, 0.8, 0.3, 4.0, 90.0]],
    ids=["at once", "after a fall", "few"],
)
def test_a_loss_that_grew_before_it_was_no_number_diverged_though_no_gradient_was_logged(losses: list[float]) -> None:
    case = case_of(np.array([*losses, np.inf, *[np.nan] * 20]))
    assert [(one.code, one.consequences) for one in diagnose(case).findings] == [("divergence", ("nan-loss",))]
    (told,) = [one for one in ask("nan-loss", case) if isinstance(one, Finding)]
    assert told.cause.endswith("; the loss had diverged before")
    assert f"after {format.decimal(losses[-1])} just before" in told.cause
    assert any("had risen" in one.text for one in told.evidence)
    assert [one.summary for one in told.remedies] == ["lower the learning rate to a tenth"]


def test_of_a_gradient_that_was_not_logged_nothing_is_said() -> None:
    loss = falling(300, noise=0.3)
    loss[200:] = np.nan
    told = found(case_of(loss), "nan-loss")
    assert told is not None
    assert "the gradient had not grown" not in told.cause
    assert "look at the data" in told.remedies[0].summary
    logged = found(case_of(loss, grad_norm=1 + 0.1 * np.abs(noise_of(300))), "nan-loss")
    assert logged is not None
    assert "the gradient had not grown before" in logged.cause


def test_a_gradient_that_explodes_within_few_steps_is_seen() -> None:
    loss, norms = np.array([7.6, 7.9, np.nan, np.nan]), np.array([1.2, 480.0, np.nan, np.nan])
    told = found(case_of(loss, rates=np.full(4, 1e-3), grad_norm=norms, facts=FACTS), "nan-loss")
    assert told is not None
    assert "exploded" in told.cause


def overfit(rise: float, noise: float = 0.0, epochs: float = 20.0) -> Case:
    validation = {
        step: 3.5 + 30 / step + (rise * max(0, step - 400) / 600) + noise * float(noise_of(1, step)[0])
        for step in range(50, 1001, 50)
    }
    loss = falling(1000, floor=0.5)
    return case_of(loss, rates=cosine(1000), validation=validation, facts={**FACTS, "epochs": epochs})


@pytest.mark.parametrize("rise", [0.3, 1.0, 4.0])
def test_validation_that_rises_while_training_falls_is_overfitting(rise: float) -> None:
    told = found(overfit(rise, noise=0.005), "overfitting")
    assert told is not None
    assert told.severity == "warning"
    assert 350 <= told.onset_step <= 550
    assert told.confidence > 0.8


def test_noise_of_evaluations_is_no_overfitting() -> None:
    for seed in range(20):
        validation = {s: 3.5 + 30 / s + 0.03 * float(noise_of(1, seed * 1000 + s)[0]) for s in range(50, 1001, 50)}
        case = case_of(falling(1000), rates=cosine(1000), validation=validation)
        told = found(case, "overfitting")
        assert told is None or told.severity == "info", seed


def test_nothing_seen_twice_is_hardly_overfitting() -> None:
    told = found(overfit(0.5, epochs=0.3), "overfitting")
    assert told is None or told.confidence < 0.6


def high_rate(swing: float) -> Case:
    """Falls, then rises again while the rate is high, and stands at what single tokens cost."""
    loss = np.concatenate([np.linspace(7.6, 6.0, 20), 6.3 + 0.1 * np.sin(np.arange(480) / 9) * swing])
    return case_of(
        loss + 0.05 * noise_of(500),
        rates=cosine(500, 0.05),
        validation=dict.fromkeys(range(50, 501, 50), 6.25),
        config={"optimizer.learning_rate": 0.05},
        facts=FACTS,
    )


@pytest.mark.parametrize("swing", [0.5, 3.0])
def test_a_high_rate_is_named_with_its_signs(swing: float) -> None:
    case = high_rate(swing)
    assert lead(case)[0] == "learning-rate-too-high"
    told = found(case, "learning-rate-too-high")
    assert told is not None
    assert any("usual" in item.text for item in told.evidence)
    assert told.remedies[0].config["optimizer.learning_rate"] < 0.01


def test_the_same_curve_at_a_usual_rate_is_not_blamed_on_it() -> None:
    case = high_rate(0.0)
    calm = case_of(
        case.history.series["train/loss"].mean,
        rates=cosine(500, 5e-4),
        config={"optimizer.learning_rate": 5e-4},
        facts=FACTS,
    )
    assert found(calm, "learning-rate-too-high") is None


def test_a_rate_that_cannot_move_the_weights_is_too_low() -> None:
    loss = np.linspace(7.62, 7.2, 400) + 0.03 * noise_of(400)
    config = {"optimizer.learning_rate": 1e-5, "model.initialization.standard_deviation": 0.02}
    case = case_of(loss, rates=cosine(400, 1e-5), config=config, facts=FACTS)
    assert lead(case) == ("learning-rate-too-low", "warning")
    told = found(case, "learning-rate-too-low")
    assert told is not None
    assert told.remedies[0].config["optimizer.learning_rate"] > 1e-4


def test_a_loss_that_falls_steadily_is_held_against_what_the_rule_asks() -> None:
    loss = np.linspace(7.6, 6.2, 400) + 0.02 * noise_of(400)
    case = case_of(loss, rates=np.full(400, 1e-6), config={"optimizer.learning_rate": 1e-6}, facts=FACTS)
    told = found(case, "learning-rate-too-low")
    assert told is not None
    (steady,) = [one for one in told.evidence if one.metric == "train/loss"]
    early, late = (float(gained) for gained in re.findall(r"by (\d+\.\d+)", steady.text))
    assert steady.expected == pytest.approx(0.45 * early, abs=1e-4)  # what a second half must gain to be told
    assert steady.observed == pytest.approx(late, abs=1e-4)


def test_fine_tuning_at_a_low_rate_is_sound() -> None:
    loss = 2.4 + 0.3 * np.exp(-np.arange(400) / 100) + 0.05 * noise_of(400)
    facts = {**FACTS, "yardsticks": None, "parameters": {"total": 1e8, "non_embedding": 8e7, "frozen": 0}}
    case = case_of(loss, rates=cosine(400, 2e-5), config={"optimizer.learning_rate": 2e-5}, facts=facts)
    assert diagnose(case).verdict == "healthy"


def test_standing_still_at_what_counting_reaches_is_underfitting_and_needs_a_yardstick() -> None:
    loss = 4.3 + 3.0 * np.exp(-np.arange(800) / 40) + 0.1 * noise_of(800)
    validation = dict.fromkeys(range(100, 801, 100), 4.3)
    facts = {**FACTS, "yardsticks": {**FACTS["yardsticks"], "bigram": 2.05}}  # 4.26 nats a token
    case = case_of(
        loss, rates=cosine(800), validation=validation, facts=facts, config={"optimizer.learning_rate": 1e-3}
    )
    assert lead(case) == ("underfitting", "warning")
    bare = diagnose(case_of(loss, rates=cosine(800), validation=validation))
    assert "underfitting" in {item.code for item in bare.withheld}
    good = {**facts, "yardsticks": {**facts["yardsticks"], "bigram": 3.0}}
    assert found(case_of(loss, rates=cosine(800), validation=validation, facts=good), "underfitting") is None
    for step, factor in ((100, 0.5), (200, 0.1)):
        case.history.observe(DecisionTaken(step, step, "plateau", Adjust("flat", "learning_rate", factor)))
    held_back = found(case, "underfitting")
    assert held_back is not None
    assert held_back.cause.startswith("plateau cut the learning rate to 10% of its schedule")
    assert held_back.onset_step == 100
    assert not any("larger model" in remedy.summary for remedy in held_back.remedies)


def test_scatter_in_tiny_batches_that_stand_still_is_noise() -> None:
    loss = 5.5 + 2.1 * np.exp(-np.arange(1000) / 20) + 0.9 * noise_of(1000)
    facts = {**FACTS, "yardsticks": None}
    tiny = case_of(loss, rates=np.full(1000, 1e-3), tokens=np.full(1000, 16.0), facts=facts)
    assert lead(tiny) == ("noisy-loss", "warning")
    large = case_of(loss, rates=np.full(1000, 1e-3), tokens=np.full(1000, 65536.0), facts=facts)
    assert found(large, "noisy-loss") is None


def test_findings_of_one_loss_that_left_agree() -> None:
    loss = np.concatenate([2.4 * 0.9985 ** np.arange(140), np.full(160, 2.4e6)])
    loss *= 1 + 0.2 * np.abs(noise_of(300))
    case = case_of(loss, grad_norm=np.full(300, 1.0))
    told = found(case, "divergence")
    assert told is not None
    assert "above where it began" in told.cause
    assert "never fell" not in told.cause
    assert found(case, "noisy-loss") is None


def test_scatter_without_progress_is_not_told_as_progress_nor_as_a_small_batch() -> None:
    scatter = 6.0 + 1.2 * np.tile([-1.0, 0.2, 1.0, -0.5, 0.6, -0.9, 0.8, -0.2], 37)
    loss = np.concatenate([np.full(4, 7.65), scatter])
    told = found(case_of(loss), "noisy-loss")
    assert told is not None
    assert told.cause == "the loss scatters; its level hardly falls any more"
    flat = found(case_of(scatter), "plateau")
    assert flat is not None
    assert "but for the noise of single steps" in flat.cause


def test_a_rate_that_took_the_training_loss_to_nothing_is_not_too_high() -> None:
    loss = 6.4 * np.exp(-np.arange(1000) / 60) * (1 + 0.1 * noise_of(1000))
    loss[1:6] = 16.0
    validation = {step: 4.5 + 1.2 * (step // 100 % 2) + step / 1000 for step in range(50, 1001, 50)}
    case = case_of(loss, rates=np.full(1000, 3e-3), validation=validation)
    assert "learning-rate-too-high" not in {
        code for one in diagnose(case).findings for code in (one.code, *one.consequences)
    }


CLASSIFIER = {
    "task": "classification",
    "targets": {"classes": ["a", "b"]},
    "parameters": {"total": 100_000, "non_embedding": 90_000, "frozen": 0},
    "optimizer": "adamw",
}


@pytest.mark.parametrize("task", ["classification", "token_classification", "regression"])
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_what_is_known_of_tokens_is_not_said_of_texts(task: str, noise: float) -> None:
    loss = 0.3 + 0.4 * np.exp(-np.arange(600) / 100) + noise * noise_of(600)
    validation = {step: 0.5 + 0.2 * np.exp(-step / 50) for step in range(50, 601, 50)}
    for measured in ({}, {"validation": validation}):
        case = case_of(
            loss,
            rates=cosine(600),
            facts={**CLASSIFIER, "task": task},
            config={"objective.name": "cross_entropy"},
            tokens=np.full(600, 32.0),
            **measured,
        )
        diagnosis = diagnose(case)
        codes = {one.code for one in (*diagnosis.findings, *diagnosis.withheld)}
        assert not codes & {"noisy-loss", "underfitting"}
        assert diagnosis.verdict == "healthy"
        assert "yardsticks" not in diagnosis.summary


@pytest.mark.parametrize("task", ["causal_lm", "masked_lm", "seq2seq", None])
def test_language_is_judged_by_tokens(task: str | None) -> None:
    loss = 5.5 + 2.1 * np.exp(-np.arange(1000) / 20) + 0.9 * noise_of(1000)
    facts = {**FACTS, "yardsticks": None, "task": task}
    case = case_of(loss, rates=np.full(1000, 1e-3), tokens=np.full(1000, 16.0), facts=facts, validation={900: 5.5})
    assert lead(case) == ("noisy-loss", "warning")
    withheld = {item.code for item in diagnose(case).withheld}
    assert ("underfitting" in withheld) == (task in (None, "causal_lm"))  # yardsticks are for next-token prediction


def planned(name: str, steps: int, *settings: str) -> tuple[Array, dict[str, Any]]:
    """The factor of each step, and the settings, of a schedule by its defaults."""
    config = load_config("gpt-1m", [f"schedule.name={name}", f"training.steps={steps}", *settings])
    schedule = build_schedule(config.schedule, steps)
    return np.array([schedule.factor(step) for step in range(steps)]), flatten(config)


@pytest.mark.parametrize("lift", [0.8, 1.5])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("warm_restarts", ()),
        ("warm_restarts", ("schedule.period=200 steps", "schedule.growth=2")),
        ("triangular", ()),
        ("triangular", ("schedule.halved=true",)),
        ("triangular", ("schedule.rise=20", "schedule.fall=180")),
        ("exp_range", ()),
    ],
)
def test_a_rise_that_the_schedule_plans_is_no_alarm(name: str, settings: tuple[str, ...], lift: float) -> None:
    factors, config = planned(name, 2000, *settings)
    case = case_of(falling(2000, noise=0.05) + lift * factors, rates=1e-3 * factors, config=config)
    told = found(case, "loss-spike")
    assert told is None or told.severity == "info", told
    if name == "warm_restarts":
        assert told is not None
        assert "as planned" in told.cause
        assert not [remedy for remedy in told.remedies if "batches" in remedy.summary]


@pytest.mark.parametrize("name", ["cosine", "warm_restarts", "triangular", "one_cycle"])
@pytest.mark.parametrize("length", [1, 12])
def test_a_spike_is_no_less_one_between_planned_rises(name: str, length: int) -> None:
    """In the long fall of a half cosine; in the middle of a triangle's rise, where the rate rises on after it."""
    factors, config = planned(name, 2000)
    loss = falling(2000, noise=0.05) + 0.1 * factors
    at = 1250 if name != "triangular" else 1245  # triangles of 200 steps: its rate rises from step 1,200 to 1,300
    loss[at : at + length] += 4
    told = spike_of(case_of(loss, rates=1e-3 * factors, config=config))
    assert told is not None
    assert told.severity == "warning"
    assert at - 10 <= told.onset_step <= at + 10


@pytest.mark.parametrize(("waits", "severity"), [(0.5, "warning"), (0.15, "info"), (0.02, None)])
def test_waiting_for_data_is_counted(waits: float, severity: str | None) -> None:
    case = case_of(falling(200), step_seconds=np.full(200, 1.0), data_seconds=np.full(200, waits))
    told = found(case, "input-bound")
    assert (told.severity if told else None) == severity


def test_a_first_step_that_waits_long_is_no_fault() -> None:
    waits = np.full(200, 0.01)
    waits[0] = 500.0
    case = case_of(falling(200), step_seconds=np.full(200, 1.0) + waits, data_seconds=waits)
    assert found(case, "input-bound") is None


def with_layers(dead: int, total: int = 10, facts: dict[str, Any] | None = None, start: float = 8.2) -> Case:
    case = case_of(falling(200, start=start), rates=cosine(200), facts=FACTS | (facts or {}))
    names = tuple(f"layer/blocks.{index}.weight/grad_norm" for index in range(total))
    for window in range(10, 201, 10):
        norms = np.array([0.0 if index < dead else 1.0 / window for index in range(total)])
        case.history.layers.append(window, names, norms)
    return case


def test_layers_that_no_gradient_reaches_are_named() -> None:
    told = found(with_layers(4), "frozen-parameters")
    assert told is not None
    assert told.severity == "warning"
    assert "blocks.3.weight" in told.evidence[0].text
    assert found(with_layers(0), "frozen-parameters") is None


def test_frozen_random_weights_are_a_fault_and_frozen_pretrained_ones_a_remark() -> None:
    frozen = {"parameters": {"total": 1_000_000, "non_embedding": 800_000, "frozen": 900_000}}
    scratch = found(with_layers(0, facts=frozen), "frozen-parameters")
    tuned = found(with_layers(0, facts=frozen, start=3.0), "frozen-parameters")
    assert scratch is not None
    assert tuned is not None
    assert (scratch.severity, tuned.severity) == ("warning", "info")


@pytest.mark.parametrize("level", [10.8, 0.693, -3.0])
def test_a_run_that_learns_nothing_is_told_and_a_rate_of_zero_is_its_reason(level: float) -> None:
    flat = level + 0.02 * noise_of(600)
    assert lead(case_of(flat, rates=cosine(600))) == ("plateau", "warning")
    assert lead(case_of(np.full(600, level), rates=cosine(600))) == ("plateau", "warning")
    assert lead(case_of(flat, rates=np.zeros(600))) == ("learning-rate-too-low", "error")


@pytest.mark.parametrize(("steps", "noise"), [(200_000, 0.4), (1_000_000, 0.8)])
def test_noise_of_a_long_run_is_no_spike_and_a_real_one_is(steps: int, noise: float) -> None:
    loss = falling(steps, noise=noise)
    assert diagnose(case_of(loss, rates=cosine(steps))).verdict == "healthy"
    loss[steps // 2 : steps // 2 + steps // 200] += 6
    assert found(case_of(loss, rates=cosine(steps)), "loss-spike") is not None


def test_losses_of_neighbours_that_belong_together_are_no_fault_of_the_rate() -> None:
    for seed in range(6):
        drawn = noise_of(1500, seed)
        wander = np.zeros(1500)
        for index in range(1, 1500):
            wander[index] = 0.99 * wander[index - 1] + 0.3 * np.sqrt(1 - 0.99**2) * drawn[index]
        case = case_of(falling(1500, noise=0.05, seed=seed) + wander, rates=cosine(1500))
        assert found(case, "learning-rate-too-high") is None


def test_step_decay_of_sgd_is_sound_where_the_optimizer_is_not_known() -> None:
    rates = np.repeat([0.1, 0.01, 0.001], 1000)
    levels = np.concatenate([1.2 + 5 * np.exp(-np.arange(1000) / 60), np.full(1000, 0.6), np.full(1000, 0.5)])
    assert diagnose(case_of(levels + 0.05 * noise_of(3000), rates=rates)).verdict == "healthy"


def test_a_new_head_on_a_trained_model_is_sound() -> None:
    loss = 0.45 + 0.243 * np.exp(-np.arange(400) / 80) + 0.02 * noise_of(400)
    facts = {"num_classes": 2, "parameters": {"total": 110_000_000, "non_embedding": 86_000_000, "frozen": 109_000_000}}
    case = case_of(loss, rates=cosine(400, 2e-5), validation=dict.fromkeys(range(50, 401, 50), 0.47), facts=facts)
    names = ("layer/head.weight/grad_norm",)
    for window in range(10, 401, 10):
        case.history.layers.append(window, names, np.array([1.0 / window]))
    assert diagnose(case).verdict == "healthy"


def test_a_best_validation_loss_of_zero_is_no_crash() -> None:
    validation = dict(zip(range(50, 451, 50), [1, 0.3, 0.01, 0, 0.01, 0.3, 0.5, 0.6, 0.7], strict=True))
    diagnosis = diagnose(case_of(falling(450, floor=0.1), rates=cosine(450), validation=validation))
    assert not any("failed" in need for item in diagnosis.withheld for need in item.needs)


@given(
    loss=st.lists(st.floats(width=32), min_size=0, max_size=120),
    validation=st.lists(st.floats(width=32), max_size=12),
    rates=st.lists(st.floats(0, 1, width=32), max_size=120),
)
@example(loss=[0.0] * 10, validation=[], rates=[1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_numbers_make_a_rule_fail(loss: list[float], validation: list[float], rates: list[float]) -> None:
    rates = (rates * (len(loss) + 1))[: len(loss)] if rates else [1e-3] * len(loss)
    with np.errstate(all="ignore"):
        case = case_of(
            np.array(loss, dtype=np.float64),
            rates=np.array(rates, dtype=np.float64),
            validation={10 * (index + 1): value for index, value in enumerate(validation)},
            grad_norm=np.array(loss, dtype=np.float64),
            data_seconds=np.array(rates, dtype=np.float64),
            step_seconds=np.array(rates, dtype=np.float64),
            tokens=np.full(len(loss), 64.0),
            facts=FACTS,
        )
        diagnosis = diagnose(case)
    assert not any("failed" in need for item in diagnosis.withheld for need in item.needs), diagnosis.withheld


def test_times_in_different_units_are_not_judged() -> None:
    case = case_of(falling(200), step_seconds=np.full(200, 0.03), data_seconds=np.full(200, 8.0))
    assert found(case, "input-bound") is None


def test_noise_is_estimated_around_a_trend() -> None:
    values: Array = np.linspace(9, 1, 5000) + 0.2 * noise_of(5000)
    assert estimated_noise(values) == pytest.approx(0.2, rel=0.05)


def test_phases_overlook_a_short_jump_of_the_rate() -> None:
    rates = cosine(400)
    rates[200:205] *= 10
    case = case_of(falling(400), rates=rates)
    phases = Phases.of(case.history.get("learning_rate"), 1, 400)
    assert phases.peak == pytest.approx(1e-3, rel=0.02)
    curve = Curve.of(case.loss())
    assert curve is not None
    assert phases.peak_from < 60


def scaled(scale: Array, skipped: Array) -> Case:
    return case_of(falling(len(scale)), rates=cosine(len(scale)), loss_scale=scale, skipped=skipped)


def test_a_loss_scale_that_collapses_is_told_and_one_that_is_found_is_not() -> None:
    # Sixteen halvings find the scale; then it doubles now and then, and is halved again.
    search = 2.0 ** np.arange(16, 7, -1)
    settled = np.concatenate([search, np.tile([256.0] * 40 + [512.0] * 5, 10)])
    lost = np.zeros(len(settled))
    lost[: len(search)] = 1.0
    assert found(scaled(settled, lost), "loss-scale-collapse") is None
    falls = np.concatenate([settled, np.maximum(2.0 ** np.arange(8, -60, -1), 1.0)])
    lost = np.concatenate([lost, np.ones(68)])
    finding = found(scaled(falls, lost), "loss-scale-collapse")
    assert finding is not None
    assert finding.severity == "error"
    assert "from 512 to 1, its floor" in finding.cause
    assert finding.onset_step in (len(settled) + 8, len(settled) + 9)
    recovered = np.concatenate([falls, np.full(400, 256.0)])
    finding = found(scaled(recovered, np.concatenate([lost, np.zeros(400)])), "loss-scale-collapse")
    assert finding is not None
    assert finding.severity == "warning"


def test_a_loss_scale_that_never_fitted_is_a_collapse() -> None:
    scale = np.maximum(2.0 ** np.arange(16.0, -24.0, -1.0), 1.0)
    finding = found(scaled(scale, np.ones(40)), "loss-scale-collapse")
    assert finding is not None
    assert finding.severity == "error"
    assert "100 % of the updates" in finding.cause


@pytest.mark.parametrize(("later", "expected"), [(2.0**16, None), (2.0**4, "warning")])
def test_a_search_for_the_scale_is_none_in_a_log_that_tells_no_skipped_updates_too(
    later: float, expected: str | None
) -> None:
    scale = np.concatenate([2.0 ** np.arange(28, 16, -1), np.full(100, 2.0**16), np.full(20, later)])
    told = found(case_of(falling(132), loss_scale=scale), "loss-scale-collapse")
    assert (None if told is None else told.severity) == expected


def test_a_long_run_in_fp16_that_found_its_scale_is_sound() -> None:
    scale = np.full(20_000, 128.0)
    scale[:9] = 2.0 ** np.arange(16, 7, -1)
    lost = np.zeros(20_000)
    lost[:9] = 1.0
    assert found(scaled(scale, lost), "loss-scale-collapse") is None


def compared(lows: list[float], *, beside: str = "best", ended: bool = False, restored: int | None = None) -> Case:
    case = case_of(falling(600), rates=cosine(600), config={"evaluation.baseline.name": beside})
    steps = 100 * np.arange(1, len(lows) + 1)
    case.history.add("validation/loss_over_baseline_low", steps, np.array(lows))
    case.history.add("validation/loss_over_baseline", steps, np.array(lows) + 0.02)
    if ended:
        case.history.observe(RunEnded(600, "finished", "done", 400, 3.0, restored, 1.0, {}))
    return case


@pytest.mark.parametrize(
    ("lows", "more", "severity"),
    [
        ([-0.3, -0.1, -0.02], {}, None),
        ([-0.3, 0.01, -0.02], {"ended": True}, None),
        ([-0.3, -0.1, 0.01], {}, None),  # once is chance
        ([-0.3, -0.1, 0.01], {"ended": True}, "warning"),
        ([-0.3, 0.01, 0.02], {}, "warning"),
        ([-0.3, 0.01, 0.02], {"ended": True, "restored": 400}, "info"),
        ([0.3, 0.2, 0.1], {"beside": "run"}, None),  # a run that has only begun is worse than one that is over
        ([0.3, 0.2, 0.1], {"beside": "run", "ended": True}, "warning"),
    ],
)
def test_what_is_worse_than_its_baseline(lows: list[float], more: dict[str, Any], severity: str | None) -> None:
    told = found(compared(lows, **more), "validation-regression")
    assert (told and told.severity) == severity
    if told is not None:
        assert told.onset_step == (100 if more.get("beside") else 300 if lows[1] < 0 else 200)


def test_a_further_set_can_be_what_is_worse() -> None:
    case = compared([-0.3, -0.2, -0.1])
    for name in ("far", "odd"):
        case.history.add(
            f"validation/{name}/loss_over_baseline_low", np.array([100, 200, 300]), np.array([-1, 0.1, 0.2])
        )
        case.history.add(f"validation/{name}/loss_over_baseline", np.array([100, 200, 300]), np.array([-1, 0.3, 0.4]))
    told = found(case, "validation-regression")
    assert told is not None
    assert "of the set far is significantly worse than its own best so far, by 0.4000; so is that of odd" in told.cause
    assert [(one.metric, one.steps) for one in told.evidence] == [
        ("validation/far/loss_over_baseline_low", (200, 300)),
        ("validation/odd/loss_over_baseline_low", (200, 300)),
    ]
