from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab import LabelSmoothingLoss
from trimtab.errors import ConfigError


def batch(classes: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, classes, generator=generator, dtype=dtype)
    return logits.requires_grad_(), torch.randint(0, classes, (3, 5), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_over_all_it_is_torchs_with_its_gradient(smoothing: float, ignored: int) -> None:
    logits, targets = batch()
    targets[0, :3] = ignored
    other = logits.detach().clone().requires_grad_()
    expected = F.cross_entropy(other.flatten(0, 1), targets.flatten(), label_smoothing=smoothing, ignore_index=ignored)
    found = LabelSmoothingLoss(smoothing, ignore_index=ignored)(logits, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits)[0], torch.autograd.grad(expected, other)[0], rtol=1e-10, atol=1e-14
    )


def test_over_the_others_it_is_cross_entropy_against_written_out_probabilities() -> None:
    logits, targets = batch()
    targets[1, 1:] = -100
    counted = targets != -100
    wanted = torch.full_like(logits, 0.1 / 6).scatter(-1, targets.clamp_min(0)[..., None], 0.9).detach()
    expected = -(wanted * logits.log_softmax(-1)).sum(-1)[counted].mean()
    found = LabelSmoothingLoss(0.1, spread="others")(logits, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_by_hand() -> None:
    """Probabilities 0.7, 0.2, 0.1 and target 0: -ln 0.7 = 0.357 without smoothing."""
    logits, targets = torch.tensor([0.7, 0.2, 0.1]).log()[None], torch.tensor([0])
    assert LabelSmoothingLoss(0.0)(logits, targets).item() == pytest.approx(0.3567, abs=1e-4)
    mean = -(math.log(0.7) + math.log(0.2) + math.log(0.1)) / 3
    smoothed = 0.7 * -math.log(0.7) + 0.3 * mean
    assert LabelSmoothingLoss(0.3)(logits, targets).item() == pytest.approx(smoothed, abs=1e-6)


def test_rows_that_do_not_count_may_hold_anything_and_no_row_at_all_gives_zero() -> None:
    logits, targets = batch(dtype=torch.float32)
    targets[0] = -100
    with torch.no_grad():
        logits[0] = torch.nan
    loss = LabelSmoothingLoss()(logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert not gradient[0].any()
    none = LabelSmoothingLoss()(logits, torch.full_like(targets, -100))
    assert none.item() == 0.0
    assert not torch.autograd.grad(none, logits)[0].any()


def test_half_precision_logits_are_judged_in_fp32() -> None:
    logits, targets = batch(dtype=torch.bfloat16)
    loss = LabelSmoothingLoss()(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, LabelSmoothingLoss()(logits.float(), targets))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Received: 10. The number of classes is read from the logits"):
        LabelSmoothingLoss(10)
    with pytest.raises(ValueError, match="spread must be"):
        LabelSmoothingLoss(spread="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Received: \[3, 7, 5\] and \[3, 5\]"):
        LabelSmoothingLoss()(torch.zeros(3, 7, 5), torch.zeros(3, 5, dtype=torch.int64))
    with pytest.raises(ConfigError, match="needs another class"):
        LabelSmoothingLoss(spread="others")(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
