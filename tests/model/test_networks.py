"""MLP and CNN: BatchNorm without padding against torch's, what padding changes, answers against plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from trimtab.config import CnnConfig, MlpConfig
from trimtab.model import BatchNorm, ConvolutionalNetwork, MultilayerPerceptron, build_model, parameter_counts
from trimtab.signals import Outputs

CLASSES = Outputs(4, pooled=True)


def network(name: str, **more: Any) -> MultilayerPerceptron | ConvolutionalNetwork:
    kind: Any = {"mlp": MlpConfig, "cnn": CnnConfig}[name]
    config = kind.model_validate({"hidden_size": 6, **more})
    model = build_model(config, vocabulary_size=31, sequence_length=16, seed=1, outputs=CLASSES)
    assert isinstance(model, MultilayerPerceptron | ConvolutionalNetwork)
    return model.double()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(seed))


def ids(*lengths: int, width: int) -> torch.Tensor:
    found = torch.full((len(lengths), width), -1, dtype=torch.int32)
    for row, length in enumerate(lengths):
        found[row, :length] = row
    return found


def norms(channels: int, momentum: float | None) -> tuple[BatchNorm, nn.BatchNorm1d]:
    ours = BatchNorm(channels, momentum=momentum, epsilon=1e-3).double()
    theirs = nn.BatchNorm1d(channels, momentum=momentum, eps=1e-3).double()
    with torch.no_grad():
        for one in (ours.weight, ours.bias):
            one.uniform_(0.5, 2.0)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(lambda one: sum(one) > 1),
    momentum=st.sampled_from([0.1, 1.0, None]),
)
def test_batch_norm_is_torchs_of_the_values_that_are_no_padding(lengths: list[int], momentum: float | None) -> None:
    ours, theirs = norms(3, momentum)
    generator = torch.Generator().manual_seed(sum(lengths))
    real = ids(*lengths, width=5) >= 0
    for _ in range(2):
        x = torch.randn(len(lengths), 5, 3, dtype=torch.float64, generator=generator)
        given_x, plain_x = x.masked_fill(~real[..., None], torch.nan).requires_grad_(), x[real].requires_grad_()
        found, wanted = ours(given_x, real)[real], theirs(plain_x)
        torch.testing.assert_close(found, wanted)
        slope = torch.randn(wanted.shape, dtype=torch.float64, generator=generator)
        (ours_back,) = torch.autograd.grad(found, given_x, slope)
        (theirs_back,) = torch.autograd.grad(wanted, plain_x, slope)
        torch.testing.assert_close(ours_back[real], theirs_back)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(plain_x), theirs.eval()(plain_x))


@pytest.mark.parametrize("real", [[True, False], [False, False]])
def test_one_value_has_no_variance_and_moves_nothing(real: list[bool]) -> None:
    norm = BatchNorm(3).double()
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    before = {name: one.clone() for name, one in norm.state_dict().items()}
    x = torch.tensor([[5.0, 6.0, 7.0], [torch.inf, 0.0, 1.0]], dtype=torch.float64)
    found = norm(x, torch.tensor(real))
    if real[0]:
        assert torch.equal(found[0], norm.bias)
    assert all(torch.equal(one, before[name]) for name, one in norm.state_dict().items())


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing_whatever_it_holds(name: str, training: bool) -> None:
    """Neither what a text is answered nor what is kept of a batch: more positions, and rows without a text."""
    found = []
    texts = [tokens(1, length, length)[0] for length in (2, 7, 4)]
    for width, rows, filling in ((7, 3, 0), (12, 5, 30)):
        model = network(name).train(training)
        read = torch.full((rows, width), filling)
        for row, text in enumerate(texts):
            read[row, : len(text)] = text
        documents = ids(*(len(text) for text in texts), *[0] * (rows - 3), width=width)
        logits = model(read, None, documents).logits
        assert bool(logits.isfinite().all())
        logits[:3].sum().backward()
        gradients = {key: one.grad for key, one in model.named_parameters()}
        found.append((logits[:3].detach(), gradients, dict(model.named_buffers())))
    torch.testing.assert_close(found[0], found[1])
    moved = found[0][2][next(key for key in found[0][2] if key.endswith("running_mean"))]
    assert bool(moved.any()) == training


def test_an_mlp_by_hand() -> None:
    model = network("mlp", num_layers=2, layer_size=5, batch_norm=None, activation="gelu").eval()
    assert isinstance(model, MultilayerPerceptron)
    text, state = tokens(2, 6), model.state_dict()
    documents = ids(6, 4, width=6)
    for row, length in enumerate((6, 4)):
        x = state["embedding.weight"][text[row, :length]].mean(0)
        for layer in range(2):
            weight, bias = state[f"layers.{layer}.linear.weight"], state[f"layers.{layer}.linear.bias"]
            x = F.gelu(weight @ x + bias)
        wanted = state["head.weight"] @ x + state["head.bias"]
        # The mean of embeddings is divided in fp32 alone where they are narrower.
        torch.testing.assert_close(model(text, None, documents).logits[row], wanted)


def test_a_cnn_by_hand() -> None:
    model = network("cnn", widths=[2, 3], num_filters=4, batch_norm={"momentum": 0.5}).eval()
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if "running" in key:
                buffer.uniform_(0.5, 1.5)
    text, state = tokens(2, 6), model.state_dict()
    documents = ids(6, 1, width=6)
    for row, length in enumerate((6, 1)):
        found = []
        for width in (2, 3):
            part = f"filters.width_{width}"
            weight, norm = state[f"{part}.convolution.weight"], f"{part}.after.norm"
            x = state["embedding.weight"][text[row, :length]]
            zeros = torch.zeros(1, 6, dtype=torch.float64)
            before, after = [zeros] * ((width - 1) // 2), [zeros] * (width // 2)
            x = torch.cat([*before, x, *after])
            values = []
            for place in range(length):
                value = torch.stack([(weight[:, :, k] @ x[place + k]) for k in range(width)]).sum(0)
                scale = torch.sqrt(state[f"{norm}.running_var"] + 1e-5)
                value = (value - state[f"{norm}.running_mean"]) / scale
                values.append(F.relu(value * state[f"{norm}.weight"] + state[f"{norm}.bias"]))
            found.append(torch.stack(values).amax(0))
        wanted = state["head.weight"] @ torch.cat(found) + state["head.bias"]
        torch.testing.assert_close(model(text, None, documents).logits[row], wanted)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_weights_at_step_0(name: str) -> None:
    """The same of a seed, of He's variance, and no bias where a norm follows."""
    sizes: dict[str, Any] = {"mlp": {"layer_size": 300}, "cnn": {"num_filters": 300, "widths": [5]}}[name]
    model, again = network(name, hidden_size=50, **sizes), network(name, hidden_size=50, **sizes)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    inner = "layers.0.linear" if name == "mlp" else "filters.width_5.convolution"
    state = model.state_dict()
    weight = state[f"{inner}.weight"]
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / weight[0].numel()), rel=0.03)
    assert float(state["head.weight"].std()) == pytest.approx(math.sqrt(1 / 300), rel=0.05)
    assert f"{inner}.bias" not in state
    assert f"{inner}.bias" in network(name, batch_norm=None, **sizes).state_dict()
    counts = parameter_counts(model)["groups"]
    layers = 2 if name == "mlp" else 1
    assert counts["norm"] == 2 * 300 * layers
    assert counts["head"] == 300 * 4 + 4
    assert counts["embedding"] == 31 * 50


def test_widths_are_each_there_once() -> None:
    with pytest.raises(ValueError, match=r"widths must differ.*Received: \[3, 3\]"):
        CnnConfig.model_validate({"widths": [3, 3]})
