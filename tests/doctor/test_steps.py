"""Runs in which the steps go wrong get the name of what was planted, and sound ones that look like them no warning.

`runs/steps.tar.xz` is written by `benchmarks/doctor/steps_runs.py --pack`, which also made the runs: of trimtab's own
trainer, and of a bare loop that writes a CSV.
"""

from __future__ import annotations

import json
import tarfile
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, cosine, falling, noise_of
from ruamel.yaml import YAML

from trimtab.config import Config
from trimtab.doctor import Case, Diagnosis, Finding
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_case, open_foreign_case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.trends import parts_of
from trimtab.doctor.rules import RULES
from trimtab.events import Adjust, DecisionTaken, RunStarted
from trimtab.runs import RunDirectory
from trimtab.runs.history import Series

ARCHIVE = Path(__file__).parent / "runs" / "steps.tar.xz"


def _table() -> list[dict[str, Any]]:
    with tarfile.open(ARCHIVE) as archive:
        content = archive.extractfile("runs.json")
        assert content is not None
        table: list[dict[str, Any]] = json.load(content)["runs"]
        return table


TABLE = _table()
FAULTY = [pytest.param(run, id=run["name"]) for run in TABLE if run["truth"] != "healthy"]
SOUND = [pytest.param(run, id=run["name"]) for run in TABLE if run["truth"] == "healthy"]


@pytest.fixture(scope="session")
def diagnoses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Diagnosis]:
    folder = tmp_path_factory.mktemp("steps")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    found: dict[str, Diagnosis] = {}
    for run in TABLE:
        path = folder / run["set"] / run["name"]
        case = open_case(RunDirectory.open(path)) if path.is_dir() else open_foreign_case(path)[0]
        found[run["name"]] = diagnose(case, run["name"])
        if path.is_dir():
            _can_be_set(found[run["name"]], path)
    return found


def _can_be_set(diagnosis: Diagnosis, path: Path) -> None:
    """What is proposed is a configuration. Raises: AssertionError, ConfigError."""
    for finding in diagnosis.findings:
        for remedy in finding.remedies:
            if not remedy.config:
                continue
            values = YAML(typ="safe").load((path / "config.yaml").read_text())
            for key, value in remedy.config.items():
                assert remedy.target == "trimtab"
                *sections, name = key.split(".")
                section = reduce(lambda part, one: part[one], sections, values)
                if name == "name":
                    section.clear()  # another choice has settings of its own
                section[name] = value
            Config.model_validate(values)


@pytest.mark.parametrize("run", FAULTY)
def test_a_planted_fault_leads(diagnoses: dict[str, Diagnosis], run: dict[str, Any]) -> None:
    diagnosis = diagnoses[run["name"]]
    told = [(finding.severity, finding.code) for finding in diagnosis.findings]
    assert told, f"nothing was found: {run['sentence']}"
    lead = diagnosis.findings[0]
    assert lead.code == run["truth"], f"{told}: {run['sentence']}"
    assert lead.severity != "info", f"{told}: {run['sentence']}"
    assert abs(lead.onset_step - run["onset"]) <= max(30, 0.1 * run["steps"]), (lead.onset_step, run["onset"])
    assert any(item.observed is not None for item in lead.evidence)
    assert lead.remedies


@pytest.mark.parametrize("run", SOUND)
def test_a_sound_run_that_looks_like_it_gets_no_warning(diagnoses: dict[str, Diagnosis], run: dict[str, Any]) -> None:
    told = [(finding.severity, finding.code) for finding in diagnoses[run["name"]].findings]
    assert not [code for severity, code in told if severity != "info"], f"{told}: {run['sentence']}"


def test_no_rule_fails_on_any_run(diagnoses: dict[str, Diagnosis]) -> None:
    for name, diagnosis in diagnoses.items():
        failed = [item for item in diagnosis.withheld if any("failed" in need for need in item.needs)]
        assert not failed, (name, failed)


