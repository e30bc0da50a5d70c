"""A temperature is the one that makes the targets most probable, and is judged on what it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trimtab.data import LabelledTexts, Ragged
from trimtab.errors import DataError
from trimtab.evaluation import calibrate_temperature, fit_temperature
from trimtab.evaluation.temperature import HIGHEST, LOWEST, judge_answers
from trimtab.objective import ClassificationTask, CrossEntropy

CPU = torch.device("cpu")


def drawn(rows: int, classes: int, scale: float, seed: int) -> tuple[Tensor, Tensor]:
    """Logits that are `scale` times too large for how their targets are drawn."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return scale * logits, targets


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(20, 200), st.floats(0.3, 6.0), st.integers(0, 2**31))
def test_it_is_what_a_search_finds(classes: int, rows: int, scale: float, seed: int) -> None:
    logits, targets = drawn(rows, classes, scale, seed)
    found = fit_temperature(logits, targets)
    # No temperature on a fine grid does better.
    grid = torch.logspace(np.log10(LOWEST), np.log10(HIGHEST), 4000, dtype=torch.float64)
    losses = [float(nn.functional.cross_entropy(logits / one, targets)) for one in grid[::40]]
    assert judge_answers(logits, targets, found).loss <= min(losses) + 1e-9
    assert LOWEST <= found <= HIGHEST


def test_it_undoes_what_made_answers_too_sure() -> None:
    logits, targets = drawn(20_000, 3, 3.0, 0)
    assert fit_temperature(logits, targets) == pytest.approx(3.0, rel=0.03)
    assert judge_answers(logits, targets).calibration_error > 0.1
    assert judge_answers(logits, targets, 3.0).calibration_error < 0.02


def test_ends() -> None:
    right = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    targets = torch.tensor([0, 1])
    # Beyond it nothing can be told from certainty.
    assert LOWEST <= fit_temperature(right, targets) < 0.3
    assert fit_temperature(0.1 * right, targets) == pytest.approx(LOWEST, rel=1e-6)
    assert fit_temperature(right, 1 - targets) == pytest.approx(HIGHEST, rel=1e-6)
    with pytest.raises(DataError, match="not finite"):
        fit_temperature(right * torch.inf, targets)


class Known(nn.Module):
    """Says of text i the logits in row i."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor, document_ids_BT: Tensor) -> Tensor:
        return self.logits[document_ids_BT[:, 0].clamp_min(0).long()]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_halves_are_apart_whatever_the_batches(scale: float) -> None:
    logits, targets = drawn(400, 3, scale, 1)
    rows = Ragged(np.full(800, 3, dtype=np.uint16), np.arange(0, 801, 2))
    texts = LabelledTexts(rows, targets.numpy(), end_of_text=0, sequence_length=8)
    task = ClassificationTask(CrossEntropy(), 3, "classification")
    found = [
        calibrate_temperature(Known(logits.float()), task, texts, batch_size=size, device=CPU) for size in (7, 400)
    ]
    assert found[0].fitted == pytest.approx(found[1].fitted, rel=1e-5)
    assert found[0].after.loss == pytest.approx(found[1].after.loss, rel=1e-5)
    one = found[0]
    assert (one.fitted_on, one.judged_on) == (200, 200)
    half = np.zeros(400, dtype=bool)
    half[np.random.default_rng(0).permutation(np.arange(400))[:200]] = True
    assert one.fitted == pytest.approx(fit_temperature(logits.float()[half], targets[half]), rel=1e-4)
    assert one.before.loss == pytest.approx(float(nn.functional.cross_entropy(logits[~half], targets[~half])), rel=1e-5)
    if scale == 3.0:
        assert one.temperature == one.fitted
        assert one.after.loss < one.before.loss
    assert one.after.loss <= one.before.loss


def test_few_texts_are_refused() -> None:
    logits, targets = drawn(30, 2, 1.0, 0)
    rows = Ragged(np.full(60, 3, dtype=np.uint16), np.arange(0, 61, 2))
    texts = LabelledTexts(rows, targets.numpy(), end_of_text=0, sequence_length=8)
    task = ClassificationTask(CrossEntropy(), 2, "classification")
    with pytest.raises(DataError, match="each half needs 20"):
        calibrate_temperature(Known(logits.float()), task, texts, batch_size=8, device=CPU)
