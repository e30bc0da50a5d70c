"""What is proposed can be done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from cases import case_of, falling

from trimtab.config import ClipConfig, Config, dump_config, flatten, load_config, load_written
from trimtab.config.registry.schedules import SCHEDULES
from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Remedy, Target
from trimtab.doctor.fix import fix_elsewhere
from trimtab.doctor.lint import lint
from trimtab.doctor.load import open_foreign_case
from trimtab.doctor.narrate import summarize
from trimtab.doctor.reading.levels import uniform_loss
from trimtab.doctor.remedies import NAMES, brain_float, for_little_data, kept_checkpoint, longer_warmup, sound_rate
from trimtab.doctor.rules import RULES
from trimtab.doctor.rules.loss_spike import clipping
from trimtab.doctor.rules.noisy_loss import _more as more_samples
from trimtab.doctor.rules.stopped_too_early import _remedies
from trimtab.doctor.rules.underfitting import _remedies as larger_model
from trimtab.events import CheckpointSaved, FindingsChanged, RunEnded, RunStarted
from trimtab.report import words
from trimtab.report.fixed import fixed_file
from trimtab.report.words import sentences

RATE = "optimizer.learning_rate"
CLIPS = [clip.model_fields["name"].default for clip in get_args(get_args(ClipConfig)[0])]


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


def test_a_run_that_goes_on_has_no_end_to_be_seen_from() -> None:
    case = case_of(falling(100), total_steps=1000)
    case.history.observe(FindingsChanged(40, ({"code": "divergence", "severity": "error"},)))
    assert "what was told during the run has passed by now (divergence at step 40)" in summarize(
        case, "healthy", [], []
    )
    case.history.observe(RunEnded(100, "stopped", "no improvement", None, None, None, 0.0))
    assert "has passed, seen from its end" in summarize(case, "healthy", [], [])


@pytest.mark.parametrize(("steps", "mean"), [(4, False), (39, False), (40, True), (400, True)])
def test_the_mean_of_a_twentieth_is_named_where_it_is_one(steps: int, mean: bool) -> None:
    loss = np.linspace(5.0, 2.5, steps)
    text = summarize(case_of(loss), "healthy", [], [])
    assert ("the mean of its last twentieth" in text) == mean
    assert f"to {loss[-max(1, steps // 20) :].mean():.4f}" in text


def settable(base: list[str], remedy: Remedy) -> None:
    """Raises: ConfigError when the command line refuses the remedy for a run of these settings."""
    assert remedy.config
    config = flatten(load_config("gpt-1m", [*base, *(f"{key}={value}" for key, value in remedy.config.items())]))
    assert {key: config[key] for key in remedy.config} == remedy.config


LITTLE = {"tokens_per_epoch": 1000, "task": "causal_lm"}


@pytest.mark.parametrize(
    ("base", "passes", "keys"),
    [
        ([], 20, ["stopping.name", "stopping.patience", "model.dropout.residual", "model.dropout.feed_forward"]),
        ([], 5, []),
        (["model.dropout.residual=0.4", "model.dropout.feed_forward=0.3"], 20, []),  # one measure is left
    ],
)
def test_little_data_get_all_that_they_want_at_once(base: list[str], passes: int, keys: list[str]) -> None:
    base = ["stopping.name=none", "objective.label_smoothing=0.1", *base]
    config = flatten(load_config("gpt-1m", base))
    proposed = for_little_data(case_of(falling(10), tokens=np.full(10, passes * 100.0), config=config, facts=LITTLE))
    assert [list(remedy.config) for remedy in proposed] == ([keys] if keys else [])
    for remedy in proposed:
        settable(base, remedy)
        settable(base, replace(remedy, config={**remedy.config, "optimizer.weight_decay": 0.1}))


def fixed(base: list[str], propose: Callable[[Case], Iterable[Remedy]], folder: Path) -> Config:
    """The configuration of a run with the one remedy that is proposed, as `--fix` makes it."""
    config = load_config("gpt-1m", base)
    (folder / "config.yaml").write_text(dump_config(config))
    [remedy] = propose(case_of(falling(10), config=flatten(config)))
    return load_written(folder / "config.yaml", [f"{key}={value}" for key, value in remedy.config.items()])


def test_fp16_with_settings_of_its_own_is_changed_to_bf16(tmp_path: Path) -> None:
    base = ["training.precision={name: fp16, initial_scale: 1024}"]
    assert fixed(base, lambda case: [brain_float(case)], tmp_path).training.precision.name == "bf16"


def test_where_the_rate_is_usual_what_diverges_keeps_its_best_weights_first() -> None:
    facts = {"parameters": {"non_embedding": 800_000}, "optimizer": "adamw"}
    loss = falling(1000)
    loss[600:] += np.linspace(0, 6, 400)
    for rate, first in ((1e-3, "stopping.name"), (3e-2, RATE)):
        base = [f"{RATE}={rate}", "stopping.name=none"]
        case = case_of(loss, config=flatten(load_config("gpt-1m", base)), facts=facts)
        proposed = [remedy for found in RULES["divergence"](case) for remedy in found.remedies if remedy.config]
        assert next(iter(proposed[0].config)) == first
        settable(base, proposed[0])


def test_a_larger_model_has_a_rate_to_match() -> None:
    for rate, keys in ((2e-2, {RATE}), (1e-4, set())):
        base = ["model={num_layers: 1, hidden_size: 4, num_heads: 1, dropout: {}}", f"{RATE}={rate}"]
        case = case_of(falling(10), config=flatten(load_config("gpt-1m", base)), facts={"optimizer": "adamw"})
        first = next(larger_model(case))
        assert set(first.config) == {"model.num_layers", "model.hidden_size"} | keys
        settable(base, first)


def test_more_samples_are_taken_in_micro_batches_as_large_as_fit(tmp_path: Path) -> None:
    config = fixed(["training={micro_batch_size: 2, accumulation: 3}"], more_samples, tmp_path)
    assert (config.sequences_per_step, config.split) == (48, None)


@pytest.mark.parametrize(("held_out", "first"), [(75_000, "evaluation.max_tokens"), (64, "data.validation_fraction")])
def test_of_what_is_held_out_and_not_judged_no_more_is_held_out(held_out: int, first: str) -> None:
    config = flatten(load_config("gpt-1m", ["evaluation={max_tokens: 64, gap_tokens: 0}"]))
    facts = {"validation": {"tokens": held_out}, "task": "causal_lm"}
    validation = {step: 4.0 - step / 1000 for step in range(100, 1001, 100)}
    [found] = RULES["validation-too-small"](case_of(falling(1000), validation=validation, config=config, facts=facts))
    assert next(iter(found.remedies[0].config)) == first


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_is_proposed_where_the_schedule_has_one_that_is_shorter(name: str) -> None:
    base = [f"schedule.name={name}"]
    case = case_of(falling(1000), config=flatten(load_config("gpt-1m", base)))
    proposed = longer_warmup(case)
    assert len(proposed) == (0 if name in ("triangular", "exp_range", "one_cycle") else 1)
    for remedy in proposed:
        settable(base, remedy)


@pytest.mark.parametrize(
    ("warmup", "shorter"),
    [
        ("0", True),
        ("99", True),
        ("100", False),
        ("0.05", True),
        ("0.1", False),
        ("1.0", False),
        ("20 steps", True),
        ("500 steps", False),
        ("1e3 tokens", True),
        ("1e7 tokens", False),
        ("0.001 epochs", True),
        ("3 epochs", False),
    ],
)
def test_a_warm_up_in_whatever_unit_is_never_shortened(warmup: str, shorter: bool) -> None:
    config = flatten(load_config("gpt-1m", [f"schedule.warmup={warmup}", "training.steps=1000"]))
    case = case_of(falling(1000), config=config, facts={"tokens_per_epoch": 4_000_000})
    assert bool(longer_warmup(case)) == shorter


def test_a_warm_up_of_which_the_length_is_not_known_is_left_alone() -> None:
    config = flatten(load_config("gpt-1m", ["schedule.warmup=0.5 epochs", "training.steps=1000"]))
    assert longer_warmup(case_of(falling(1000), config=config)) == []
    assert longer_warmup(case_of(falling(1000), config={"schedule.name": "of another version"})) == []
    assert len(longer_warmup(case_of(falling(1000)))) == 1  # the log of another trainer


@pytest.mark.parametrize("name", CLIPS)
def test_a_lower_clip_is_proposed_where_the_kind_has_a_threshold(name: str) -> None:
    base = [f"gradients.clip.name={name}"]
    config = flatten(load_config("gpt-1m", base))
    proposed = clipping(case_of(falling(100), config=config))
    assert len(proposed) == (0 if name in ("quantile", "z_score") else 1)
    for remedy in proposed:
        settable(base, remedy)
        now = config.get("gradients.clip.threshold")
        assert now is None or remedy.config["gradients.clip.threshold"] < now


@pytest.mark.parametrize(
    "base", [[f"schedule.name={s}"] for s in SCHEDULES] + [[f"gradients.clip.name={c}"] for c in CLIPS]
)
@pytest.mark.parametrize("fault", ["spikes", "divergence", "overfitting"])
def test_what_is_proposed_can_be_set_whatever_the_schedule_and_the_clip(base: list[str], fault: str) -> None:
    loss, validation = falling(1000), None
    if fault == "spikes":
        for at in (300, 500, 700):
            loss[at : at + 6] += 4
    elif fault == "divergence":
        loss[600:] += np.linspace(0, 6, 400)
    else:
        validation = {step: 4.0 + abs(step - 400) / 400 for step in range(100, 1001, 100)}
    facts = {"parameters": {"total": 1_300_000, "non_embedding": 800_000}, "optimizer": "adamw"}
    config = flatten(load_config("gpt-1m", base))
    findings = diagnose(case_of(loss, validation=validation, config=config, facts=facts)).findings
    remedies = [remedy for finding in findings for remedy in finding.remedies if remedy.config]
    assert remedies
    for remedy in remedies:
        settable(base, remedy)


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


@pytest.mark.parametrize(
    ("per_epoch", "said"), [(10_000.0, "more data would"), (100_000.0, "more steps would"), (None, "more steps")]
)
def test_a_loss_that_still_falls_on_text_seen_often_wants_more_text(per_epoch: float | None, said: str) -> None:
    facts = {} if per_epoch is None else {"tokens_per_epoch": per_epoch}
    validation = {step: 5.0 - step / 100 for step in range(20, 201, 20)}
    case = case_of(falling(200), validation=validation, facts=facts, tokens=np.full(200, 1000.0))
    text = summarize(case, "healthy", [], [])
    assert "The validation loss was still falling at the end" in text
    assert said in text
    assert sentences(text) is not None


@pytest.mark.parametrize(("per_epoch", "first"), [(1e9, "train longer"), (3e5, "train longer"), (2e4, "more text, as")])
def test_what_stopped_too_early_is_not_told_to_learn_by_heart(per_epoch: float, first: str) -> None:
    facts = {"parameters": {"total": 1_000_000}, "tokens_per_epoch": per_epoch}
    case = case_of(np.linspace(5.5, 5.2, 200), facts=facts, tokens=np.full(200, 1000.0))
    remedies = list(_remedies(case, 0.2))
    assert remedies[0].summary.startswith(first)
    assert any(one.summary.startswith("more text, as") for one in remedies) == (per_epoch < 1e9)
    steps = [one.config["training.steps"] for one in remedies if "training.steps" in one.config]
    assert all(number * 1000.0 <= 4.0 * per_epoch for number in steps)


TRAINERS = {
    "nanogpt": ("learning_rate = 0.01", "iter {step}: loss {loss}, time 135.20ms, mfu 37.50%", "learning_rate"),
    "megatron": (
        "using torch.bfloat16",
        "iteration {step:>8}/ 4000 | consumed samples: {step} | learning rate: 1.0E-02 | lm loss: {loss} |",
        "--lr",
    ),
    "mmengine": (
        "",
        "07/01 20:41:31 - mmengine - INFO - Iter(train) [{step:>5}/4000]  lr: 1.0e-02  loss: {loss}",
        "optimizer.lr",
    ),
    "huggingface": (
        "",
        "{{'loss': {loss}, 'grad_norm': 1.5, 'learning_rate': 0.01, 'epoch': {step}}}",
        "learning_rate",
    ),
    "text": ("", "step {step} | loss {loss} | lr 1.00e-02", "lr"),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_rate_is_set_in_the_words_of_the_trainer_that_printed_the_log(tmp_path: Path, trainer: str) -> None:
    above, line, name = TRAINERS[trainer]
    noise = np.random.default_rng(1).normal(0, 0.03, 400)
    loss = 3.0 + 5.0 * np.exp(-np.arange(400) / 40) + noise + np.clip(0.05 * (np.arange(400) - 200), 0, 8)
    rows = [line.format(step=10 * at + 10, loss=f"{value:.4f}") for at, value in enumerate(loss)]
    (tmp_path / "a.log").write_text("\n".join([above, *rows]) + "\n")
    case, _ = open_foreign_case(tmp_path / "a.log")
    assert case.target == trainer
    finding = diagnose(case).findings[0]
    assert finding.code == "divergence"
    changed = {key: value for remedy in finding.remedies for key, value in remedy.config.items()}
    assert [value for key, value in changed.items() if key.endswith(name)] == [0.003]
    assert name in fixed_file(fix_elsewhere(diagnose(case)), diagnose(case), case.target)


def test_every_target_has_names_that_a_report_can_tell() -> None:
    targets = set(get_args(Target))
    assert {target for names in NAMES.values() for target in names} == targets == words.TARGETS.keys()