def test_every_code_of_steps_is_planted() -> None:
    assert {run["truth"] for run in TABLE} - {"healthy"} == {
        "missing-warmup",
        "exploding-gradients",
        "vanishing-gradients",
        "dead-units",
        "bad-initialization",
        "decayed-too-early",
        "schedule-mismatch",
        "gradients-not-cleared",
        "accumulation-not-normalised",
        "over-regularised",
        "resume-discontinuity",
        "throughput-decay",
        "memory-leak",
        "thread-oversubscription",
    }


# Laws that recorded runs are too few to show.


def said(case: Case, code: str) -> Finding | None:
    """The finding of one rule."""
    return next((one for one in RULES[code](case) if isinstance(one, Finding)), None)


def test_the_trend_of_parts_is_that_of_the_values() -> None:
    rising = Curve(np.arange(1, 401), np.linspace(1.0, 3.0, 400) + 0.01 * noise_of(400))
    parts = parts_of(rising)
    assert parts.steadiness == 1.0
    assert parts.growth == pytest.approx(2.75 / 1.25, rel=0.05)
    assert parts.largest_jump < 0.2
    jump = Curve(rising.steps, np.where(rising.steps > 200, 2.0, 1.0))
    assert parts_of(jump).largest_jump == 1.0
    assert abs(parts_of(Curve(rising.steps, noise_of(400) + 9.0)).steadiness) < 0.7


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_one_jump_of_the_seconds_of_a_step_are_no_decay(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    noisy = 0.1 * (1 + drawn.exponential(0.5, 800))
    assert said(case_of(falling(800), step_seconds=noisy), "throughput-decay") is None
    jump = noisy * np.where(np.arange(800) > 500, 2.0, 1.0)
    told = said(case_of(falling(800), step_seconds=jump), "throughput-decay")
    assert told is None or told.severity == "info"
    decay = noisy * np.linspace(1.0, 2.5, 800)
    told = said(case_of(falling(800), step_seconds=decay), "throughput-decay")
    assert told is not None
    assert told.severity == "warning"
    assert told.onset_step < 200


def test_a_batch_that_grows_is_counted_out_of_the_seconds_of_a_step() -> None:
    growth = np.linspace(1.0, 3.0, 800)
    seconds = 0.1 * growth * (1 + 0.02 * np.abs(noise_of(800)))
    assert said(case_of(falling(800), step_seconds=seconds, tokens=1000.0 * growth), "throughput-decay") is None
    assert said(case_of(falling(800), step_seconds=seconds), "throughput-decay") is not None


def test_memory_that_stands_after_a_while_is_no_leak() -> None:
    at = np.arange(600)
    stands = 1e9 * (1 + 0.5 * (1 - np.exp(-at / 80)))
    assert said(case_of(falling(600), memory_bytes=stands), "memory-leak") is None
    stairs = 1e9 + 1.5e8 * (at > 150) + 1.3e8 * (at > 450)  # what a first and a second save take and keep
    assert said(case_of(falling(600), memory_bytes=stairs), "memory-leak") is None
    assert said(case_of(falling(600), memory_bytes=np.full(600, 1e9)), "memory-leak") is None
    told = said(case_of(falling(600), memory_bytes=1e9 + 1e6 * at), "memory-leak")
    assert told is not None
    assert told.onset_step < 60
    late = said(case_of(falling(600), memory_bytes=1e9 + 2e6 * np.maximum(at - 200, 0)), "memory-leak")
    assert late is not None
    assert 180 <= late.onset_step <= 240


@pytest.mark.parametrize(("threads", "severity"), [(2, None), (5, "info"), (16, "warning")])
def test_threads_beyond_the_cores_are_told_on_a_processor(threads: int, severity: str | None) -> None:
    facts = {"cores": 4, "identity": {"plan.threads": threads}, "device": "cpu"}
    told = said(case_of(falling(100), facts=facts), "thread-oversubscription")
    assert (told and told.severity) == severity
    assert said(case_of(falling(100), facts=facts | {"device": "cuda:0"}), "thread-oversubscription") is None
    if told is not None:
        assert told.remedies[0].config == {"training.threads": 4}


def scheduled(name: str, factor: Array, **more: Any) -> Case:
    """A run whose settings plan a schedule by its defaults, and that was made at this part of the full rate."""
    config = {"schedule.name": name, "optimizer.learning_rate": 1e-3, "optimizer.name": "adamw", "seed": 0, **more}
    return case_of(falling(len(factor)), rates=1e-3 * factor, config=config)


def linear(steps: int, *, pace: float = 1.0, warmup: float = 0.02) -> Array:
    part = pace * np.arange(1, steps + 1) / steps
    return np.clip(np.minimum(part / warmup, (1 - part) / (1 - warmup)), 0.0, 1.0)


def test_a_rate_that_is_not_the_planned_one_is_told_and_how() -> None:
    sound = scheduled("linear", linear(400))
    assert said(sound, "schedule-mismatch") is None
    fast = said(scheduled("linear", linear(400, pace=2.0)), "schedule-mismatch")
    assert fast is not None
    assert "2 times as fast" in fast.cause
    high = said(scheduled("linear", 3.0 * linear(400)), "schedule-mismatch")
    assert high is not None
    assert "3 times as high" in high.cause


def test_what_controllers_put_on_the_rate_is_no_mismatch() -> None:
    factor = linear(400)
    factor[200:] *= 0.3
    case = scheduled("linear", factor)
    assert said(case, "schedule-mismatch") is not None
    case.history.observe(DecisionTaken(200, 199, "plateau", Adjust("flat", "learning_rate", 0.3)))
    assert said(case, "schedule-mismatch") is None


def test_a_line_laid_out_for_twice_the_steps_is_told_of_a_log_whose_length_is_known() -> None:
    line = 1e-3 * (1 - np.arange(400) / 800)
    history = case_of(falling(400), rates=line).history
    known = Case(history, {}, {"planned_steps": 400}, "huggingface")
    told = said(known, "schedule-mismatch")
    assert told is not None
    assert told.severity == "warning"
    assert "step 801" in told.cause
    unknown = said(Case(history, {}, {}, "text"), "schedule-mismatch")
    assert unknown is not None
    assert unknown.severity == "info"
    for sound in (
        1e-3 * (1 - np.arange(400) / 400),
        np.full(400, 1e-3),
        cosine(400),
        1e-3 / np.sqrt(np.arange(1, 401)),
    ):
        history = case_of(falling(400), rates=sound).history
        assert said(Case(history, {}, {"planned_steps": 400}, "text"), "schedule-mismatch") is None


def test_half_a_cosine_that_is_cut_or_gone_on_with() -> None:
    def half(length: int, steps: int = 400) -> Array:
        return 1e-3 * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / length))

    beyond = said(Case(case_of(falling(400), rates=half(250)).history, {}, {}, "text"), "schedule-mismatch")
    assert beyond is not None
    assert (beyond.severity, abs(beyond.onset_step - 251) <= 8) == ("warning", True)
    cut = case_of(falling(400), rates=half(900)).history
    for facts, severity in (({}, "info"), ({"planned_steps": 400}, "warning")):
        told = said(Case(cut, {}, facts, "text"), "schedule-mismatch")
        assert (told and told.severity) == severity
    again = said(Case(case_of(falling(400), rates=half(100)).history, {}, {}, "text"), "schedule-mismatch")
    assert again is not None, "waves that end high are not planned"
    for sound in (half(400), np.tile(half(100, 100), 4), half(80), 1e-4 + half(400)):
        history = case_of(falling(400), rates=sound).history
        assert said(Case(history, {}, {"planned_steps": 400}, "text"), "schedule-mismatch") is None


