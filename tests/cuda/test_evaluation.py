"""What is measured of a model on a GPU is what is measured of it on the CPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import trimtab
from trimtab.data import LabelledTexts, Ragged, byte_tokenizer
from trimtab.evaluation import Details, SampleLosses, calibrate_temperature, evaluate, groupings_of
from trimtab.model import Encoder, init_weights
from trimtab.objective import ClassificationTask, CrossEntropy
from trimtab.signals import Outputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CLASSES = ("a", "b", "c")
TASK = ClassificationTask(CrossEntropy(), 3, "classification")
GENERATOR = np.random.default_rng(0)
TOKENIZER = byte_tokenizer()


def encoder() -> Encoder:
    model = Encoder(
        vocabulary_size=257,
        max_positions=32,
        num_layers=2,
        hidden_size=64,
        num_heads=2,
        feed_forward_size=128,
        residual_dropout=0.2,
        outputs=Outputs(3, pooled=True),
    )
    init_weights(model, standard_deviation=0.3, num_layers=2, seed=0)
    return model


def texts() -> LabelledTexts:
    rows = [np.append(GENERATOR.integers(0, 256, length), 256) for length in GENERATOR.integers(1, 30, 120)]
    return LabelledTexts(
        Ragged(np.concatenate(rows).astype(np.uint16), np.cumsum([0, *map(len, rows)])),
        GENERATOR.integers(0, 3, 120),
        end_of_text=256,
        sequence_length=32,
    )


def test_metrics_details_and_temperature() -> None:
    judged, model = texts(), encoder()
    found = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        there = copy.deepcopy(model).to(device)
        details = Details(TASK, len(judged), groupings_of(TASK, judged, judged, CLASSES), 3, device)
        losses = SampleLosses(len(judged), device)
        metrics = evaluate(there, TASK, judged, batch_size=16, device=device, look=details)
        evaluate(there, TASK, judged, batch_size=16, device=device, look=losses)
        fitted = calibrate_temperature(there, TASK, judged, batch_size=16, device=device)
        found.append((metrics, details.found(CLASSES), losses.take(), fitted))
    (metrics, details_found, losses_2N, fitted), other = found
    assert other[0] == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    assert other[1]["confusion"] == details_found["confusion"]
    torch.testing.assert_close(other[2], losses_2N, rtol=1e-4, atol=1e-5)
    assert other[3].fitted == pytest.approx(fitted.fitted, rel=1e-3)


def test_uncertainty_attributions_and_efficiency() -> None:
    model = encoder().cuda()
    asked = ["a text", "another one"]
    one, again = (
        trimtab.estimate_uncertainty([model], TASK, TOKENIZER, asked, sequence_length=32, passes=6, seed=3)
        for _ in range(2)
    )
    assert torch.equal(one.mean, again.mean)
    found = trimtab.estimate_uncertainty([model, encoder()], TASK, TOKENIZER, asked, sequence_length=32)
    assert float(found.total.min()) > 0.0
    cost = trimtab.calculate_model_efficiency(model, sequence_length=32, batch_size=8, repeats=5, precision="bf16")
    assert cost.memory_bytes > cost.parameter_bytes
    assert cost.latency_seconds > 0.0
    pytest.importorskip("captum")
    explained = trimtab.attribute_tokens(model, TOKENIZER, asked[0], sequence_length=32, steps=128)
    assert abs(explained.gap) < 0.02 * max(0.1, abs(explained.value - explained.baseline))
