"""Entropies of several answers against plain sums; dropout passes are a pure function of the seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trimtab
from trimtab.data import byte_tokenizer
from trimtab.errors import UsageError
from trimtab.evaluation.uncertainty import combine, dropping
from trimtab.model import Encoder, init_weights
from trimtab.objective import (
    BinaryCrossEntropy,
    ClassificationTask,
    CrossEntropy,
    MultiLabelTask,
    Regression,
    RegressionTask,
)
from trimtab.signals import Outputs, Task

TOKENIZER = byte_tokenizer()
TEXTS = ["a first text", "b", "and a third one"]
CLASSES = ClassificationTask(CrossEntropy(), 3, "classification")


def encoder(outputs: int = 3, dropout: float = 0.3, seed: int = 0) -> Encoder:
    model = Encoder(
        vocabulary_size=TOKENIZER.vocabulary_size,
        max_positions=32,
        num_layers=1,
        hidden_size=16,
        num_heads=2,
        feed_forward_size=32,
        residual_dropout=dropout,
        attention_dropout=dropout,
        outputs=Outputs(outputs, pooled=True),
    )
    init_weights(model, standard_deviation=0.6, num_layers=1, seed=seed)
    return model.train()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(2, 5), st.integers(0, 2**31))
def test_entropies(members: int, rows: int, classes: int, seed: int) -> None:
    chances = np.random.default_rng(seed).dirichlet(np.ones(classes), size=(members, rows))
    found = combine(torch.from_numpy(chances))
    assert found.within is not None
    assert found.between is not None
    for row in range(rows):
        mean = chances[:, row].mean(0)
        total = -sum(p * math.log(p) for p in mean if p > 0)
        within = sum(-sum(p * math.log(p) for p in one if p > 0) for one in chances[:, row]) / members
        divergence = sum(
            sum(p * math.log(p / q) for p, q in zip(one, mean, strict=True) if p > 0) for one in chances[:, row]
        )
        assert float(found.total[row]) == pytest.approx(total)
        assert float(found.within[row]) == pytest.approx(within)
        assert float(found.between[row]) == pytest.approx(divergence / members, abs=1e-9)


def test_equal_members_leave_nothing_between_them() -> None:
    found = combine(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]] * 4))
    assert found.between is not None
    assert found.between.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert found.total.tolist() == pytest.approx([0.0, math.log(2)])


def test_dropout_is_drawn_from_the_seed_alone_and_modes_come_back() -> None:
    model = encoder()
    one, again, other = (
        trimtab.estimate_uncertainty([model], CLASSES, TOKENIZER, TEXTS, sequence_length=32, passes=8, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.mean, again.mean)
    assert not torch.equal(one.mean, other.mean)
    assert one.between is not None
    assert bool((one.between > 0).all())
    assert all(module.training for module in model.modules())
    assert one.mean.sum(-1).tolist() == pytest.approx([1.0] * 3)


def test_many_passes_come_to_what_dropout_says_on_average() -> None:
    model = encoder(dropout=0.1)
    many = trimtab.estimate_uncertainty([model], CLASSES, TOKENIZER, TEXTS, sequence_length=32, passes=300)
    few = trimtab.estimate_uncertainty([model], CLASSES, TOKENIZER, TEXTS, sequence_length=32, passes=300, seed=9)
    assert float((many.mean - few.mean).abs().max()) < 0.05


def test_an_ensemble_of_labels_and_of_numbers() -> None:
    cases: list[tuple[Task, int]] = [
        (MultiLabelTask(BinaryCrossEntropy(), 4), 4),
        (RegressionTask(Regression("mse"), 10.0, 2.0), 1),
    ]
    for task, size in cases:
        models = [encoder(size, 0.0, seed) for seed in (1, 2, 3)]
        found = trimtab.estimate_uncertainty(models, task, TOKENIZER, TEXTS, sequence_length=32)
        assert found.mean.shape == ((3, 4) if size == 4 else (3,))
        assert bool((found.total > 0).all())
        assert (found.between is None) == (size == 1)
    plain = [
        float(model.eval()(torch.tensor([[256, *TEXTS[1].encode()]])).logits[0, 0].detach()) * 2.0 + 10.0
        for model in models
    ]
    assert float(found.mean[1]) == pytest.approx(np.mean(plain), rel=1e-5)
    assert float(found.total[1]) == pytest.approx(np.std(plain), rel=1e-4)


def test_norms_do_not_learn_from_passes() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    with dropping(model):
        model(torch.randn(8, 3))
    assert float(model[0].running_mean.abs().max()) == 0.0  # type: ignore[union-attr,operator]


def test_what_is_refused() -> None:
    ask = {"task": CLASSES, "tokenizer": TOKENIZER, "texts": TEXTS, "sequence_length": 32}
    with pytest.raises(UsageError, match="several models, or passes"):
        trimtab.estimate_uncertainty([encoder()], **ask)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="without dropout"):
        trimtab.estimate_uncertainty([encoder(dropout=0.0)], **ask, passes=4)  # type: ignore[arg-type]
