"""Head and loss as one operation against plain logits and cross-entropy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.objective import CausalLanguageModelingTask, CrossEntropy
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput


def _both(
    objective: dict[str, Any], *, rows: int, classes: int, ignored: float, chunks: int, dtype: torch.dtype, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values and gradients of the fused operation, and of the plain ones on the same numbers, from products in fp64."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, rows, 12, generator=generator).to(dtype)
    weight = torch.randn(classes, 12, generator=generator).to(dtype)
    targets = torch.randint(0, classes, (2, rows), generator=generator)
    targets[torch.rand(2, rows, generator=generator) < ignored] = IGNORED

    def values(fused: bool) -> dict[str, Tensor]:
        exact = torch.float64 if not fused else dtype
        x, w = features.to(exact, copy=True).requires_grad_(), weight.to(exact, copy=True).requires_grad_()
        scorer = CrossEntropy(**objective, fused="on", chunks=chunks)
        if fused:
            terms: LossTerms = scorer.of_features(x, w, targets)
        else:
            logits = x @ w.t()
            terms = scorer(logits.float(), targets)
        total = sum((term.sum * term.weight for term in terms.terms), torch.zeros(()))
        torch.autograd.backward(0.37 * total)
        assert x.grad is not None
        assert w.grad is not None
        named = {term.name: term.sum.detach() for term in terms.terms}
        return named | {"x": x.grad, "w": w.grad, "tokens": terms.losses, "correct": terms.scores["accuracy"]}

    return values(True), values(False)


def _distance(a: Tensor, b: Tensor) -> float:
    """Relative; of what is near 0 in units of 0.01, as a small loss is the difference of logits that are not."""
    return float((a.double() - b.double()).norm() / (b.double().norm() + 1e-2))


OBJECTIVES: list[dict[str, Any]] = [
    {},
    {"z_loss": 0.1},
    {"label_smoothing": 0.2},
    {"label_smoothing": 0.2, "spread": "others", "z_loss": 0.03},
]


@settings(max_examples=40, deadline=None)
@given(
    objective=st.sampled_from(OBJECTIVES),
    rows=st.integers(1, 9),
    classes=st.sampled_from([2, 23, 64, 130]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    chunks=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_it_is_the_loss_of_the_logits(
    objective: dict[str, Any], rows: int, classes: int, ignored: float, chunks: int, seed: int
) -> None:
    ours, plain = _both(
        objective, rows=rows, classes=classes, ignored=ignored, chunks=chunks, dtype=torch.float32, seed=seed
    )
    for name, value in plain.items():
        assert _distance(ours[name], value) < 1e-5, name


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("chunks", [1, 3])
def test_bf16_products_stay_near(objective: dict[str, Any], chunks: int) -> None:
    ours, plain = _both(objective, rows=64, classes=130, ignored=0.2, chunks=chunks, dtype=torch.bfloat16, seed=1)
    assert ours["tokens"].dtype == torch.float32
    assert _distance(ours["cross_entropy"], plain["cross_entropy"]) < 2e-3
    for name in ("x", "w", "tokens"):
        assert 1e-5 < _distance(ours[name], plain[name]) < 1e-2, name


def test_ignored_rows_may_hold_anything_and_the_gradient_of_no_grad_is_not_made() -> None:
    features, weight = torch.randn(1, 3, 4), torch.randn(5, 4)
    targets = torch.tensor([[1, IGNORED, 2]])
    expected = CrossEntropy(fused="on").of_features(features, weight, targets)
    features[0, 1] = torch.inf
    x = features.clone().requires_grad_()
    terms = CrossEntropy(fused="on").of_features(x, weight, targets)
    assert torch.equal(terms.losses, expected.losses)
    torch.autograd.backward(terms.terms[0].sum)
    assert x.grad is not None
    assert torch.equal(x.grad[0, 1], torch.zeros(4))
    assert not expected.terms[0].sum.requires_grad


@pytest.mark.parametrize("fused", ["on", "off"])
def test_the_task_gives_the_same_either_way(fused: Any) -> None:
    torch.manual_seed(0)
    head, features = nn.Linear(8, 11, bias=False), torch.randn(2, 5, 8)
    targets = torch.randint(0, 11, (2, 5))
    zeros = torch.zeros(2, 5, dtype=torch.int32)
    batch = Batch(targets, targets, zeros, zeros, torch.arange(2), 10)
    terms = CausalLanguageModelingTask(CrossEntropy(fused=fused)).terms(ModelOutput(features, head), batch)
    plain = F.cross_entropy(head(features).flatten(0, 1), targets.flatten(), reduction="sum")
    assert torch.allclose(terms.terms[0].sum, plain, rtol=1e-6)


def test_what_cannot_be_fused_is_not() -> None:
    features = torch.randn(1, 2, 4)
    plain, biased = nn.Linear(4, 5, bias=False), nn.Linear(4, 5)
    assert CrossEntropy(fused="on").fuses(ModelOutput(features, plain))
    assert not CrossEntropy(fused="on").fuses(ModelOutput(features, biased))
    assert not CrossEntropy(fused="on").fuses(ModelOutput(features, plain.forward))
    assert not CrossEntropy(fused="on").fuses(ModelOutput(features.half(), plain))
    assert not CrossEntropy(fused="auto").fuses(ModelOutput(features, plain))


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * super().forward(x)


@pytest.mark.parametrize("kind", ["subclass", "hook", "forward"])
def test_a_head_that_does_more_than_multiply_is_called(kind: str) -> None:
    head = Scaled(8, 11, bias=False) if kind == "subclass" else nn.Linear(8, 11, bias=False)
    if kind == "hook":
        head.register_forward_hook(lambda module, given, result: 0.1 * result)
    if kind == "forward":
        head.forward = lambda x: 0.1 * F.linear(x, head.weight)  # type: ignore[method-assign]
    features, targets = torch.randn(2, 5, 8), torch.randint(0, 11, (2, 5))
    zeros = torch.zeros(2, 5, dtype=torch.int32)
    batch = Batch(targets, targets, zeros, zeros, torch.arange(2), 10)
    sums = [
        CausalLanguageModelingTask(CrossEntropy(fused=fused)).terms(ModelOutput(features, head), batch).terms[0].sum
        for fused in ("on", "off")
    ]
    torch.testing.assert_close(*sums)
