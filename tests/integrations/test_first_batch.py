"""The first batch of another trainer's model, asked once more: each fault shows, and the training is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.integrations.first_batch import parts_of, trains_in, watch_first_batch


class OddForCausalLM(nn.Module):
    """Next tokens, as a model of transformers gives them, with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.embedding, self.drop, self.head = nn.Embedding(40, 16), nn.Dropout(0.3), nn.Linear(16, 40)
        self.first, self.counter = nn.Linear(1, 16), nn.Buffer(torch.zeros(()))

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.counter += 1
        if self.fault == "unscaled":
            features = self.first(input_ids.float()[..., None] * 10.0)
        else:
            features = self.drop(self.embedding(input_ids))
        if self.fault == "dropout":
            features = F.dropout(features, 0.1)
        if self.fault == "ahead":
            features = features + features.mean(1, keepdim=True)
        if self.fault == "batch":
            features = F.batch_norm(features.flatten(0, 1), None, None, training=True).view_as(features)
        logits = self.head(features)
        if self.fault in ("softmax", "likelihood"):
            logits = logits.softmax(-1)
        taken = logits.log() if self.fault == "likelihood" else logits
        return {"loss": F.cross_entropy(taken[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), "logits": logits}


def steps(fault: str, told: list[Mapping[str, Any]] | None) -> tuple[list[float], OddForCausalLM]:
    """Losses of three steps, watched or not."""
    torch.manual_seed(3)
    model, tokens = OddForCausalLM(fault).train(), torch.randint(0, 40, (3, 4, 12))
    if told is not None:
        watch_first_batch([model], told.append)
    losses = []
    for batch in tokens:
        model.zero_grad()
        loss = model(input_ids=batch, labels=batch)["loss"]
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(weight.grad if weight.grad is not None else 0.0, alpha=0.1)
        losses.append(float(loss.detach()))
    return losses, model


@pytest.mark.parametrize("fault", ["", "dropout", "ahead", "batch", "softmax", "likelihood", "unscaled"])
def test_each_fault_shows_in_one_number_and_the_training_is_the_same(fault: str) -> None:
    told: list[Mapping[str, Any]] = []
    losses, model = steps(fault, told)
    assert losses == steps(fault, None)[0]
    assert model.counter == 3
    assert not model._forward_pre_hooks
    (found,) = told
    assert (found["repeats_differ"] > 0.01) == (fault == "dropout")
    assert (found["mates_differ"] > 0.1) == (fault in ("batch", "dropout"))
    assert ((found["future_changes"] or 0.0) > 0.01) == (fault == "ahead")
    # Probabilities whose logarithm the loss takes are no fault.
    assert (found["sum_to_one"] == 1.0) == (fault == "softmax")
    assert ((found["input_rms"] or 0.0) > 10.0) == (fault == "unscaled")


def test_a_model_that_cannot_be_asked_again_still_trains() -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, values: Tensor) -> Tensor:
            if not self.training:
                raise ValueError("only in training")
            return self.layer(values)  # type: ignore[no-any-return]

    told: list[Mapping[str, Any]] = []
    model = Once()
    watch_first_batch([model], told.append)
    assert model(torch.ones(4, 2)).shape == (4, 2)
    assert told == [{"failed": "ValueError: only in training"}]
    assert model.training


def test_the_parts_that_may_be_called_and_what_trains() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    whole = nn.Sequential(inner, nn.ReLU())
    assert parts_of(whole) == [whole, inner]
    assert trains_in(inner)
    assert not trains_in(inner.eval())
    assert not trains_in(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))
