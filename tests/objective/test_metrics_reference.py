"""The metrics of classes and numbers against scikit-learn, scipy and torchmetrics, on whatever data, in any batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from trimtab.objective import ClassificationTask, CrossEntropy, Regression, RegressionTask
from trimtab.objective.calibration import calibration_error, reliability_curve, reliability_sums
from trimtab.signals import IGNORED, Batch, Task

metrics = pytest.importorskip("sklearn.metrics")
torchmetrics = pytest.importorskip("torchmetrics.functional")


def batch_of(targets: Tensor) -> Batch:
    rows = len(targets)
    zeros = torch.zeros(rows, 1, dtype=torch.int32)
    return Batch(zeros.long(), targets, zeros, zeros, torch.arange(rows), int((targets != IGNORED).sum()))


def measured(task: Task, output: Tensor, targets: Tensor, size: int) -> dict[str, float]:
    sums, count = torch.zeros(1, dtype=torch.float64), 0
    for first in range(0, len(targets), size):
        batch, part = batch_of(targets[first : first + size]), output[first : first + size]
        sums = sums + task.tally(part, batch, task.terms(part, batch))
        count += batch.count
    return task.metrics(sums.tolist(), count)


@settings(max_examples=60, deadline=None)
@example(classes=4, rows=23, size=1, seed=23, scale=8.0)
@given(st.integers(2, 6), st.integers(2, 60), st.integers(1, 61), st.integers(0, 2**31), st.floats(0.1, 8.0))
def test_classes(classes: int, rows: int, size: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=generator)
    targets = torch.randint(0, classes, (rows,), generator=generator)
    hidden = torch.rand(rows, generator=generator) < 0.2
    hidden[0] = False
    asked = torch.where(hidden, IGNORED, targets)
    found = measured(ClassificationTask(CrossEntropy(), classes, "classification"), logits, asked, size)
    wanted, said = targets[~hidden].numpy(), logits[~hidden].argmax(-1).numpy()
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(wanted, said))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(wanted, said, average="macro", zero_division=0.0))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(wanted, said), abs=1e-9)
    assert found["loss"] == pytest.approx(
        # scikit-learn clips probabilities below 2e-16, which logits that lie 37 apart give.
        float(torch.nn.functional.cross_entropy(logits[~hidden].double(), targets[~hidden])),
        rel=1e-5,
        abs=1e-6,  # what fp32 makes of a small loss
    )
    expected = torchmetrics.calibration_error(
        logits[~hidden].softmax(-1), targets[~hidden], task="multiclass", n_bins=15, norm="l1", num_classes=classes
    )
    assert found["calibration_error"] == pytest.approx(float(expected), abs=2e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.integers(1, 61), st.integers(0, 2**31), st.floats(-1e4, 1e4), st.floats(1e-3, 1e3))
def test_numbers(rows: int, size: int, seed: int, mean: float, deviation: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(rows, generator=generator)
    answers = 0.5 * targets + torch.randn(rows, generator=generator)
    found = measured(RegressionTask(Regression("mse"), mean, deviation), answers[:, None], targets, size)
    wanted, said = (one.double().numpy() * deviation + mean for one in (targets, answers))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(wanted, said), rel=1e-6)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(wanted, said), rel=1e-6)
    assert found["r2"] == pytest.approx(metrics.r2_score(wanted, said), rel=1e-5, abs=1e-6)
    assert found["pearson"] == pytest.approx(np.corrcoef(targets.double(), answers.double())[0, 1], abs=1e-6)


def test_one_answer_for_all_says_nothing_of_a_correlation() -> None:
    targets = torch.tensor([0.3, -0.2, 1.0])
    found = measured(RegressionTask(Regression("mse")), torch.full((3, 1), 0.25), targets, 2)
    assert np.isnan(found["pearson"])
    classes = measured(
        ClassificationTask(CrossEntropy(), 2, "classification"),
        torch.tensor([[1.0, 0.0]]).repeat(3, 1),
        torch.tensor([0, 1, 1]),
        2,
    )
    assert classes["mcc"] == 0.0


def test_a_reliability_curve_by_hand() -> None:
    """Of four sure at 0.9 three are right, of two at 0.6 one: (4 · 0.15 + 2 · 0.1) / 6; what is not counted is not."""
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6, 0.6, 0.3])
    right = torch.tensor([1, 1, 1, 0, 1, 0, 1]).bool()
    counted = torch.tensor([1, 1, 1, 1, 1, 1, 0]).bool()
    sums = reliability_sums(confidence, right, counted, bins=10).tolist()
    assert calibration_error(sums) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6, abs=1e-6)
    curve: list[dict[str, Any]] = reliability_curve(sums)
    assert [(one["count"], one["accuracy"]) for one in curve] == [(2, 0.5), (4, 0.75)]
    assert [one["confidence"] for one in curve] == pytest.approx([0.6, 0.9], abs=1e-6)
    assert calibration_error([0.0] * 30) == 0.0
    # Of a model that diverged a confidence is no number: the error is none either, and nothing is raised.
    lost = reliability_sums(torch.tensor([math.nan, 0.5]), right[:2], counted[:2]).tolist()
    assert math.isnan(calibration_error(lost))
