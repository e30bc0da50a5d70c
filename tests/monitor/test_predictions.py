"""How sure a model is, against a slow calculation, target by target in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from trimtab.monitor.probes import predictions
from trimtab.monitor.probes.predictions import BINS, Sureness, sureness_of
from trimtab.signals import IGNORED, ModelOutput


def slowly(probabilities: list[float], right: list[bool], entropies: list[float]) -> list[float]:
    """Entropy, confidence, accuracy, and the calibration error by its definition."""
    error, n = 0.0, len(right)
    for m in range(BINS):
        inside = [i for i in range(n) if m / BINS < probabilities[i] <= (m + 1) / BINS]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            confidence = sum(probabilities[i] for i in inside) / len(inside)
            error += len(inside) / n * abs(accuracy - confidence)
    return [sum(entropies) / n, sum(probabilities) / n, sum(right) / n, error]


def listed(found: Sureness | None) -> list[float]:
    assert found is not None
    return [found.entropy, found.confidence, found.accuracy, found.calibration_error]


@pytest.mark.parametrize("at_once", [1, 40, 1 << 26])
def test_of_tokens_through_the_head(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 40, 8, generator=generator)
    head = nn.Linear(8, 11, bias=False)
    targets = torch.randint(0, 11, (3, 40), generator=generator)
    targets[torch.rand(3, 40, generator=generator) < 0.3] = IGNORED
    probabilities, right, entropies = [], [], []
    logits = (features.double() @ head.weight.detach().double().T * 1.0).flatten(0, 1).numpy()
    for row, target in zip(logits, targets.flatten().tolist(), strict=True):
        if target == IGNORED:
            continue
        p = np.exp(row) / np.exp(row).sum()
        probabilities.append(float(p.max()))
        right.append(int(p.argmax()) == target)
        entropies.append(float(-(p * np.log(p)).sum()))
    with torch.no_grad():
        found = sureness_of(ModelOutput(features, head), targets)
    assert listed(found) == pytest.approx(slowly(probabilities, right, entropies), rel=1e-5)


def test_of_classes_that_are_certain() -> None:
    """A logit of minus infinity counts as a probability of 0, and a confidence of 1 is in the last bin."""
    logits = torch.tensor([[0.0, -math.inf], [0.0, -math.inf], [0.0, 0.0]])
    found = sureness_of(logits, torch.tensor([0, 1, IGNORED]))
    assert listed(found) == [0.0, 1.0, 0.5, 0.5]


def test_of_several_labels_each_is_a_decision() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 4.0, 0.1]])
    labels = torch.tensor([[1.0, 1.0, float(IGNORED)], [0.0, 0.0, 1.0]])
    p = [1 / (1 + math.exp(-x)) for x in (2.0, -1.0, -3.0, 4.0, 0.1)]
    confident = [max(one, 1 - one) for one in p]
    entropies = [-one * math.log(one) - (1 - one) * math.log(1 - one) for one in p]
    found = sureness_of(logits, labels)
    assert listed(found) == pytest.approx(slowly(confident, [True, False, True, False, True], entropies), rel=1e-5)


def test_nothing_counted() -> None:
    assert sureness_of(torch.zeros(2, 3), torch.full((2,), IGNORED)) is None
