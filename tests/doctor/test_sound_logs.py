"""Sound runs as other trainers log them, by epochs, short, rounded, of samples that are mixed: none gets a warning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, noise_of

from trimtab.doctor import Diagnosis
from trimtab.doctor.diagnose import ask, diagnose
from trimtab.doctor.finding import Finding, Withheld
from trimtab.doctor.load import open_foreign_case


def judged(folder: Path, columns: Mapping[str, Sequence[Any] | Array], decimals: int = 4) -> Diagnosis:
    """What is said of a table with these columns."""
    file = folder / "log.csv"
    whole = ("step", "epoch")
    rows = [
        ",".join(
            str(int(value)) if name in whole else "" if math.isnan(value) else f"{value:.{decimals}f}"
            for name, value in zip(columns, row, strict=True)
        )
        for row in zip(*columns.values(), strict=True)
    ]
    file.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return diagnose(open_foreign_case(file)[0])


def warned(diagnosis: Diagnosis) -> list[str]:
    return [finding.code for finding in diagnosis.findings if finding.severity != "info"]


@pytest.mark.parametrize(("epochs", "gap", "seed"), [(5, 1.5, 0), (30, 1.0, 1), (90, 1.0, 2)])
def test_a_steady_gap_in_a_log_by_epochs_is_no_other_data(tmp_path: Path, epochs: int, gap: float, seed: int) -> None:
    at = np.arange(1, epochs + 1)
    training = 0.3 + 1.7 * at**-0.7
    scatter = np.exp(0.004 * noise_of(epochs, seed))
    columns = {"epoch": at, "loss": training, "val_loss": (training + gap * 0.3) * scatter}
    assert warned(judged(tmp_path, columns)) == []


def test_a_first_loss_that_is_the_mean_of_an_epoch_says_nothing_of_the_initialization(tmp_path: Path) -> None:
    at = np.arange(1, 101)
    training = 1.0 + 4.6 * at**-0.65
    accuracy = np.clip(0.78 - 0.6 * at**-0.8, 0.0, 1.0)
    columns = {"epoch": at, "loss": training, "accuracy": accuracy, "val_loss": training, "val_accuracy": accuracy}
    assert warned(judged(tmp_path, columns)) == []


def test_epochs_are_not_few_steps(tmp_path: Path) -> None:
    at = np.arange(1, 9)
    training = 0.4 + 1.6 * at**-0.1
    columns = {"epoch": at, "loss": training, "val_loss": training * 1.01, "lr": np.full(8, 0.001)}
    assert warned(judged(tmp_path, columns)) == []


@pytest.mark.parametrize("times", [2, 3])
def test_samples_that_are_mixed_make_no_sum_over_micro_batches(tmp_path: Path, times: int) -> None:
    at = np.arange(1, 61)
    clean = 0.4 + 1.3 * at**-0.5
    mixed = (times - 0.1) * clean + 0.05
    columns = {"epoch": at, "loss": mixed * np.exp(0.01 * noise_of(60)), "val_loss": clean}
    assert warned(judged(tmp_path, columns)) == []


def test_mixed_samples_of_three_classes_are_no_second_softmax(tmp_path: Path) -> None:
    at = np.arange(1, 41)
    columns = {
        "epoch": at,
        "loss": 0.6 + 0.47 * at**-0.8,
        "val_loss": 0.12 + 0.4 * at**-0.8,
        "val_accuracy": 0.97 - 0.3 * at**-0.8,
    }
    assert warned(judged(tmp_path, columns)) == []


@pytest.mark.parametrize("seed", range(6))
def test_fine_tuning_that_gains_all_in_its_first_steps_is_no_plateau(seed: int) -> None:
    at = np.arange(1, 401)
    case = case_of(1.5 + 0.5 * np.exp(-at / 8) + 0.05 * noise_of(400, seed))
    assert warned(diagnose(case)) == []


def test_a_loss_that_was_rounded_to_nothing_is_not_judged(tmp_path: Path) -> None:
    at = np.arange(1, 401)
    error = 0.02 * (1 + at / 5) ** -0.9
    measured = np.where(at % 20 == 0, error, np.nan)
    columns = {"step": at, "loss": error, "val_loss": measured}
    assert warned(judged(tmp_path, columns, decimals=2)) == []
    assert warned(judged(tmp_path, columns, decimals=6)) == []


def test_a_language_model_whose_validation_loss_stands_has_no_random_labels(tmp_path: Path) -> None:
    at = np.arange(1, 241)
    training = 1.61 * 0.75 ** np.floor((at - 1) / 60) + 0.02 * noise_of(240)
    measured = np.where(at % 20 == 0, 1.63 - 0.0001 * at, np.nan)
    diagnosis = judged(tmp_path, {"step": at, "loss": training, "val_loss": measured})
    assert "random-labels" not in warned(diagnosis)


@pytest.mark.parametrize("seed", range(8))
def test_noise_in_proportion_to_a_high_first_loss_is_no_damage(seed: int) -> None:
    at = np.arange(1, 1001)
    level = 0.3 + 1.3 * np.exp(-at / 150)
    case = case_of(level * np.exp(0.2 * noise_of(1000, seed)), rates=np.full(1000, 1e-4))
    assert "missing-warmup" not in warned(diagnose(case))


@pytest.mark.parametrize("seed", range(4))
def test_the_last_digit_makes_no_evaluation_scatter(tmp_path: Path, seed: int) -> None:
    at = np.arange(1, 301)
    training = (0.04 + 0.06 * np.exp(-at / 20)) * np.exp(0.02 * noise_of(300, seed))
    measured = np.where(at % 30 == 0, training, np.nan)
    columns = {"step": at, "loss": training, "val_loss": measured, "lr": np.full(300, 0.01)}
    assert warned(judged(tmp_path, columns, decimals=2)) == []


def test_a_validation_loss_of_nothing_fails_no_rule() -> None:
    case = case_of(np.zeros(40), validation={10: 0.0, 20: 0.0, 30: 1.0, 40: 1.0})
    said = [*ask("over-regularised", case)]
    assert not any("failed" in need for one in said if isinstance(one, Withheld) for need in one.needs)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_without_a_number_fails_no_rule(value: float) -> None:
    case = case_of(np.full(200, value))
    said: list[Finding | Withheld] = [*ask("corrupt-batch", case)]
    assert said == []


def test_what_is_first_evaluated_after_several_passes_is_learned_by_heart_and_no_other_data() -> None:
    at = np.arange(1, 1001)
    training = 0.3 * np.exp(-at / 120) + 1e-4
    validation = {step: 0.32 + 0.1 * (1 - math.exp(-step / 400)) for step in range(200, 1001, 200)}
    findings = diagnose(case_of(training, validation=validation, facts={"epochs": 38.0})).findings
    assert findings[0].code == "overfitting"
    assert "validation-shift" not in findings[0].consequences


def test_an_unsteady_validation_loss_that_doubles_is_overfitting(tmp_path: Path) -> None:
    at = np.arange(1, 61)
    training = 0.01 + 1.2 * np.exp(-at / 12)
    validation = (0.65 + 0.7 * np.exp(-at / 2) + 0.025 * np.maximum(at - 12, 0)) * np.exp(0.14 * noise_of(60, 3))
    assert warned(judged(tmp_path, {"epoch": at, "loss": training, "val_loss": validation}))[0] == "overfitting"
