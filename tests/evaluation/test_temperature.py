"""A temperature is the one that makes the targets most probable, and is judged on what it was not fitted on."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trimtab.data import LabelledTexts, PackedSequences, Ragged
from trimtab.errors import DataError
from trimtab.evaluation import calibrate_temperature, fit_label_temperatures, fit_temperature
from trimtab.evaluation.temperature import HIGHEST, LOWEST, Judged, _Kept, judge_answers
from trimtab.objective import (
    BinaryCrossEntropy,
    CausalLanguageModelingTask,
    ClassificationTask,
    CrossEntropy,
    MultiLabelTask,
)
from trimtab.runs.calibration import in_words
from trimtab.signals import Batch, LossTerms, ModelOutput

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


def test_a_temperature_that_harms_the_calibration_is_not_used_and_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = drawn(400, 3, 3.0, 1)
    rows = Ragged(np.full(800, 3, dtype=np.uint16), np.arange(0, 801, 2))
    texts = LabelledTexts(rows, targets.numpy(), end_of_text=0, sequence_length=8)
    task = ClassificationTask(CrossEntropy(), 3, "classification")

    def judged(logits_NV: Tensor, targets: Tensor, temperature: float = 1.0) -> Judged:
        return Judged(0.5, 0.045, []) if temperature == 1.0 else Judged(told[-1], 0.067, [])

    monkeypatch.setattr("trimtab.evaluation.temperature.judge_answers", judged)
    told: list[float] = []
    for loss, why in ((0.4, "calibration error is higher with it, 0.067 instead of 0.045"), (0.6, "loss is no lower")):
        told.append(loss)
        one = calibrate_temperature(Known(logits.float()), task, texts, batch_size=50, device=CPU)
        assert one.temperature == 1.0
        assert why in one.why_not
        assert why in in_words(one.to_json())
        assert "does not help" in in_words(one.to_json())


def test_few_texts_are_refused() -> None:
    logits, targets = drawn(30, 2, 1.0, 0)
    rows = Ragged(np.full(60, 3, dtype=np.uint16), np.arange(0, 61, 2))
    texts = LabelledTexts(rows, targets.numpy(), end_of_text=0, sequence_length=8)
    task = ClassificationTask(CrossEntropy(), 2, "classification")
    with pytest.raises(DataError, match="each half needs 20"):
        calibrate_temperature(Known(logits.float()), task, texts, batch_size=8, device=CPU)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(20, 120), st.floats(0.3, 6.0), st.integers(0, 2**31))
def test_each_label_is_a_question_with_two_answers(labels: int, rows: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(rows, labels, generator=generator, dtype=torch.float64)
    targets = torch.bernoulli(torch.sigmoid(logits), generator=generator)
    logits = scale * logits
    found = fit_label_temperatures(logits, targets)
    for label in range(labels):
        pair = torch.stack((torch.zeros(rows, dtype=torch.float64), logits[:, label]), 1)
        assert found[label] == pytest.approx(fit_temperature(pair, targets[:, label].long()), rel=1e-6)
    both = torch.stack((torch.zeros_like(logits), logits / torch.tensor(found, dtype=torch.float64)), -1).flatten(0, 1)
    ours, pairs = judge_answers(logits, targets, found), judge_answers(both, targets.flatten().long())
    assert ours.loss == pytest.approx(pairs.loss, rel=1e-12)
    assert ours.calibration_error == pytest.approx(pairs.calibration_error, abs=1e-12)


def test_labels_are_calibrated_one_by_one() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = 1.5 * torch.randn(600, 3, generator=generator)
    targets = torch.bernoulli(torch.sigmoid(logits), generator=generator)
    logits = logits * torch.tensor([0.5, 1.0, 4.0])
    rows = Ragged(np.full(1200, 3, dtype=np.uint16), np.arange(0, 1201, 2))
    texts = LabelledTexts(rows, targets.numpy(), end_of_text=0, sequence_length=8)
    task = MultiLabelTask(BinaryCrossEntropy(), 3)
    found = calibrate_temperature(Known(logits), task, texts, batch_size=7, device=CPU)
    assert isinstance(found.temperature, list)
    assert found.temperature == pytest.approx([0.5, 1.0, 4.0], rel=0.35)
    assert (found.fitted_on, found.judged_on) == (300, 300)
    assert found.after.loss < found.before.loss
    assert found.after.calibration_error < found.before.calibration_error


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_are_seldom_there_share_one(seed: int) -> None:
    """Of 3 texts in 100 each: by itself each would be anything from a bound to 2."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(400, 12, generator=generator) - torch.tensor([0.0, *[4.5] * 11])
    targets = torch.bernoulli(torch.sigmoid(logits), generator=generator)
    logits = 2.0 * logits
    rows = Ragged(np.full(800, 3, dtype=np.uint16), np.arange(0, 801, 2))
    texts = LabelledTexts(rows, targets.numpy(), end_of_text=0, sequence_length=8)
    found = calibrate_temperature(
        Known(logits), MultiLabelTask(BinaryCrossEntropy(), 12), texts, batch_size=64, device=CPU
    )
    assert isinstance(found.temperature, list)
    assert found.temperature[0] != found.temperature[1]
    assert len(set(found.temperature[1:])) == 1
    assert found.temperature == pytest.approx([2.0] * 12, rel=0.35)
    assert found.after.loss < found.before.loss


