"""The decoder against a second one, in numpy, from the papers: float64, loops over heads and queries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trimtab.model import Decoder, set_dropout_factor

Array = NDArray[np.float64]

SHAPE: dict[str, Any] = {
    "vocabulary_size": 19,
    "max_positions": 9,
    "num_layers": 2,
    "hidden_size": 24,
    "num_heads": 4,
    "feed_forward_size": 40,
}

CASES: dict[str, dict[str, Any]] = {
    "tanh": {"activation": "gelu_tanh", "bias": True},
    "llama": {"norm": "rms_norm", "activation": "swiglu"},
    "gpt2": {"positions": "learned", "bias": True},
    "post layer_norm": {"norm_placement": "post", "positions": "sinusoidal", "bias": True},
    "post rms_norm": {"norm_placement": "post", "norm": "rms_norm", "activation": "relu_squared"},
    "layer_norm without bias": {"positions": "sinusoidal"},
    "grouped queries": {"num_kv_heads": 2},
    "one head of keys": {"num_kv_heads": 1, "bias": True},
    "qk_norm": {"qk_norm": True},
    "qk_norm and grouped": {"qk_norm": True, "num_kv_heads": 2, "norm": "rms_norm"},
    "untied": {"tied_embeddings": False},
    "other base, large epsilon": {"rotary_base": 100.0, "norm_epsilon": 0.1},
    "documents": {"document_mask": True},
    "documents, learned, grouped": {"document_mask": True, "positions": "learned", "num_kv_heads": 2},
    "attention dropout": {"attention_dropout": 0.5, "num_kv_heads": 2},
    "attention dropout, documents": {"attention_dropout": 0.5, "document_mask": True},
}


def normalize(x: Array, weights: dict[str, Array], name: str, kind: str, epsilon: float) -> Array:
    if kind == "layer_norm":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    return x * weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0.0)


def linear(x: Array, weights: dict[str, Array], name: str) -> Array:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def turn(x: Array, position: int, base: float) -> Array:
    size = len(x)
    turned = np.empty_like(x)
    for i in range(size // 2):
        angle = position * base ** (-2 * i / size)
        a, b = x[2 * i], x[2 * i + 1]
        turned[2 * i] = a * math.cos(angle) - b * math.sin(angle)
        turned[2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return turned


def activate(x: Array, activation: str) -> Array:
    if activation == "relu_squared":
        return np.maximum(x, 0.0) ** 2
    if activation == "swiglu":
        gate, value = np.split(x, 2, axis=-1)
        return gate / (1.0 + np.exp(-gate)) * value
    if activation == "gelu_tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def attend(
    x: Array,
    weights: dict[str, Array],
    name: str,
    c: dict[str, Any],
    positions: list[int],
    documents: list[int],
) -> Array:
    heads, groups = c["num_heads"], c.get("num_kv_heads", c["num_heads"])
    size = c["hidden_size"] // heads
    projected = linear(x, weights, f"{name}.qkv").reshape(len(x), heads + 2 * groups, size)
    mixed = np.zeros((len(x), heads, size))
    for head in range(heads):
        group = head * groups // heads
        queries, keys = projected[:, head], projected[:, heads + group]
        values = projected[:, heads + groups + group]
        if c.get("qk_norm"):
            queries = normalize(queries, weights, f"{name}.query_norm", "rms_norm", 1e-6)
            keys = normalize(keys, weights, f"{name}.key_norm", "rms_norm", 1e-6)
        if c.get("positions", "rotary") == "rotary":
            base = c.get("rotary_base", 10_000.0)
            queries = np.stack([turn(q, p, base) for q, p in zip(queries, positions, strict=True)])
            keys = np.stack([turn(k, p, base) for k, p in zip(keys, positions, strict=True)])
        for t in range(len(x)):
            seen = [s for s in range(t + 1) if documents[s] == documents[t]]
            scores = np.array([queries[t] @ keys[s] / math.sqrt(size) for s in seen])
            shares = np.exp(scores - scores.max())
            mixed[t, head] = (shares / shares.sum()) @ values[seen]
    return linear(mixed.reshape(len(x), -1), weights, f"{name}.output")


def reference_logits(
    weights: dict[str, Array],
    c: dict[str, Any],
    tokens: list[int],
    positions: list[int],
    documents: list[int],
) -> Array:
    kind, epsilon = c.get("norm", "layer_norm"), c.get("norm_epsilon", 1e-5)
    size = c["hidden_size"]
    x = weights["embedding.weight"][tokens]
    if c.get("positions") == "learned":
        x = x + weights["position_embedding.weight"][positions]
    if c.get("positions") == "sinusoidal":
        for t, position in enumerate(positions):
            for i in range(size // 2):
                angle = position / 10_000 ** (2 * i / size)
                x[t, 2 * i] += math.sin(angle) / math.sqrt(size)
                x[t, 2 * i + 1] += math.cos(angle) / math.sqrt(size)

    for i in range(c["num_layers"]):

        def attention(x: Array, name: str = f"blocks.{i}.attention") -> Array:
            return attend(x, weights, name, c, positions, documents)

        def feed_forward(x: Array, name: str = f"blocks.{i}.feed_forward") -> Array:
            activated = activate(linear(x, weights, f"{name}.up"), c.get("activation", "gelu"))
            return linear(activated, weights, f"{name}.down")

        for sublayer, name in ((attention, "attention"), (feed_forward, "feed_forward")):
            norm = f"blocks.{i}.{name}_norm"
            if c.get("norm_placement") == "post":
                x = normalize(x + sublayer(x), weights, norm, kind, epsilon)
            else:
                x = x + sublayer(normalize(x, weights, norm, kind, epsilon))
    if c.get("norm_placement") != "post":
        x = normalize(x, weights, "final_norm", kind, epsilon)
    return x @ weights["head.weight"].T


@pytest.mark.parametrize("case", CASES)
def test_forward(case: str) -> None:
    c = SHAPE | CASES[case]
    model = Decoder(**c)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = torch.empty(parameter.shape).normal_(0.0, 0.25, generator=generator)
            parameter.copy_(spread if parameter.dim() > 1 else parameter + spread)
    set_dropout_factor(model, 0.0)

    tokens_BT = torch.randint(19, (2, 9), generator=generator)
    positions_BT = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2], list(range(9))], dtype=torch.int32)
    documents_BT = torch.tensor([[4, 4, 4, 4, 5, 5, 6, 6, 6], [9] * 9], dtype=torch.int32)
    with torch.no_grad():
        logits_BTV = model(tokens_BT, positions_BT, documents_BT).logits

    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    for row in range(2):
        masked = c.get("document_mask", False)
        expected = reference_logits(
            weights,
            c,
            tokens_BT[row].tolist(),
            positions_BT[row].tolist() if masked else list(range(9)),
            documents_BT[row].tolist() if masked else [0] * 9,
        )
        np.testing.assert_allclose(logits_BTV[row].numpy(), expected, rtol=2e-5, atol=2e-5)
