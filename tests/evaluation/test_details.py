"""Slices, confusion and the hardest samples against a plain count, whatever the batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.data import LabelledTexts, PackedSequences, Ragged
from trimtab.evaluation import Details, evaluate, groupings_of, in_lines
from trimtab.evaluation.details import rank_correlation
from trimtab.model import Decoder, init_weights
from trimtab.objective import CausalLanguageModelingTask, ClassificationTask, CrossEntropy, Regression, RegressionTask

CPU = torch.device("cpu")
CLASSES = ("cat", "dog", "owl")
ROWS = 90
GENERATOR = np.random.default_rng(0)
LENGTHS = GENERATOR.integers(1, 20, ROWS)
LOGITS = torch.from_numpy(GENERATOR.normal(size=(ROWS, 3))).float()
TARGETS = GENERATOR.integers(0, 3, ROWS)


class Known(nn.Module):
    """Says of text i the logits in row i."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(LOGITS)

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor, document_ids_BT: Tensor) -> Tensor:
        return self.logits[document_ids_BT[:, 0].clamp_min(0).long()]


def texts() -> LabelledTexts:
    tokens = [np.append(GENERATOR.integers(1, 50, length), 0) for length in LENGTHS]
    rows = Ragged(np.concatenate(tokens).astype(np.uint16), np.cumsum([0, *map(len, tokens)]))
    return LabelledTexts(rows, TARGETS, end_of_text=0, sequence_length=32)


def looked(size: int) -> dict[str, Any]:
    judged, task = TEXTS, ClassificationTask(CrossEntropy(), 3, "classification")
    details = Details(task, ROWS, groupings_of(task, judged, judged, CLASSES), 3, CPU)
    evaluate(Known(), task, judged, batch_size=size, device=CPU, look=details)
    return details.found(CLASSES)


TEXTS = texts()


@pytest.mark.parametrize("size", [1, 7, 90])
def test_of_classes(size: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    found, said = looked(size), LOGITS.argmax(-1).numpy()
    losses = F.cross_entropy(LOGITS, torch.from_numpy(TARGETS), reduction="none").numpy()
    assert found["confusion"]["counts"] == metrics.confusion_matrix(TARGETS, said).tolist()
    precision, recall, f1, count = metrics.precision_recall_fscore_support(TARGETS, said)
    for place, row in enumerate(found["classes"]):
        assert [row["name"], row["count"]] == [CLASSES[place], count[place]]
        assert [row[one] for one in ("precision", "recall", "f1")] == pytest.approx(
            [precision[place], recall[place], f1[place]]
        )
    assert [one["sample"] for one in found["hardest"]] == np.argsort(-losses, kind="stable")[:10].tolist()
    by_length = found["slices"]["length"]
    assert sum(row["count"] for row in by_length) == ROWS
    lengths = TEXTS.lengths
    first = lengths <= np.quantile(lengths, 0.25)
    assert by_length[0]["count"] == first.sum()
    assert by_length[0]["loss"] == pytest.approx(losses[first].mean(), rel=1e-5)
    assert by_length[0]["accuracy"] == pytest.approx((said == TARGETS)[first].mean())
    assert found["slices"]["class"][1]["loss"] == pytest.approx(losses[TARGETS == 1].mean(), rel=1e-5)
    assert sum(one["count"] for one in found["reliability"]) == ROWS
    told = "\n".join(in_lines(found))
    assert "by rarity" in told
    assert "taken for" in told


def test_rare_words_are_told_apart_from_frequent_ones() -> None:
    """In training 1 is frequent and 40 is not: a text of 1s alone is in the first quarter, one of 40s in the last."""
    rows = [[1] * 5, [1, 1, 40], [40, 40], [1, 40], [1, 1, 1, 1, 40], [40], [1], [1, 1]]
    tokens = [np.array([*row, 0], dtype=np.uint16) for row in rows]
    judged = LabelledTexts(
        Ragged(np.concatenate(tokens), np.cumsum([0, *map(len, tokens)])),
        np.zeros(len(rows), dtype=np.int64),
        end_of_text=0,
        sequence_length=16,
    )
    task = ClassificationTask(CrossEntropy(), 3, "classification")
    (rarity,) = [one for one in groupings_of(task, judged, judged, CLASSES) if one.name == "rarity"]
    assert rarity.of_samples is not None
    assert rarity.of_samples[[0, 6, 7]].tolist() == [0, 0, 0]
    assert rarity.of_samples[2] == rarity.of_samples[5] == rarity.of_samples.max()


def test_of_tokens() -> None:
    tokens = GENERATOR.integers(0, 30, 400).astype(np.uint16)
    training = PackedSequences(np.repeat(np.arange(20), 3).astype(np.uint16), np.array([0]), 16, num_bytes=60)
    judged = PackedSequences(tokens, np.array([0]), 16, num_bytes=400)
    model = Decoder(
        vocabulary_size=30, max_positions=16, num_layers=1, hidden_size=16, num_heads=2, feed_forward_size=32
    )
    init_weights(model, standard_deviation=0.5, num_layers=1, seed=0)
    task = CausalLanguageModelingTask(CrossEntropy())
    details = Details(task, len(judged), groupings_of(task, judged, training, ()), 0, CPU)
    metrics = evaluate(model, task, judged, batch_size=4, device=CPU, look=details)
    found = details.found(())
    rarity, position = found["slices"].values()
    assert [row["name"] for row in rarity] == ["never", "below 10"]
    assert rarity[0]["count"] == int((tokens[1:] >= 20).sum())
    for rows in (rarity, position):
        assert sum(row["count"] for row in rows) == 399
        assert sum(row["count"] * row["loss"] for row in rows) / 399 == pytest.approx(metrics["loss"], rel=1e-6)
    assert position[0]["count"] in (100, 101)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_rank_correlation(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    answers, targets = np.array(pairs, dtype=np.float64).T
    found = rank_correlation(answers, targets)
    if found is None:
        assert len(set(answers.tolist())) == 1 or len(set(targets.tolist())) == 1
    else:
        assert found == pytest.approx(stats.spearmanr(answers, targets).statistic)


def test_of_numbers() -> None:
    judged = TEXTS
    task = RegressionTask(Regression("mse"), 5.0, 2.0)
    numbers = LabelledTexts(
        Ragged(judged.all_tokens, np.append(np.cumsum([0, *(LENGTHS + 1)[:-1]]), len(judged.all_tokens))),
        GENERATOR.normal(size=ROWS).astype(np.float32),
        end_of_text=0,
        sequence_length=32,
    )

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.known = Known()

        def forward(self, **inputs: Tensor) -> Tensor:
            return self.known(**inputs)[:, :1]

    details = Details(task, ROWS, groupings_of(task, numbers, numbers, ()), 0, CPU)
    evaluate(First(), task, numbers, batch_size=7, device=CPU, look=details)
    found = details.found(())
    assert -1.0 <= found["spearman"] <= 1.0
    assert "accuracy" not in found["slices"]["length"][0]
    assert "Spearman" in "\n".join(in_lines(found))
