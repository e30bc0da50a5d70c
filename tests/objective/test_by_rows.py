"""Cross-entropy a few rows at a time: what torch says of all rows at once, however they are cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from trimtab.objective import by_rows
from trimtab.objective.by_rows import cross_entropy_by_rows
from trimtab.objective.cross_entropy import CrossEntropy
from trimtab.signals import IGNORED


@settings(deadline=None)
@given(
    rows=st.integers(0, 9), classes=st.integers(1, 40), at_once=st.integers(1, 90), scale=st.floats(0.0, 300.0),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_it_is_torch_s(rows: int, classes: int, at_once: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, classes, generator=generator, dtype=torch.float64) * scale).requires_grad_()
    targets = torch.randint(0, classes, (rows,), generator=generator)
    upstream = torch.rand(rows, generator=generator, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_rows, "_VALUES", at_once)
        losses, hits = cross_entropy_by_rows(logits, targets)
    (gradient,) = torch.autograd.grad(losses, logits, upstream)
    expected = F.cross_entropy(logits, targets, reduction="none")
    (expected_gradient,) = torch.autograd.grad(expected, logits, upstream)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)
    assert hits.tolist() == (logits.argmax(-1) == targets).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_logits_lose_no_more_than_their_own_rounding(dtype: torch.dtype) -> None:
    logits = (torch.randn(40, 3000, generator=torch.Generator().manual_seed(1)) * 8).to(dtype)
    targets = torch.arange(40)
    narrow, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
    losses = CrossEntropy()(narrow, targets).losses
    torch.testing.assert_close(losses, F.cross_entropy(wide, targets, reduction="none").float(), rtol=1e-6, atol=1e-6)
    for x in (narrow, wide):
        (CrossEntropy()(x, targets).terms[0].sum / 40).backward()
    assert narrow.grad is not None
    assert wide.grad is not None
    error = (narrow.grad.double() - wide.grad).abs()
    # Rounded once as a gradient, and once times the upstream one; what fp16 cannot hold as a normal number is small.
    # An exponent near 50 is off by 50 times fp32's rounding before anything else.
    relative = 2.0 * torch.finfo(dtype).eps + 100.0 * torch.finfo(torch.float32).eps
    assert (error <= relative * wide.grad.abs() + torch.finfo(dtype).tiny / 40).all()


def test_of_equal_logits_the_first_is_the_answer() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    _, hits = cross_entropy_by_rows(logits, torch.tensor([1, 2, 0]))
    assert hits.tolist() == [True, False, True]


def test_rows_that_are_not_counted_may_hold_anything() -> None:
    logits = torch.tensor([[1.0, 2.0], [float("nan"), float("inf")], [2.0, 0.0]], requires_grad=True)
    terms = CrossEntropy()(logits, torch.tensor([1, IGNORED, 1]))
    terms.terms[0].sum.backward()  # type: ignore[no-untyped-call]
    assert terms.losses.tolist()[1] == 0.0
    assert logits.grad is not None
    assert logits.grad[1].tolist() == [0.0, 0.0]
    assert torch.isfinite(logits.grad).all()
    assert int(terms.scores["accuracy"]) == 1


def test_a_loss_that_is_not_a_number_stays_one() -> None:
    logits = torch.tensor([[float("nan"), 1.0], [0.0, 1.0]], requires_grad=True)
    total = CrossEntropy()(logits, torch.tensor([0, 1])).terms[0].sum
    total.backward()  # type: ignore[no-untyped-call]
    assert total.isnan()
    assert logits.grad is not None
    assert logits.grad[0].isnan().any()


def test_without_gradients_none_are_kept() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    with torch.no_grad():
        losses, _ = cross_entropy_by_rows(logits, torch.tensor([0, 1]))
    assert not losses.requires_grad
    torch.testing.assert_close(losses, torch.full((2,), torch.tensor(3.0).log().item()))
