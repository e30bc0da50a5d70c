"""Logs of others that are short or have a value for many steps: what their clocks, resumes and hard batches tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import falling, noise_of

from trimtab.doctor import Case, open_foreign_case
from trimtab.doctor.diagnose import diagnose, findings_of
from trimtab.runs.importers.printed import settings_in


def opened(path: Path, lines: list[str]) -> Case:
    path.write_text("\n".join(lines) + "\n")
    return open_foreign_case(path)[0]


def loud(case: Case) -> set[str]:
    return {one.code for one in findings_of(case)[0] if one.severity != "info"}


@pytest.mark.parametrize(("seconds", "is_told"), [(1.9, True), (0.1, False)])
def test_evaluations_that_take_longer_than_training(tmp_path: Path, seconds: float, is_told: bool) -> None:
    lines = []
    for step in range(10, 301, 10):
        lines.append(f'{{"step": {step}, "loss": {3 + 10 / step:.3f}, "step_time": 0.1}}')
        lines.append(f'{{"step": {step}, "val_loss": {3 + 10 / step:.3f}, "dev_time": {seconds}}}')
    told = [one for one in findings_of(opened(tmp_path / "log.jsonl", lines))[0] if one.code == "evaluation-bound"]
    assert [(one.severity, one.confidence) for one in told] == [("warning", 0.6)] * is_told, "other warnings go before"


@pytest.mark.parametrize("name", ["tokens_per_sec", "pace", "perf/images_per_second"])
@pytest.mark.parametrize(("factor", "is_told"), [(2.0, True), (1.0, False)])
def test_few_means_of_a_pace_that_falls(tmp_path: Path, factor: float, is_told: bool, name: str) -> None:
    paces = 1000.0 / np.linspace(1.0, factor, 18) * (1 + 0.01 * noise_of(18))
    lines = [f"step {50 * (at + 1)} loss {3 - at / 20:.3f} {name}={pace:.1f}" for at, pace in enumerate(paces)]
    case = opened(tmp_path / "run.log", lines)
    assert ("throughput-decay" in loud(case)) == is_told
    told = [one.evidence[0].text for one in findings_of(case)[0] if one.code == "throughput-decay"]
    assert all(text.startswith("875 a second were done in the first eighth and 505 in the last") for text in told), told


@pytest.mark.parametrize("name", ["batch_tokens", "tokens_per_step", "context_length", "wpb", "num_tokens"])
def test_a_pace_that_falls_as_batches_grow(tmp_path: Path, name: str) -> None:
    paces = np.linspace(5.2e4, 3.0e4, 120) * (1 + 0.01 * noise_of(120))
    sizes = np.repeat([512, 1024, 2048], 40)
    rows = [
        f"step {10 * (at + 1)} loss {3 - at / 100:.3f} tokens_per_sec={pace:.1f} {name}={size}"
        for at, (pace, size) in enumerate(zip(paces, sizes, strict=True))
    ]
    assert "throughput-decay" not in loud(opened(tmp_path / "run.log", rows))


@pytest.mark.parametrize("grows", [True, False])
def test_what_was_read_up_to_a_step_tells_what_there_was_to_do_in_it(tmp_path: Path, grows: bool) -> None:
    more = np.linspace(1.0, 1.8, 120)
    seen = np.cumsum(2000 * (more if grows else np.ones(120)))
    rows = [
        f"step {at + 1} loss {3 - at / 100:.3f} step_time={0.1 * more[at]:.4f} tokens_seen={seen[at]:.0f}"
        for at in range(120)
    ]
    assert ("throughput-decay" in loud(opened(tmp_path / "run.log", rows))) != grows


@pytest.mark.parametrize(("said", "is_told"), [("resumed from checkpoint at step 203", True), ("all is well", False)])
def test_a_line_that_says_that_the_run_was_resumed(tmp_path: Path, said: str, is_told: bool) -> None:
    loss = falling(40, noise=0.02)
    loss[20:] += np.linspace(1.2, 0.8, 20)
    lines = [f"step: {10 * (at + 1)}, loss: {value:.4f}" for at, value in enumerate(loss)]
    lines.insert(20, said)
    assert ("resume-discontinuity" in loud(opened(tmp_path / "run.log", lines))) == is_told


def test_a_clock_that_begins_anew_is_a_resume(tmp_path: Path) -> None:
    rows = [f"{step},{3 + 20 / (step + 9):.4f},{step if step <= 50 else step - 48}" for step in range(1, 101)]
    case = opened(tmp_path / "log.csv", ["step,loss,elapsed", *rows])
    assert [start.resumed_from for start in case.history.starts] == [51]


def test_units_that_are_dead_in_a_foreign_log_explain_the_jump_where_they_died(tmp_path: Path) -> None:
    rows = []
    for step, value in enumerate(falling(120, floor=1.0, noise=0.02), 1):
        dead = 0.9 if step > 60 else 0.05
        rows.append(f"{step},{value + (4.0 if 60 < step < 70 else 0.0):.4f},{dead},{dead}")
    case = opened(tmp_path / "log.csv", ["step,loss,dead_fraction/blocks.0,dead_fraction/blocks.1", *rows])
    first = diagnose(case).findings[0]
    assert (first.code, first.severity) == ("dead-units", "warning")
    assert "loss-spike" in first.consequences


def hard(tmp_path: Path, places: tuple[int, ...], *, lasting: int = 1) -> Case:
    loss = falling(400, noise=0.02)
    for place in places:
        loss[place : place + lasting] += 1.7
    return opened(tmp_path / "log.csv", ["step,loss", *(f"{at + 1},{value:.4f}" for at, value in enumerate(loss))])


def test_several_batches_that_are_made_good_at_once_are_no_warning_and_spikes_that_last_are(tmp_path: Path) -> None:
    assert "loss-spike" not in loud(hard(tmp_path, (120, 171, 260, 290, 333, 350, 371)))
    assert "loss-spike" in loud(hard(tmp_path, (120, 180, 260), lasting=5))


def test_the_restart_of_a_schedule_that_is_logged_is_no_spike(tmp_path: Path) -> None:
    at = np.arange(200)
    fall = 0.5 * (1 + np.cos(np.pi * at / 200))
    rates = 1e-2 * np.concatenate([fall, fall]) + 1e-5
    loss = falling(400, noise=0.02)
    loss[200:230] += np.linspace(1.5, 0.0, 30)
    burst = 1e-2 * 0.5 * (1 + np.cos(np.pi * np.arange(400) / 400)) + 1e-5
    burst[200:206] *= 3
    for name, values, is_told in (("restart", rates, False), ("burst", burst, True)):
        rows = [f"{step + 1},{one:.4f},{rate:.6f}" for step, (one, rate) in enumerate(zip(loss, values, strict=True))]
        case = opened(tmp_path / f"{name}.csv", ["step,loss,lr", *rows])
        assert ("loss-spike" in loud(case)) == is_told, name


def test_a_damaged_batch_in_rows_that_evaluations_stand_between(tmp_path: Path) -> None:
    lines = []
    for at, value in enumerate(falling(200, noise=0.02)):
        lines.append(f"{{'loss': {value + (4.0 if at == 150 else 0.0):.4f}, 'epoch': {at / 100:.2f}}}")
        if at % 20 == 19:
            lines.append(f"{{'eval_loss': {value:.4f}, 'eval_runtime': 0.7, 'epoch': {at / 100:.2f}}}")
    assert "corrupt-batch" in loud(opened(tmp_path / "run.log", lines))


def test_a_bar_of_the_whole_run_counts_steps(tmp_path: Path) -> None:
    lines = []
    for step in range(1, 61):
        lines.append(f"Training: {step * 100 // 60}%|█ | {step}/60 [00:01<00:06, 8.1it/s, loss={2 - step / 60:.3f}]")
        if step % 10 == 0:
            lines.append(f"step {step} val_loss={2.1 - step / 60:.3f}")
    case = opened(tmp_path / "run.log", lines)
    loss, validation = case.loss(), case.validation_loss()
    assert loss is not None
    assert validation is not None
    assert loss.steps.tolist() == list(range(1, 61))
    assert validation.steps.tolist() == list(range(10, 61, 10))


HALF_WAVE = [0.5 * (1 + np.cos(np.pi * part)) for part in np.linspace(0.05, 1.0, 20)]


@pytest.mark.parametrize(
    ("header", "rates", "is_told"),
    [
        ("Namespace(max_steps=200, lr_scheduler_type='cosine', warmup_steps=0)", HALF_WAVE, False),
        ("max_steps: 200\nlr_scheduler_type: cosine", [0.5 * (1 + np.cos(0.2 * np.pi * at)) for at in range(20)], True),
        ("max_steps: 200\nlr_scheduler_type: cosine_with_restarts", [*HALF_WAVE[::2], *HALF_WAVE[::2]], False),
        ("max_steps: 200\nlr_scheduler_type: SchedulerType.LINEAR", np.linspace(1.0, 0.7, 20), True),
        ("max_steps: 600\nlr_scheduler_type: linear", np.linspace(1.0, 0.67, 20), False),  # it was stopped
        ("max_steps: 200\nlr_scheduler_type: linear", np.maximum(np.linspace(1.0, -3.0, 20), 0.0), False),  # too soon
        ("max_steps: 200", np.minimum(np.linspace(0.1, 1.5, 20), 1.0), True),  # a warm-up of two thirds
        ("max_steps: 600", np.minimum(np.linspace(0.1, 1.5, 20), 1.0), False),
        ("max_steps: 200\nnoise schedule: cosine", np.ones(20), False),
        ("max_steps: 200\nlr_scheduler: cosine", np.ones(20), True),
        ("max_steps: 200\nlr_schedule: linear", np.linspace(1.0, 0.5, 20), True),
        ("max_steps: 200\nlr_schedule: linear\nmin_lr: 5e-4", np.linspace(1.0, 0.5, 20), False),
        ("max_steps: 200\nlr_schedule: linear", np.linspace(1.0, 0.25, 20), False),
        ("max_steps: 200\nlr_schedule: linear\nend_factor: 0.5", np.linspace(1.0, 0.5, 20), False),
        ("max_steps: 200\ndiscriminator:\n  optimizer:\n    lr_scheduler: linear", np.ones(20), False),
        ("max_steps: 200\ntraining:\n  optimizer:\n    lr_scheduler: linear", np.ones(20), True),
        ("train_iters: 200\nlr_decay_iters: 400\nlr_decay_style: linear", np.linspace(1.0, 0.5, 20), False),
        ("max_steps: 200\nlr_scheduler_type: linear\nscheduler: WarmupLR", np.ones(20), False),
    ],
)
def test_rates_beside_the_schedule_that_a_log_prints(
    tmp_path: Path, header: str, rates: list[float], is_told: bool
) -> None:
    lines = [f"step: {10 * (at + 1)}, loss: {3 - at / 20:.3f}, lr: {1e-3 * rate:.3e}" for at, rate in enumerate(rates)]
    case = opened(tmp_path / "run.log", [*header.split("\n"), *lines])
    assert ("schedule-mismatch" in loud(case)) == is_told


@pytest.mark.parametrize(
    ("head", "planned"),
    [
        ("max_steps: 10,000", 10_000),
        ("max_steps=251, total_steps=1_000_000)", 251),
        ("total_steps: 1_000_000", 1_000_000),
        ('{"max_steps":10,"seed":3}', 10),
        ("TrainConfig(seed=1, max_steps=10)", 10),
        ("env max_steps: 500", None),
        ("EnvConfig(seed=1, max_steps=500)", None),
        ("env:\n  max_steps: 500", None),
        ("env:\n  seed: 1\ntrainer:\n  max_steps: 400", 400),
        ("eval max_steps=50", None),
        ("max_steps: 100 per episode", None),
        ("LinearLR(start_factor=0.1, total_iters=5)", None),
    ],
)
def test_steps_that_are_planned_are_those_of_the_run(head: str, planned: int | None) -> None:
    assert settings_in(head).get("planned_steps") == planned


@pytest.mark.parametrize(("waves", "is_told"), [(1.0, False), (0.4, False), (2.0, True)])
def test_rates_of_epochs_beside_a_schedule_whose_length_in_epochs_is_not_told(
    tmp_path: Path, waves: float, is_told: bool
) -> None:
    rates = [1e-3 * 0.5 * (1 + np.cos(np.pi * waves * epoch / 10)) for epoch in range(1, 11)]
    lines = [f"Epoch {at}/10 | train loss {3 - at / 9:.3f} | lr {rate:.3e}" for at, rate in enumerate(rates, 1)]
    case = opened(tmp_path / "run.log", ["args: {'max_steps': 480, 'lr_scheduler_type': 'cosine'}", *lines])
    assert ("schedule-mismatch" in loud(case)) == is_told


def test_a_bar_of_the_run_tells_how_long_it_was_planned(tmp_path: Path) -> None:
    bars = [f"Training:  1%|▏   | {at}/400 [00:10<01:00, 5.0it/s, loss={3 - at / 99:.3f}]" for at in range(20, 201, 20)]
    assert opened(tmp_path / "run.log", bars).planned_steps == 400
    assert opened(tmp_path / "other.log", ["max_steps: 210", *bars[:-1]]).planned_steps == 210
    near = opened(tmp_path / "near.log", ["max_steps: 210", *[bar.replace("/400", "/210") for bar in bars]])
    assert near.planned_steps == near.history.last_step == 200  # the next row would have come after the end


@pytest.mark.parametrize(("end", "told"), [(0.1, "loss-spike"), (0.6, "divergence")])
def test_a_loss_that_a_burst_of_the_rate_threw_up_diverged_where_it_stays(
    tmp_path: Path, end: float, told: str
) -> None:
    loss = falling(200, floor=1.0, noise=0.02)
    loss[120:] += 1e3 * np.maximum(np.exp(-np.arange(80) / 20), end)
    rates = np.full(200, 1e-3)
    rates[119:122] = 0.3
    rows = [f"{step},{one:.4f},{rate}" for step, (one, rate) in enumerate(zip(loss, rates, strict=True), 1)]
    assert findings_of(opened(tmp_path / "log.csv", ["step,loss,lr", *rows]))[0][0].code == told
