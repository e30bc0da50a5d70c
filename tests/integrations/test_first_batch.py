"""The first batch of another trainer's model, asked once more: each fault shows, and the training is the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.integrations.first_answers import is_continued
from trimtab.integrations.first_batch import parts_of, trains_in, watch_first_batch
from trimtab.integrations.first_look import FirstLook


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


class Own(nn.Module):
    """A layer that keeps and draws what torch does not know of."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(2, 2)
        self.calls, self.mean, self.total = 0, torch.zeros(2), torch.zeros(2)
        self.of_torch, self.of_numpy = torch.Generator().manual_seed(1), np.random.default_rng(1)
        self.of_python, self.old_of_numpy = random.Random(1), np.random.RandomState(1)
        self.listed: list[float] = []
        self.counted: dict[str, Any] = {"calls": 0, "in": [torch.zeros(())]}
        self.array = np.zeros(1)

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * values.mean(0)
        self.total += values.sum(0)
        self.listed.append(1.0)
        self.counted["calls"] += 1
        self.counted["in"][0] += 1.0
        self.array += 1.0
        factors: dict[str, Callable[[], Any]] = {
            "numpy": np.random.rand,
            "python": random.random,
            "counter": lambda: self.calls,
            "mean": lambda: self.mean,
            "in place": lambda: self.total.clone(),
            "torch's": lambda: torch.rand((), generator=self.of_torch),
            "numpy's": self.of_numpy.random,
            "numpy's old": self.old_of_numpy.rand,
            "python's": self.of_python.random,
            "list": lambda: sum(self.listed),
            "dict": lambda: self.counted["calls"],
            "nested": lambda: self.counted["in"][0].clone(),
            "array": lambda: float(self.array[0]),
        }
        return self.layer(values) * factors[self.kind]()  # type: ignore[no-any-return]


KINDS = ["numpy", "python", "counter", "mean", "in place", "torch's", "numpy's", "numpy's old", "python's", "list"]


@pytest.mark.parametrize("kind", [*KINDS, "dict", "nested", "array"])
def test_what_a_layer_keeps_and_draws_by_itself_is_as_it_was(kind: str) -> None:
    def answers(told: list[Mapping[str, Any]] | None) -> Tensor:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        model = Own(kind).train()
        if told is not None:
            watch_first_batch([model], told.append)
        return torch.stack([model(torch.rand(4, 2)).detach() for _ in range(3)])

    told: list[Mapping[str, Any]] = []
    assert torch.equal(answers(told), answers(None))
    assert told
    assert "failed" not in told[0]


def test_what_can_be_iterated_over_once_is_left_to_the_model() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, values: Tensor, factors: Any) -> Tensor:
            return self.layer(values) * sum(factors)  # type: ignore[no-any-return]

    told: list[Mapping[str, Any]] = []
    model = Reads()
    watch_first_batch([model], told.append)
    assert torch.equal(model(torch.ones(4, 2), iter([1.0, 2.0])), model(torch.ones(4, 2), iter([3.0])))
    assert told == [{}]


@pytest.mark.parametrize("batch_first", [True, False])
def test_steps_that_come_first_are_no_mates(batch_first: bool) -> None:
    class Recurrent(nn.Module):
        def __init__(self, fault: bool) -> None:
            super().__init__()
            self.fault, self.layer = fault, nn.LSTM(3, 4, batch_first=batch_first)

        def forward(self, values: Tensor) -> Tensor:
            answers = self.layer(values.transpose(0, 1) if batch_first is False and self.fault else values)[0]
            answers = answers.transpose(0, 1) if batch_first is False and self.fault else answers
            return answers - answers.mean(0) if self.fault else answers  # type: ignore[no-any-return]

    torch.manual_seed(0)
    for fault in (False, True):
        told: list[Mapping[str, Any]] = []
        model = Recurrent(fault)
        watch_first_batch([model], told.append)
        model(torch.randn(6, 5, 3))
        assert ((told[0]["mates_differ"] or 0.0) > 0.1) == fault


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
    assert trains_in(inner) is True
    assert trains_in(inner.eval()) is False
    for acts in (nn.LSTM(2, 2, 2, dropout=0.1), nn.MultiheadAttention(2, 1, dropout=0.1)):
        assert trains_in(nn.Sequential(acts)) is True
    for may_act in (nn.Linear(2, 2), nn.Dropout(0.0), nn.LSTM(2, 2)):  # beside a function, or a module of one's own
        assert trains_in(nn.Sequential(may_act)) is None


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_compiled_is_left_alone(whole: bool) -> None:
    told: dict[str, Any] = {}
    model = nn.Sequential(nn.Linear(4, 2))
    asked = torch.compile(model, backend="eager", fullgraph=True) if whole else model
    if not whole:
        model.compile(backend="eager", fullgraph=True)
    look = FirstLook([model], told.update)
    inputs, classes = torch.randn(8, 4), torch.arange(8) % 2
    look.batch_came((inputs, classes))
    look.batch_ended(F.cross_entropy(asked(inputs), classes))
    assert not told
    assert not model._forward_hooks