def test_a_schedule_is_told_from_few_rates_and_a_warm_up_by_its_stairs() -> None:
    def of(rates: Array, every: int, planned: int = 400) -> Case:
        history = case_of(falling(400), rates=rates).history
        kept = np.arange(every - 1, 400, every)
        history.series["learning_rate"] = Series()
        history.series["learning_rate"].append(kept + 1, rates[kept])
        return Case(history, {}, {"planned_steps": planned}, "text")

    cut = 1e-3 * 0.5 * (1 + np.cos(np.pi * np.arange(400) / 3000))
    stairs = 1e-3 * np.minimum(np.arange(400) // 65 + 1, 6) / 6
    for rates in (cut, stairs):
        told = said(of(rates, 25), "schedule-mismatch")
        assert told is not None
        assert told.severity == "warning"
        stopped = said(of(rates, 25, planned=4000), "schedule-mismatch")
        assert stopped is not None
        assert stopped.severity == "info"
    line = 1e-3 * np.minimum(np.arange(1, 401) / 100, 1.0)
    for rates in (cosine(400), np.full(400, 1e-3), line, 1e-3 * np.minimum(np.arange(400) // 20 + 1, 5) / 5):
        assert said(of(rates, 25), "schedule-mismatch") is None


@pytest.mark.parametrize("horizon", [100, 200, 280])
def test_a_rate_that_is_gone_long_before_the_end_is_told(horizon: int) -> None:
    rates = np.concatenate([cosine(horizon)[: horizon // 2], np.linspace(5e-4, 1e-6, horizon // 2)])
    rates = np.concatenate([rates, np.full(400 - horizon, 1e-6)])
    loss = falling(400, noise=0.03)
    loss[horizon:] = loss[horizon - 20 : horizon].mean() + 0.03 * noise_of(400 - horizon)
    told = said(case_of(loss, rates=rates), "decayed-too-early")
    assert told is not None
    assert abs(told.onset_step - horizon // 2) < 0.2 * 400


@pytest.mark.parametrize(
    "rates",
    [
        cosine(600),
        np.linspace(1e-3, 0.0, 600),
        np.repeat([1e-3, 1e-4, 1e-5], 200),
        np.concatenate([np.full(500, 1e-3), np.linspace(1e-3, 0, 100)]),
    ],
    ids=["cosine", "line", "stairs", "wsd"],
)
def test_usual_ends_of_schedules_are_not_too_early(rates: Array) -> None:
    assert said(case_of(falling(600), rates=rates), "decayed-too-early") is None


def test_a_rate_that_was_taken_down_where_the_loss_stood_is_a_remark_at_most() -> None:
    loss = np.concatenate([falling(150, floor=3.0), np.full(450, 3.2)]) + 0.03 * noise_of(600)
    loss[100:] = 3.2 + 0.03 * noise_of(500)
    rates = np.repeat([1e-3, 1e-4, 1e-5, 1e-6], [180, 40, 40, 340])
    told = said(case_of(loss, rates=rates), "decayed-too-early")
    assert told is None or told.severity == "info"


def test_a_gradient_that_leads_is_told_and_one_that_follows_is_not() -> None:
    grown = np.exp(np.minimum(np.maximum(np.arange(600) - 400, 0) / 10, 9.0))
    norms = (1 + 0.1 * np.abs(noise_of(600))) * grown
    loss = falling(600)
    loss[440:] += np.minimum(np.arange(160) / 20, 4.0)
    told = said(case_of(loss, grad_norm=norms), "exploding-gradients")
    assert told is not None
    assert 395 <= told.onset_step <= 425
    early = falling(600)
    early[370:] += np.minimum(np.arange(230) / 20, 4.0)
    assert said(case_of(early, grad_norm=norms), "exploding-gradients") is None
    assert said(case_of(falling(600), grad_norm=norms), "exploding-gradients") is None, "no loss followed"


def test_a_gradient_that_led_is_no_divergence() -> None:
    # Its noise hides for long how it grows; the loss is on its way when it is ten times as large.
    grown = np.exp(np.maximum(np.arange(200) - 80, 0) / 20)
    norms = np.exp(0.5 * noise_of(200)) * grown
    loss = falling(200, noise=0.05)
    loss[130:] += 0.4 * np.exp(np.arange(70) / 20)
    (lead, *_) = diagnose(Case(case_of(loss, grad_norm=norms).history, {}, {}, "text")).findings
    assert (lead.code, lead.consequences[:1]) == ("exploding-gradients", ("divergence",))
    # Both leave at once: where the gradient grows as the loss does it follows it, and it does not where far more.
    leaves = np.exp(np.maximum(np.arange(200) - 100, 0) / 20)
    validation = {step: float((leaves * falling(200, noise=0.0))[step - 1]) for step in range(5, 201, 5)}
    for pace, expected in ((6, True), (20, False)):
        norms = np.exp(0.1 * noise_of(200, 1) + np.maximum(np.arange(200) - 99, 0) / pace)
        case = case_of(leaves * falling(200, noise=0.3), validation=validation, grad_norm=norms)
        assert (said(case, "exploding-gradients") is not None) == expected


def test_a_gradient_that_grows_slowly_or_jumps_once_is_sound() -> None:
    slow = (1 + 0.2 * np.abs(noise_of(800))) * np.linspace(1.0, 6.0, 800)
    assert said(case_of(falling(800), grad_norm=slow), "exploding-gradients") is None
    single = 1 + 0.2 * np.abs(noise_of(800))
    single[300] = 80.0
    assert said(case_of(falling(800), grad_norm=single), "exploding-gradients") is None


def test_of_gradients_that_add_up_and_of_those_that_do_not() -> None:
    drawn = np.random.default_rng(0)
    gradients = 0.6 + drawn.normal(size=(400, 50))
    summed = np.linalg.norm(np.cumsum(gradients, axis=0), axis=1)
    told = said(case_of(falling(400), grad_norm=summed), "gradients-not-cleared")
    assert told is not None
    assert told.confidence > 0.8
    single = np.linalg.norm(gradients, axis=1)
    assert said(case_of(falling(400), grad_norm=single), "gradients-not-cleared") is None
    exploding = single * np.exp(np.arange(400) / 60)
    assert said(case_of(falling(400), grad_norm=exploding), "gradients-not-cleared") is None


@pytest.mark.parametrize("period", [2, 4, 8])
def test_of_gradients_that_are_cleared_now_and_then(period: int) -> None:
    gradients = 0.4 + np.random.default_rng(1).normal(size=(400, 50))
    sums = [np.linalg.norm(gradients[step - step % period : step + 1].sum(axis=0)) for step in range(400)]
    told = said(case_of(falling(400), grad_norm=np.array(sums)), "gradients-not-cleared")
    assert told is not None
    assert f"every {period} steps" in told.cause
    single = np.linalg.norm(gradients, axis=1)
    in_order = single * np.tile(np.exp(0.3 * noise_of(10, 3)), 40)  # an epoch of ten batches in a fixed order
    assert said(case_of(falling(400), grad_norm=in_order), "gradients-not-cleared") is None


@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_a_training_loss_that_is_a_multiple_of_the_validation_loss(times: int) -> None:
    validation = {step: float(falling(800, noise=0.0)[step - 1]) for step in range(80, 801, 80)}
    case = case_of(times * falling(800, noise=0.05), validation=validation)
    told = said(case, "accumulation-not-normalised")
    assert (told is not None) == (times > 1)
    if told is not None:
        assert f"{times} times" in told.cause
    lifted = case_of(falling(800, noise=0.05) + 4.0, validation=validation)
    assert said(lifted, "accumulation-not-normalised") is None, "a constant is no multiple"


def test_a_sum_over_many_is_told_from_few_rows_and_through_noise() -> None:
    steps = np.arange(15, 226, 15)
    level = np.array([float(falling(225, noise=0.0)[step - 1]) for step in steps])
    validation = dict(zip(steps.tolist(), level.tolist(), strict=True))
    for noise, times, expected in ((0.03, 8, True), (0.03, 1, False)):
        history = case_of(falling(225), validation=validation).history
        history.series["train/loss"] = Series()
        history.series["train/loss"].append(steps, times * level * (1 + noise * noise_of(len(steps))))
        told = said(Case(history, {}, {}, "text"), "accumulation-not-normalised")
        assert (told is not None) == expected
        assert told is None or told.severity == "warning"


def layered(ratios: Array, windows: int = 12) -> Case:
    """A stack whose layers have gradients of these norms, but for noise."""
    case = case_of(falling(240), rates=cosine(240))
    names = tuple(f"layer/blocks.{index}.weight/grad_norm" for index in range(len(ratios)))
    for window in range(1, windows + 1):
        case.history.layers.append(20 * window, names, ratios * np.exp(0.2 * noise_of(len(ratios), window)))
    return case


def test_gradients_that_fade_from_layer_to_layer() -> None:
    told = said(layered(10.0 ** np.linspace(-5, 0, 8)), "vanishing-gradients")
    assert told is not None
    assert told.severity == "warning"
    assert said(layered(np.ones(8)), "vanishing-gradients") is None
    assert said(layered(10.0 ** np.linspace(0, -5, 8)), "vanishing-gradients") is None, "late layers, not early ones"
    assert said(layered(np.array([0.0] * 4 + [1.0] * 4)), "vanishing-gradients") is None, "frozen"
    assert said(layered(np.array([1e-4] * 5 + [1.0])), "vanishing-gradients") is None, "a step behind a new head"


def resumed(loss: Array, at: int = 300, rates: Array | None = None) -> Case:
    case = case_of(loss, rates=rates)
    case.history.starts.append(RunStarted(at, 2, 1, at, len(loss)))
    return case


def test_a_jump_at_a_resume_is_told_and_a_jump_elsewhere_is_not() -> None:
    loss = falling(600, noise=0.05)
    assert said(resumed(loss), "resume-discontinuity") is None
    jumped = loss.copy()
    jumped[300:360] += np.linspace(1.5, 0.0, 60)
    told = said(resumed(jumped), "resume-discontinuity")
    assert told is not None
    assert (told.severity, told.onset_step) == ("warning", 301)
    assert said(resumed(jumped, at=150), "resume-discontinuity") is None
    anew = np.concatenate([cosine(600)[:300], cosine(600)[:300]])
    told = said(resumed(loss, rates=anew), "resume-discontinuity")
    assert told is not None
    assert "schedule" in told.cause


def begun(loss: Array, **facts: Any) -> Case:
    known = {"task": "causal_lm", "tokenizer": {"vocabulary_size": 2981}, **facts}  # ln V is 8
    return case_of(loss, rates=cosine(len(loss)), facts=known)


def test_a_first_loss_far_above_a_guess_is_told_unless_the_whole_loss_is() -> None:
    loss = falling(400)
    assert said(begun(loss), "bad-initialization") is None
    high = loss + 30.0 * np.exp(-np.arange(400) / 8)
    told = said(begun(high), "bad-initialization")
    assert told is not None
    assert told.onset_step == 1
    assert said(begun(4.0 * loss), "bad-initialization") is None, "summed, not drawn badly"
    assert said(begun(0.4 * loss), "bad-initialization") is None, "pretrained"
    for growth, is_told in ((1.5, False), (1e4, True), (1e-4, True), (None, True)):
        case = begun(loss, first_pass={"logits_std": 0.3, "activation_growth": growth})
        assert (said(case, "bad-initialization") is not None) == is_told, growth


def early_damage(height: float, settles: float = 40.0) -> Array:
    loss = falling(600, noise=0.05)
    loss[3:60] += height * np.exp(-np.arange(57) / settles)
    return loss


@pytest.mark.parametrize(("rates", "is_told"), [(np.full(600, 1e-3), True), (cosine(600, warmup=0.05), False)])
def test_early_damage_is_a_missing_warm_up_where_there_is_none(rates: Array, is_told: bool) -> None:
    told = said(case_of(early_damage(3.0), rates=rates), "missing-warmup")
    assert (told is not None) == is_told
    assert said(case_of(falling(600), rates=rates), "missing-warmup") is None


def test_a_loss_that_is_thrown_up_and_down_at_first_and_never_later() -> None:
    loss = falling(600, noise=0.05)
    loss[1:12] = [5.0, 7.5, 4.2, 7.0, 4.0, 8.3, 4.5, 6.5, 4.4, 5.5, 4.3]
    told = said(case_of(loss, rates=np.full(600, 1e-3)), "missing-warmup")
    assert told is not None
    assert told.onset_step <= 3
    noisy = falling(600, noise=0.9)
    assert said(case_of(noisy, rates=np.full(600, 1e-3)), "missing-warmup") is None


def test_a_rate_far_above_the_usual_is_too_high_and_not_only_too_early() -> None:
    facts = {"parameters": {"total": 1e6, "non_embedding": 8e5}, "optimizer": "adamw"}
    case = case_of(early_damage(3.0), rates=np.full(600, 5e-2), facts=facts)
    told = said(case, "missing-warmup")
    assert told is not None
    assert told.severity == "info"


def examined(fractions: list[float]) -> Case:
    case = case_of(falling(400), rates=cosine(400))
    for index, fraction in enumerate(fractions):
        names = tuple(f"layer/blocks.{layer}/dead_fraction" for layer in range(3))
        case.history.examined.append(80 * index + 20, names, np.array([fraction, fraction, fraction]))
    return case


@pytest.mark.parametrize(
    ("fractions", "severity"), [([0.0, 0.1, 0.2], None), ([0.0, 0.7, 0.8], "warning"), ([0.0, 0.8, 0.1], None)]
)
def test_units_that_say_nothing(fractions: list[float], severity: str | None) -> None:
    told = said(examined(fractions), "dead-units")
    assert (told and told.severity) == severity


def held_back(**settings: float) -> Case:
    facts = {"yardsticks": {"bigram": 4.0, "unigram": 5.0, "judged_tokens": 1000, "judged_bytes": 1000}}
    loss = falling(600, floor=4.0)
    case = case_of(
        loss, rates=cosine(600), validation=dict.fromkeys(range(60, 601, 60), 3.9), config=settings, facts=facts
    )
    for step in range(60, 601, 60):
        case.history.add("generalization_gap", np.array([step]), np.array([0.0]))
    return case


def test_a_model_that_is_held_back_by_its_settings() -> None:
    for settings, key in (
        ({"model.dropout.residual": 0.6, "optimizer.weight_decay": 0.1}, "model.dropout.residual"),
        ({"model.dropout.residual": 0.0, "optimizer.weight_decay": 5.0}, "optimizer.weight_decay"),
        ({"objective.label_smoothing": 0.5, "optimizer.weight_decay": 0.1}, "objective.label_smoothing"),
    ):
        told = said(held_back(**settings), "over-regularised")
        assert told is not None, settings
        assert key in told.remedies[0].config
    usual = held_back(
        **{"model.dropout.residual": 0.1, "optimizer.weight_decay": 0.1, "objective.label_smoothing": 0.1}
    )
    assert said(usual, "over-regularised") is None


def test_layers_are_told_in_the_forms_of_strangers(tmp_path: Path) -> None:
    names = [f"blocks.{layer}.linear.weight" for layer in range(4)]
    rows = range(10, 301, 10)
    norms = {"frozen-parameters": [0.0, 0.0, 0.0, 0.4], "vanishing-gradients": [1e-7, 1e-5, 1e-3, 0.4]}
    for code, each in norms.items():
        long = ["step,tag,value"]  # a value in a row, and no learning rate
        lines = []  # the side before the name
        for step in rows:
            loss, scale = 2.0 + np.exp(-step / 50), 1 + 0.1 * np.sin(step)
            long += [f"{step},train/loss,{loss:.5f}"]
            long += [f"{step},grad_norm/{name},{norm * scale:.5g}" for name, norm in zip(names, each, strict=True)]
            told = {f"grad_norm/{name}": norm * scale for name, norm in zip(names, each, strict=True)}
            lines.append(json.dumps({"mode": "train", "step": step, "loss": loss, **told}))
        for file, content in (("long.csv", long), ("log.jsonl", lines)):
            (tmp_path / file).write_text("\n".join(content) + "\n")
            findings = diagnose(open_foreign_case(tmp_path / file)[0]).findings
            assert findings, file
            assert (findings[0].code, findings[0].severity) == (code, "warning"), file
