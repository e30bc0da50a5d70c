"""What no sound model does before step 1, planted in models that do it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import load_config
from trimtab.data import PreparedData, prepare_data
from trimtab.model import build_model, wrap_model
from trimtab.objective import build_objective, build_task
from trimtab.signals import Task
from trimtab.training.first_batch import first_batch


class Odd(nn.Module):
    """A model of next tokens with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.embedding, self.head = nn.Embedding(257, 16), nn.Linear(16, 257)
        self.norm, self.first = nn.BatchNorm1d(16), nn.Linear(1, 16)
        self.counter = nn.Buffer(torch.zeros(()))

    def forward(self, tokens: Tensor) -> Tensor:
        self.counter += 1
        if self.fault == "unscaled":
            return self.head(self.first(tokens.float()[..., None]))  # type: ignore[no-any-return]
        features = self.embedding(tokens)
        if self.fault == "dropout":
            features = F.dropout(features, 0.1)
        if self.fault == "ahead":
            features = features + features.mean(1, keepdim=True)
        if self.fault == "batch":
            features = F.batch_norm(features.flatten(0, 1), None, None, training=True).view_as(features)
        logits: Tensor = self.head(features)
        return logits.softmax(-1) if self.fault == "softmax" else logits


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedData, Task]:
    folder: Path = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("".join(f"{number * 7919 % 10007} is said of {number}\n" for number in range(200)))
    settings = {
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": 0.5}},
        "data": {
            "sequence_length": 24,
            "source": {"name": "text", "path": str(folder / "text.txt")},
            "tokenizer": {"name": "bytes"},
        },
    }
    config = load_config(settings, environment={})
    return prepare_data(config.data, config.task, seed=0), build_task(config.task, build_objective(config.objective))


@pytest.mark.parametrize("fault", ["", "dropout", "ahead", "batch", "softmax", "unscaled"])
def test_each_fault_shows_in_one_number_and_leaves_no_trace(fault: str, prepared: tuple[PreparedData, Task]) -> None:
    data, task = prepared
    torch.manual_seed(0)
    odd = Odd(fault)
    model = wrap_model(odd, 257).train()
    state = torch.get_rng_state()
    found = first_batch(model, task, data.training)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert odd.counter == 0
    assert not odd.embedding._forward_pre_hooks
    assert (found["repeats_differ"] > 0.01) == (fault == "dropout")
    # Dropout draws anew for one sequence, too.
    assert (found["mates_differ"] > 0.1) == (fault in ("batch", "dropout"))
    assert (found["future_changes"] is None) == (fault in ("batch", "dropout"))
    assert ((found["future_changes"] or 0.0) > 0.01) == (fault == "ahead")
    assert found["sum_to_one"] == (fault == "softmax")
    assert (found["input_rms"] is not None and found["input_rms"] > 10) == (fault == "unscaled")


def test_a_model_of_ours_does_none_of_it(prepared: tuple[PreparedData, Task]) -> None:
    data, task = prepared
    config = load_config(
        {
            "model": {
                "name": "decoder",
                "num_layers": 2,
                "hidden_size": 16,
                "num_heads": 2,
                "dropout": {"residual": 0.5},
            }
        },
        environment={},
    )
    model = build_model(config.model, vocabulary_size=data.vocabulary_size, sequence_length=24, seed=0)
    found = first_batch(model, task, data.training)
    assert found["repeats_differ"] == 0
    assert found["mates_differ"] < 1e-4
    assert found["future_changes"] < 1e-4
    assert found["sum_to_one"] == 0
    assert found["input_rms"] is None


def test_a_model_that_takes_no_single_sequence_is_not_asked_for_one(prepared: tuple[PreparedData, Task]) -> None:
    data, task = prepared

    class Pair(Odd):
        def forward(self, tokens: Tensor) -> Tensor:
            if len(tokens) < 2:
                raise ValueError("two at least")
            return super().forward(tokens)

    assert first_batch(wrap_model(Pair(""), 257), task, data.training)["mates_differ"] is None


def test_a_model_that_cannot_be_asked_is_said_to_be_so(prepared: tuple[PreparedData, Task]) -> None:
    data, task = prepared

    class Refuses(Odd):
        def forward(self, tokens: Tensor) -> Tensor:
            raise ValueError("eight sequences, no other number")

    found = first_batch(wrap_model(Refuses(""), 257), task, data.training)
    assert found == {"failed": "ValueError: eight sequences, no other number"}


class TwoNorms(nn.Module):
    """BatchNorm and LayerNorm: in a row, with a layer between, with a residual sum between, or each alone."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.embedding, self.between, self.head = nn.Embedding(257, 16), nn.Linear(16, 16), nn.Linear(16, 257)
        self.batch, self.layer = nn.BatchNorm1d(16), nn.LayerNorm(16)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for name in self.order.split():
            if name == "batch":
                x = self.batch(x.transpose(1, 2)).transpose(1, 2)
            elif name == "layer":
                x = self.layer(x)
            elif name == "residual":
                x = x + self.between(x)
            else:
                x = self.between(x)
        return self.head(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "order, names",
    [
        ("batch layer", ["layer"]),
        ("layer batch", ["batch"]),
        ("batch between layer", None),
        ("batch residual layer", None),
        ("layer between layer", None),
        ("batch", None),
    ],
)
def test_norms_of_two_kinds_in_a_row_are_named(
    order: str, names: list[str] | None, prepared: tuple[PreparedData, Task]
) -> None:
    data, task = prepared
    found = first_batch(wrap_model(TwoNorms(order), 257), task, data.training)
    assert "failed" not in found
    named = found.get("normalized_twice")
    assert (named and [name.rpartition(".")[2] for name in named]) == names
