"""Losses besides plain cross-entropy: values and gradients in float64, against torch or a table worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.errors import ConfigError
from trimtab.objective import BinaryCrossEntropy, CrossEntropy, Focal, Regression
from trimtab.objective.first_largest import first_largest
from trimtab.signals import IGNORED, LossTerms

GENERATOR = torch.Generator().manual_seed(7)
LOGITS = 3 * torch.randn(12, 5, dtype=torch.float64, generator=GENERATOR)
CLASSES = torch.randint(0, 5, (12,), generator=GENERATOR)
CLASSES[4] = IGNORED
WEIGHTS = [0.5, 2.0, 1.0, 0.25, 4.0]
LABELS = (torch.rand(12, 5, generator=GENERATOR) < 0.4).double()
LABELS[3, 2] = IGNORED
NUMBERS = 2 * torch.randn(12, dtype=torch.float64, generator=GENERATOR)
NUMBERS[5] = IGNORED


def both(ours: Callable[[Tensor], LossTerms], reference: Callable[[Tensor], Tensor], x: Tensor) -> LossTerms:
    """Our terms; their sum and its gradient are those of `reference`, in float64."""
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    terms = ours(one)
    total = sum((term.sum * term.weight for term in terms.terms), torch.zeros((), dtype=torch.float64))
    expected = reference(other)
    torch.autograd.backward([total, expected])
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-13)
    assert terms.losses.shape == (CLASSES.shape if terms.losses.ndim == 1 else LABELS.shape)
    return terms


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_with_weights_and_smoothing_is_torchs(smoothing: float, weights: list[float] | None) -> None:
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    terms = both(
        lambda x: CrossEntropy(smoothing, class_weights=weights)(x, CLASSES),
        lambda x: F.cross_entropy(x, CLASSES, weight, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"),
        LOGITS,
    )
    plain = F.cross_entropy(LOGITS, CLASSES, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(terms.losses, plain)
    assert terms.scores["accuracy"] == (LOGITS.argmax(-1) == CLASSES).sum()


def test_smoothing_over_the_others_with_weights() -> None:
    def reference(x: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row, target in zip(x.log_softmax(-1), CLASSES.tolist(), strict=True):
            for index, weight in enumerate(WEIGHTS):
                if target != IGNORED:
                    total = total - (0.8 if index == target else 0.2 / 4) * weight * row[index]
        return total

    both(lambda x: CrossEntropy(0.2, "others", class_weights=WEIGHTS)(x, CLASSES), reference, LOGITS)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_is_its_formula(gamma: float, weights: list[float] | None) -> None:
    counted = CLASSES != IGNORED

    def reference(x: Tensor) -> Tensor:
        log_p = x.log_softmax(-1)[counted].gather(-1, CLASSES[counted][:, None]).squeeze(-1)
        factor = torch.ones(5, dtype=torch.float64) if weights is None else torch.tensor(weights, dtype=torch.float64)
        return -(factor[CLASSES[counted]] * (1 - log_p.exp()) ** gamma * log_p).sum()

    both(lambda x: Focal(gamma, weights)(x, CLASSES), reference, LOGITS)


def test_focal_worked_by_hand() -> None:
    """p = 0.9 and 0.25 with gamma 2: 0.01 · 0.10536 + 0.5625 · 1.38629."""
    logits = torch.tensor([[math.log(9.0), 0.0], [0.0, math.log(3.0)]], dtype=torch.float64)
    terms = Focal(2.0)(logits, torch.tensor([0, 0]))
    assert float(terms.terms[0].sum) == pytest.approx(0.780844, abs=1e-6)
    assert terms.losses.tolist() == pytest.approx([0.1053605, 1.3862944], abs=1e-6)


def test_focal_of_a_certain_prediction_has_a_finite_gradient() -> None:
    logits = torch.tensor([[800.0, 0.0]], requires_grad=True)
    Focal(0.5)(logits, torch.tensor([0])).terms[0].sum.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_binary_cross_entropy_is_torchs(smoothing: float, weights: list[float] | None, gamma: float) -> None:
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    counted = LABELS != IGNORED

    def reference(x: Tensor) -> Tensor:
        y = LABELS.where(counted, 0.0)
        loss = F.binary_cross_entropy_with_logits(
            x, y * (1 - smoothing) + smoothing / 2, pos_weight=weight, reduction="none"
        )
        p = x.sigmoid()
        return ((1 - torch.where(y == 1, p, 1 - p)) ** gamma * loss)[counted].sum()

    terms = both(lambda x: BinaryCrossEntropy(smoothing, gamma, weights)(x, LABELS), reference, LOGITS)
    assert terms.scores["accuracy"] == ((LOGITS > 0) == (LABELS == 1))[counted].sum()
    assert terms.losses[3, 2] == 0.0


REGRESSION: list[tuple[Any, dict[str, float], Callable[[Tensor, Tensor], Tensor]]] = [
    ("mse", {}, lambda x, y: F.mse_loss(x, y, reduction="sum")),
    ("mae", {}, lambda x, y: F.l1_loss(x, y, reduction="sum")),
    ("huber", {"delta": 0.7}, lambda x, y: F.huber_loss(x, y, reduction="sum", delta=0.7)),
    ("quantile", {"quantile": 0.9}, lambda x, y: torch.where(y >= x, 0.9 * (y - x), 0.1 * (x - y)).sum()),
    ("log_cosh", {}, lambda x, y: (x - y).cosh().log().sum()),
]


@pytest.mark.parametrize("name,options,reference", REGRESSION, ids=[entry[0] for entry in REGRESSION])
def test_regression_losses(name: Any, options: dict[str, float], reference: Callable[[Tensor, Tensor], Tensor]) -> None:
    counted = NUMBERS != IGNORED
    x = LOGITS[:, 0]
    terms = both(
        lambda x: Regression(name, **options)(x, NUMBERS),  # type: ignore[arg-type]
        lambda x: reference(x[counted], NUMBERS[counted]),
        x,
    )
    assert float(terms.scores["mae"]) == pytest.approx(float((x - NUMBERS)[counted].abs().sum()))
    assert terms.losses[5] == 0.0


def test_worked_values() -> None:
    targets, predictions = torch.tensor([3.0, -0.5, 2.0, 7.0]), torch.tensor([2.0, 0.0, 2.0, 8.0])
    assert float(Regression("mse")(predictions, targets).losses.mean()) == pytest.approx(0.5625)
    chances = torch.tensor([[0.7, 0.2, 0.1]]).log()
    assert float(CrossEntropy()(chances, torch.tensor([0])).losses) == pytest.approx(0.357, abs=5e-4)
    assert float(CrossEntropy()(chances, torch.tensor([2])).losses) == pytest.approx(2.303, abs=5e-4)
    far = Regression("log_cosh")(torch.tensor([1e4]), torch.tensor([0.0])).losses
    assert float(far) == pytest.approx(1e4 - math.log(2), rel=1e-6)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.8])
def test_the_minimum_of_the_pinball_loss_is_the_quantile(quantile: float) -> None:
    values = torch.randn(101, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    totals = [
        float(Regression("quantile", quantile=quantile)(value.expand(101), values).losses.sum()) for value in values
    ]
    best = values[int(torch.tensor(totals).argmin())]
    assert float((values < best).double().mean()) == pytest.approx(quantile, abs=0.01)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    "objective",
    [CrossEntropy(), CrossEntropy(0.1), CrossEntropy(z_loss=0.1), CrossEntropy(class_weights=[1.0, 2.0, 1.0]), Focal()],
)
def test_what_is_not_counted_may_hold_anything(objective: CrossEntropy | Focal, bad: float) -> None:
    logits, targets = LOGITS[:3, :3].clone(), torch.tensor([IGNORED, 1, 2])
    logits[0] = bad
    logits.requires_grad_()
    terms = objective(logits, targets)
    torch.autograd.backward(sum((term.sum * term.weight for term in terms.terms), torch.zeros(())))
    assert logits.grad is not None
    assert torch.equal(logits.grad[0], torch.zeros(3).double())
    others = LOGITS[1:3, :3].clone().requires_grad_()
    rest = objective(others, targets[1:])
    torch.autograd.backward(sum((term.sum * term.weight for term in rest.terms), torch.zeros(())))
    torch.testing.assert_close(logits.grad[1:], others.grad)
    torch.testing.assert_close(terms.losses[1:], rest.losses)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_labels_that_are_not_counted_may_hold_anything(bad: float, gamma: float) -> None:
    logits, labels = LOGITS[:2].clone(), LABELS[:2].clone()
    logits[0, 2], labels[0, 2] = bad, IGNORED
    logits.requires_grad_()
    terms = BinaryCrossEntropy(0.1, gamma)(logits, labels)
    terms.terms[0].sum.backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad[0, 2]) == float(terms.losses[0, 2]) == 0.0


@pytest.mark.parametrize("objective", [CrossEntropy(), CrossEntropy(0.1), CrossEntropy(fused="on"), Focal()])
def test_of_equal_logits_the_first_is_the_answer(objective: CrossEntropy | Focal) -> None:
    """As in `predictions`: a model that says nothing is not always right."""
    targets = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    assert int(objective(torch.zeros(8, 5), targets).scores["accuracy"]) == 2
    if isinstance(objective, CrossEntropy):
        features, weight = torch.ones(8, 4), torch.zeros(5, 4)
        weight[3:] = 1.0
        assert int(objective.of_features(features, weight, targets).scores["accuracy"]) == 1  # the one 3; not the 4


def test_one_class_has_no_others() -> None:
    with pytest.raises(ConfigError, match=r"objective\.spread others needs another class"):
        CrossEntropy(0.1, "others")(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"objective\.spread others needs another class"):
        CrossEntropy(0.1, "others").of_features(torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(2, dtype=torch.int64))


def test_log_cosh_is_exact_near_0_and_far_out() -> None:
    size = torch.logspace(-6, 3, 400)
    errors = torch.cat((-size, torch.zeros(1), size)).requires_grad_()
    losses = Regression("log_cosh")(errors, torch.zeros_like(errors))
    losses.terms[0].sum.backward()
    exact = errors.detach().double()
    near, far = torch.log1p(2 * torch.sinh(exact / 2) ** 2), exact.abs() - math.log(2)
    torch.testing.assert_close(losses.losses.double(), torch.where(exact.abs() < 20, near, far), rtol=1e-6, atol=0)
    assert errors.grad is not None
    torch.testing.assert_close(errors.grad.double(), torch.tanh(exact), rtol=1e-6, atol=0)


@pytest.mark.parametrize("classes", [5, 1024, 1025, 4000, 4095])
def test_the_first_of_the_largest_is_argmax(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(50, classes, generator=generator).round()  # many are equal
    logits[0, -1] = logits[1, 0] = 9.0
    logits[2, [classes // 3, classes // 2, -1]] = 9.0
    logits[3] = 0.0
    logits[4] = -math.inf
    logits[5, classes // 2] = math.nan
    assert torch.equal(first_largest(logits), logits.argmax(-1))


def test_rmse_is_the_root_of_the_mean_square() -> None:
    counted = NUMBERS != IGNORED
    targets = torch.where(counted, torch.linspace(-1.0, 1.0, 12, dtype=torch.float64), float(IGNORED))
    both(
        lambda x: Regression("rmse")(x, targets),
        lambda x: F.mse_loss(x[counted], targets[counted]).sqrt() * counted.sum(),
        torch.linspace(0.0, 3.0, 12, dtype=torch.float64),
    )
    worked = Regression("rmse")(torch.tensor([3.0, -0.5, 2.0, 7.0]), torch.tensor([2.0, 0.0, 2.0, 8.0]))
    assert worked.terms[0].sum.item() / 4 == pytest.approx(0.5625**0.5)
    exact = torch.zeros(3, requires_grad=True)
    Regression("rmse")(exact, torch.zeros(3)).terms[0].sum.backward()
    assert exact.grad is not None
    assert torch.equal(exact.grad, torch.zeros(3))


def test_the_calibration_term_is_the_sum_over_pairs() -> None:
    def reference(x: Tensor) -> Tensor:
        rows = [(row.softmax(-1), target) for row, target in zip(x, CLASSES.tolist(), strict=True) if target != IGNORED]
        total = torch.zeros((), dtype=torch.float64)
        for one, right in rows:
            for other, other_right in rows:
                r, s = one.max(), other.max()
                c, d = float(one.argmax() == right), float(other.argmax() == other_right)
                total = total + (c - r) * (d - s) * torch.exp(-(r - s).abs() / 0.4)
        plain = F.cross_entropy(x, CLASSES, ignore_index=IGNORED, reduction="sum")
        return plain + 0.7 * len(rows) * (total / len(rows) ** 2).sqrt()

    terms = both(lambda x: CrossEntropy(mmce=0.7)(x, CLASSES), reference, LOGITS)
    assert [term.additive for term in terms.terms] == [True, False]
    assert CrossEntropy(mmce=0.7).term_names == ("cross_entropy", "mmce")


def test_the_calibration_term_falls_with_the_confidence_of_wrong_answers() -> None:
    wrong = torch.tensor([[4.0, 0.0], [3.0, 0.0]])
    targets = torch.tensor([1, 1])
    sure, unsure = (CrossEntropy(mmce=1.0)(scale * wrong, targets).terms[1].sum for scale in (1.0, 0.1))
    assert unsure < sure
