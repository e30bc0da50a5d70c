"""The three sentences say what is so: where a loss ended, how many steps there were, what became of the weights."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from cases import case_of, cosine, falling, noise_of

from trimtab.doctor import Case
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.epochs import in_epochs
from trimtab.doctor.load import open_foreign_case
from trimtab.doctor.order import with_order
from trimtab.doctor.schema import DIAGNOSIS_SCHEMA
from trimtab.events import RunEnded
from trimtab.report import render_markdown, render_report, render_text
from trimtab.report.gather import gather
from trimtab.report.words import verdict_of
from trimtab.runs.history import History

LN2 = float(np.log(2))


def summary(case: Case) -> str:
    """In one line."""
    return diagnose(case).summary


@pytest.mark.parametrize("steps", [400, 20_000])
def test_a_loss_that_is_lost_is_told_with_the_step(steps: int) -> None:
    loss = falling(steps)
    loss[steps // 2 :] = np.nan
    told = summary(case_of(loss, rates=cosine(steps)))
    if steps < 4_096:
        last = f"{loss[steps // 2 - 1]:.4f}"
        assert f"to {last} at step {steps // 2:,}, and is not finite since step {steps // 2 + 1:,}" in told
    assert "not finite since step" in told
    assert "last twentieth" not in told
    once = falling(steps)
    once[steps // 2] = np.nan
    assert "not finite since" not in summary(case_of(once)).split(".")[0]


@pytest.mark.parametrize(
    ("steps", "said"), [(range(0, 2001, 10), "2,000"), (range(200), "200"), (range(1, 201), "200")]
)
def test_steps_are_those_that_were_done(steps: range, said: str) -> None:
    history = History()
    history.add("train/loss", np.array(steps), falling(len(steps)))
    assert summary(Case(history)).startswith(f"In {said} steps ")


@pytest.mark.parametrize(("best", "verdict"), [(250, "healthy"), (150, "attention")])
def test_restored_weights_are_told_beside_a_healthy_verdict(best: int, verdict: str) -> None:
    validation = {at: 0.35 + 0.3 * abs(at - best) / 250 for at in range(50, 401, 50)}
    loss = 0.001 + np.exp(-np.arange(1, 401) / 40)
    case = case_of(loss, validation=validation)
    assert diagnose(case).verdict == "attention"
    case.history.observe(RunEnded(400, "finished", "done", best, 0.35, best, 1.0))
    diagnosis = diagnose(case)
    # Where more than half of the steps were spent after the best one, that is worth a warning.
    assert (diagnosis.verdict, diagnosis.findings[0].code) == (verdict, "overfitting")
    told = f"It overfitted from step {best} on, and the best weights, of step {best}, were restored"
    assert (told in diagnosis.summary) == (verdict == "healthy")


def few_texts(validation: dict[int, float], per_epoch: float) -> Case:
    """A language model after 150 steps of 1,000 tokens, worse than counting pairs, whose training loss still falls."""
    yardsticks = {"bigram": 4.0 / LN2, "unigram": 6.0 / LN2, "judged_tokens": 100, "judged_bytes": 100}
    facts = {
        "parameters": {"total": 9e5},
        "yardsticks": yardsticks,
        "tokenizer": {"vocabulary_size": 1024},
        "task": "causal_lm",
        "tokens_per_epoch": per_epoch,
    }
    case = case_of(np.linspace(7.0, 3.0, 150), validation=validation, tokens=np.full(150, 1000.0), facts=facts)
    bits = np.array(list(validation.values())) / LN2
    case.history.add("validation/bits_per_byte", np.array(list(validation)), bits)
    return case


def test_a_validation_loss_that_turned_is_no_matter_of_steps() -> None:
    turned = {25: 5.7, 50: 5.2, 75: 5.0, 100: 4.97, 125: 4.99, 150: 5.0}
    diagnosis = diagnose(few_texts(turned, 8_000.0))
    assert "stopped-too-early" not in {one.code for one in diagnosis.findings}
    assert "more text, as this was read 19 times" in diagnosis.summary
    (told,) = [one for one in diagnose(few_texts(turned, 1e6)).findings if one.code == "stopped-too-early"]
    assert "still falling" not in told.cause
    fell = {25: 5.7, 50: 5.2, 75: 5.0, 100: 4.97, 125: 4.9, 150: 4.85}
    (told,) = [one for one in diagnose(few_texts(fell, 8_000.0)).findings if one.code == "stopped-too-early"]
    assert "still falling" in told.cause
    assert not any("e+0" in remedy.summary for remedy in told.remedies)


def test_a_run_that_is_over_and_worse_than_counting_is_not_called_healthy() -> None:
    fell = {25: 5.7, 50: 5.2, 75: 5.0, 100: 4.97, 125: 4.9, 150: 4.85}
    diagnosis = diagnose(few_texts(fell, 1e6))
    assert (diagnosis.verdict, diagnosis.beaten_by) == ("healthy", "counting pairs of tokens")
    assert render_text(diagnosis).startswith("a run without a name: no fault found, but it learned little (")
    jsonschema.validate(diagnosis.to_json(), DIAGNOSIS_SCHEMA)
    # One that goes on, or comes below the yardstick, may be.
    running = few_texts(fell, 1e6)
    running.history.total_steps = 1000
    below = diagnose(few_texts({step: loss - 1.0 for step, loss in fell.items()}, 1e6))
    assert diagnose(running).beaten_by == below.beaten_by == ""
    assert verdict_of(below) == "Healthy"


def test_a_log_by_epoch_is_told_of_in_epochs(tmp_path: Path) -> None:
    """Its rows are epochs: no sentence, heading or figure calls them steps."""
    epochs = np.arange(1, 41)
    validation = 1.2 + 0.8 * np.exp(-epochs / 4) + 0.02 * np.maximum(0, epochs - 12)
    rows = [f"{e},{2 * np.exp(-e / 8):.4f},{v:.4f}" for e, v in zip(epochs, validation, strict=True)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["epoch,loss,val_loss", *rows]) + "\n")
    case, _ = open_foreign_case(path)
    diagnosis = with_order(case, diagnose(case, "log"))
    assert (diagnosis.findings[0].code, diagnosis.unit) == ("overfitting", "epoch")
    jsonschema.validate(diagnosis.to_json(), DIAGNOSIS_SCHEMA)
    report = gather(None, case, diagnosis)
    for page in (render_text(diagnosis), render_report(report), render_markdown(report)):
        assert "epoch 12" in page or "epoch 13" in page
        assert not re.search(r"\bsteps? \d|\d steps?\b|best step", page), page
    assert in_epochs("in 11 of 30 steps, the best step 4, 2 step seconds; step_seconds, stepwise") == (
        "in 11 of 30 epochs, the best epoch 4, 2 epoch seconds; step_seconds, stepwise"
    )
    assert diagnose(few_texts({25: 5.7, 50: 5.2}, 1e6)).unit == "step"


def test_noise_is_held_against_what_it_is_a_part_of() -> None:
    level = 0.03 + 1.5 * np.exp(-np.arange(400) / 30)
    learned = np.abs(level + 0.12 * noise_of(400) * (level > 0.05))
    assert "noisy-loss" not in {one.code for one in diagnose(case_of(learned)).findings}
    loud = np.abs(level + 0.3 + 0.12 * noise_of(400))
    (told,) = [one for one in diagnose(case_of(loud)).findings if one.code == "noisy-loss"]
    assert "of half of all that the loss fell" in told.evidence[0].text


def test_one_evaluation_is_one() -> None:
    case = case_of(falling(100))
    split = {"evaluation": 80.0, "productive": 50.0}
    case.history.observe(RunEnded(100, "finished", "done", None, None, None, 130.0, split))
    case.history.evaluation_seconds.append(80.0)
    (told,) = [one for one in diagnose(case).findings if one.code == "evaluation-bound"]
    assert told.evidence[0].text.startswith("1 evaluation took")
