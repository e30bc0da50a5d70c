"""Cross-entropy, smoothing and z-loss against torch, hand calculation and float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from trimtab.objective import CrossEntropy
from trimtab.signals import IGNORED


def _data(seed: int = 0, rows: int = 3, length: int = 5, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3.0 * torch.randn(rows, length, classes, generator=generator)
    targets = torch.randint(0, classes, (rows, length), generator=generator)
    targets[0, :2] = IGNORED
    return logits.requires_grad_(), targets


def test_worked_values() -> None:
    """-ln 0.7 = 0.357 and -ln 0.1 = 2.303."""
    logits = torch.log(torch.tensor([[[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]]))
    terms = CrossEntropy()(logits, torch.tensor([[0, 2]]))
    assert terms.losses.tolist()[0] == pytest.approx([0.35667, 2.30259], abs=1e-5)
    assert float(terms.scores["accuracy"]) == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), smoothing=st.sampled_from([0.0, 0.1, 0.3]))
def test_smoothing_over_all_is_torchs(seed: int, smoothing: float) -> None:
    logits, targets = _data(seed)
    ours = CrossEntropy(label_smoothing=smoothing)(logits, targets).terms[0].sum
    theirs = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (a,), (b,) = torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits)
    assert torch.allclose(a, b, atol=1e-6)


def test_smoothing_over_the_others_by_hand() -> None:
    """1 - eps on the target, eps / (K - 1) on each other class."""
    logits, targets = _data()
    smoothing, classes = 0.2, logits.shape[-1]
    probabilities = torch.full_like(logits, smoothing / (classes - 1))
    probabilities.scatter_(-1, targets.clamp_min(0)[..., None], 1.0 - smoothing)
    by_hand = -(probabilities * logits.log_softmax(-1)).sum(-1)[targets != IGNORED].sum()
    ours = CrossEntropy(smoothing, "others")(logits, targets)
    assert ours.terms[0].sum.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_plain_token_loss_is_free_of_smoothing_and_z_loss() -> None:
    logits, targets = _data()
    plain = CrossEntropy()(logits, targets).losses
    other = CrossEntropy(0.1, z_loss=1e-2)(logits, targets).losses
    assert torch.allclose(plain, other, atol=1e-5)


def test_z_loss_is_the_squared_log_normalizer() -> None:
    logits, targets = _data()
    objective = CrossEntropy(z_loss=1e-3)
    term = objective(logits, targets).terms[1]
    expected = torch.logsumexp(logits, -1).square()[targets != IGNORED].sum()
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert float(term.weight) == pytest.approx(1e-3)
    objective.z_factor.fill_(2.0)
    assert float(objective(logits, targets).terms[1].weight) == pytest.approx(2e-3)


@pytest.mark.parametrize("objective", [CrossEntropy(), CrossEntropy(0.1, "others", 1e-3)], ids=["plain", "all parts"])
def test_ignored_positions_count_nothing_whatever_they_hold(objective: CrossEntropy) -> None:
    logits, targets = _data()
    wild = logits.detach().clone()
    wild[targets == IGNORED] = 1e30
    sums = [float(sum(t.sum * t.weight for t in objective(x, targets).terms)) for x in (logits, wild)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)
    assert math.isfinite(sums[1])


def test_the_gradient_of_softmax_and_cross_entropy_is_prediction_minus_truth() -> None:
    logits, targets = _data()
    (gradient,) = torch.autograd.grad(CrossEntropy()(logits, targets).terms[0].sum, logits)
    truth = F.one_hot(targets.clamp_min(0), logits.shape[-1])
    expected = (logits.softmax(-1) - truth) * (targets != IGNORED)[..., None]
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_correct_counts_the_most_probable() -> None:
    logits, targets = _data(3)
    expected = ((logits.argmax(-1) == targets) & (targets != IGNORED)).sum()
    assert int(CrossEntropy()(logits, targets).scores["accuracy"]) == int(expected)