def test_labels_that_nobody_has_stay_as_they_are() -> None:
    logits = torch.randn(80, 3, generator=torch.Generator().manual_seed(0)) - 6.0
    rows = Ragged(np.full(160, 3, dtype=np.uint16), np.arange(0, 161, 2))
    texts = LabelledTexts(rows, np.zeros((80, 3), dtype=np.float32), end_of_text=0, sequence_length=8)
    found = calibrate_temperature(
        Known(logits), MultiLabelTask(BinaryCrossEntropy(), 3), texts, batch_size=64, device=CPU
    )
    assert found.temperature == found.fitted == [1.0] * 3


class Told(nn.Module):
    """Says of each token a row of a table, as a model with a head does."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor, document_ids_BT: Tensor) -> ModelOutput:
        return ModelOutput(tokens_BT.float()[..., None], lambda features: self.table[features[..., 0].long()])


def stream(scale: float, length: int, seed: int = 0) -> tuple[Tensor, PackedSequences]:
    """A chain of tokens drawn from a table of what follows what, and that table, `scale` times too sure."""
    generator = torch.Generator().manual_seed(seed)
    table = 1.5 * torch.randn(16, 16, generator=generator)
    chances, tokens = table.softmax(-1).numpy().astype(np.float64), [0]
    draw = np.random.default_rng(seed)
    for _ in range(length):
        tokens.append(int(draw.choice(16, p=chances[tokens[-1]] / chances[tokens[-1]].sum())))
    packed = PackedSequences(np.array(tokens, dtype=np.uint16), np.array([0]), 32, num_bytes=len(tokens))
    return scale * table, packed


def test_a_language_model_has_one_for_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    table, packed = stream(3.0, 6000)
    task = CausalLanguageModelingTask(CrossEntropy(), np.ones(16, dtype=np.int64))
    found = calibrate_temperature(Told(table), task, packed, batch_size=8, device=CPU)
    assert found.fitted == pytest.approx(3.0, rel=0.1)
    assert found.fitted_on + found.judged_on == 6000
    assert found.after.loss < found.before.loss
    assert found.after.calibration_error < 0.05 < found.before.calibration_error
    # Of more logits than are kept some are looked at, whatever the batches, from everywhere in a sequence.
    monkeypatch.setattr("trimtab.evaluation.temperature._MOST_KEPT", 16 * 800)
    few = [calibrate_temperature(Told(table), task, packed, batch_size=size, device=CPU) for size in (3, 64)]
    assert few[0] == few[1]
    assert 650 < few[0].fitted_on + few[0].judged_on <= 800
    assert few[0].fitted == pytest.approx(3.0, rel=0.3)


def test_what_is_kept_of_many_is_from_every_place_of_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.evaluation.temperature._MOST_KEPT", 2 * 1100)
    kept = _Kept(nullcontext)
    for number in range(64):
        places = torch.arange(128)
        targets = places[None].expand(4, -1)
        kept.look(
            Batch(targets, targets, targets, targets, number * 4 + torch.arange(4), 512),
            torch.zeros(4, 128, 2),
            LossTerms((), torch.zeros(4, 128), {}),
        )
    _, targets, samples = kept.all()
    counts = torch.bincount(targets, minlength=128)
    assert 900 < len(targets) <= 1100
    assert counts.min() >= 5  # 8 on average
    assert counts.max() <= 11
    assert len(samples.unique()) == 256


def test_what_a_temperature_does_is_told_in_a_sentence() -> None:
    found = {
        "temperature": 1.43,
        "judged_on": 107,
        "before": {"calibration_error": 0.045, "loss": 0.2079},
        "after": {"calibration_error": 0.067, "loss": 0.1985},
    }
    assert in_words(found) == (
        "answers are divided by a temperature of 1.43, so that they are less sure; on 107 answers that were held back "
        "to judge it the calibration error goes from 0.045 to 0.067, the loss from 0.2079 to 0.1985; one of the two is "
        "no better with it: judge it on more answers by trimtab calibrate"
    )
    better = found | {"temperature": [0.8, 1.2], "after": {"calibration_error": 0.02, "loss": 0.2}}
    assert "of 0.8 to 1.2 by label, so that they are surer or less sure;" in in_words(better)
    assert "no better" not in in_words(better)