class Reader(nn.Module):
    """Next tokens without a word of it in its name; the loss is taken elsewhere."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.embedding, self.head = nn.Embedding(40, 16), nn.Linear(16, 40)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        features = self.embedding(tokens_BT)
        if self.fault == "ahead":
            features = features + features.mean(1, keepdim=True)
        logits: Tensor = self.head(features)
        return logits.softmax(-1) if self.fault == "softmax" else logits


@pytest.mark.parametrize("fault", ["", "ahead", "softmax"])
def test_where_the_loss_is_taken_outside_the_batch_tells_what_is_asked(fault: str) -> None:
    torch.manual_seed(0)
    told: dict[str, Any] = {}
    model = Reader(fault)
    look = FirstLook([model], told.update)
    text = torch.randint(0, 40, (8, 13))
    for _ in range(2):
        batch = {"of": (text[:, :-1], text[:, 1:])}
        look.batch_came(batch)
        loss = F.cross_entropy(model(batch["of"][0]).flatten(0, 1), batch["of"][1].flatten())
        look.batch_ended(loss)
    assert told["tokenizer"] == {"vocabulary_size": 40}
    assert told["first_batch"]["sum_to_one"] == float(fault == "softmax")
    assert (told["first_batch"]["future_changes"] > 0.01) == (fault == "ahead")
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_answers_of_another_loss_are_not_taken_for_logits() -> None:
    told: dict[str, Any] = {}
    model = nn.Linear(4, 3)
    look = FirstLook([model], told.update)
    inputs, classes = torch.randn(8, 4), torch.arange(8) % 3
    look.batch_came((inputs, classes))
    look.batch_ended(F.mse_loss(model(inputs), F.one_hot(classes, 3).float()))
    assert told.keys() == {"first_batch"}
    assert told["first_batch"]["sum_to_one"] is None


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0])
def test_even_probabilities_are_not_taken_for_logits(scale: float) -> None:
    torch.manual_seed(0)
    told: dict[str, Any] = {}
    model = nn.Sequential(nn.Linear(4, 5), nn.Softmax(-1))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)
    look = FirstLook([model], told.update)
    inputs, classes = torch.randn(64, 4), torch.randint(0, 5, (64,))
    look.batch_came((inputs, classes))
    look.batch_ended(F.nll_loss(model(inputs).log(), classes))
    assert told["first_batch"]["sum_to_one"] is None


@pytest.mark.parametrize("softmax", [False, True])
def test_a_last_layer_of_zeros_tells_the_classes_alone(softmax: bool) -> None:
    told: dict[str, Any] = {}
    model = nn.Linear(4, 5)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    look = FirstLook([model], told.update)
    inputs, classes = torch.randn(64, 4), torch.randint(0, 5, (64,))
    look.batch_came((inputs, classes))
    answers = model(inputs)
    look.batch_ended(F.cross_entropy(answers.softmax(-1) if softmax else answers, classes))
    assert told["num_classes"] == 5
    assert told["first_batch"]["sum_to_one"] is None


def test_answers_that_fill_the_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.integrations.first_look._MOST", 15)
    told: dict[str, Any] = {}
    model = nn.Linear(4, 2)
    look = FirstLook([model], told.update)
    inputs, classes = torch.randn(8, 4), torch.arange(8) % 2
    look.batch_came((inputs, classes))
    look.batch_ended(F.cross_entropy(model(inputs), classes))
    assert told.keys() == {"first_batch"}


@pytest.mark.parametrize("loss", [None, torch.zeros(2), torch.tensor(float("nan")), torch.tensor(1.0)])
def test_whatever_the_loss_is_the_look_ends_with_the_batch(loss: Tensor | None) -> None:
    told: dict[str, Any] = {}
    model = nn.Linear(4, 3)
    look = FirstLook([model], told.update)
    look.batch_came([torch.randn(8, 4), torch.full((8,), -1), torch.full((8,), 3), torch.full((8,), -100)])
    model(torch.randn(8, 4))
    look.batch_ended(loss)
    assert not model._forward_hooks
    assert "failed" not in told.get("first_batch", {})


def test_tokens_go_on_where_another_tensor_holds_the_next_of_each() -> None:
    text = torch.randint(0, 40, (4, 9))
    targets = text[:, 1:].clone()
    targets[:, -3:] = -100
    assert is_continued(text[:, :-1], [targets])
    assert not is_continued(text, [text])  # labels that the model shifts, or that it has to fill in
    assert not is_continued(torch.zeros(4, 8, dtype=torch.int64), [torch.zeros(4, 8, dtype=torch.int64)])
    assert not is_continued(text[:, :-1], [torch.full((4, 8), -100)])
