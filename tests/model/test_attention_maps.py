"""Attention as it is read beside a model, against what the model and torch say themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from tiny_hugging_face import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import DecoderConfig
from trimtab.model import Decoder, EncoderDecoder, attention_maps, build_model, evaluating
from trimtab.model.attention_maps import AttentionCall, attention_read, measure_heads

Calls = dict[str, tuple[Tensor, Tensor, Tensor]]
"""Module to weights, logits and what is seen, [B, H, T, S]."""


def read(model: nn.Module, run: Callable[[], Any]) -> tuple[Calls, list[AttentionCall]]:
    found: Calls = {}
    calls: list[AttentionCall] = []

    def keep(call: AttentionCall) -> None:
        rows = [call.logits(index) for index in range(call.num_sequences)]
        weights = torch.stack([call.weights(index) for index in range(call.num_sequences)])
        found[call.name] = (weights, *(torch.stack(each) for each in zip(*rows, strict=True)))
        calls.append(call)

    with evaluating(model), attention_read(model, keep):
        run()
    return found, calls


def decoder(**shape: Any) -> Decoder:
    config = {"num_layers": 2, "hidden_size": 32, "num_heads": 4, **shape}
    model = build_model(DecoderConfig.model_validate(config), vocabulary_size=23, sequence_length=16, seed=3)
    assert isinstance(model, Decoder)
    with torch.no_grad():  # so that heads differ
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


TOKENS = torch.randint(0, 23, (2, 9), generator=torch.Generator().manual_seed(0))
DOCUMENTS = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, -1, -1]])
POSITIONS = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 0, 1]])


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_kv_heads": 2, "qk_norm": True},
        {"num_kv_heads": 1, "positions": {"name": "learned"}, "document_mask": True},
        {"document_mask": True, "qk_norm": True},
    ],
)
def test_our_attention_is_what_its_values_are_averaged_with(shape: dict[str, Any]) -> None:
    """The weights times the values, put together, are the output of the attention, for every kind of it."""
    model = decoder(**shape)
    outputs: dict[str, Tensor] = {}
    for index, block in enumerate(model.all_blocks):
        for name, module in (("attention", block.attention), ("qkv", block.attention.qkv)):
            module.register_forward_hook(
                lambda module, given, output, name=f"{index}.{name}": outputs.update({name: output})
            )
    found, _ = read(model, lambda: model(TOKENS, POSITIONS, DOCUMENTS))
    assert list(found) == ["blocks.0.attention", "blocks.1.attention"]
    for index, block in enumerate(model.all_blocks):
        weights, _, seen = found[f"blocks.{index}.attention"]
        output, projected = outputs[f"{index}.attention"], outputs[f"{index}.qkv"]
        attention, groups = block.attention, block.attention.num_kv_heads
        values = projected.unflatten(-1, (-1, attention.head_size))[:, :, -groups:].transpose(1, 2)
        heads = weights @ values.repeat_interleave(4 // groups, dim=1)
        torch.testing.assert_close(attention.output(heads.transpose(1, 2).flatten(2)), output)
        rows = weights.sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))
        expected = torch.ones(9, 9).tril().bool().expand(2, 4, 9, 9)
        if shape.get("document_mask"):
            expected = expected & (DOCUMENTS[:, :, None] == DOCUMENTS[:, None, :])[:, None]
        assert torch.equal(seen, expected)


@pytest.mark.parametrize("implementation", [None, "eager"])
@pytest.mark.parametrize("name", sorted(TINY))
def test_models_of_transformers_as_they_say_themselves(name: str, implementation: str | None) -> None:
    """`output_attentions` gives the same weights, in the same order, whichever way they are computed."""
    transformers = pytest.importorskip("transformers")
    settings = dict(TINY[name])
    kind = "CausalLM" if name in ("gpt2", "llama", "gemma2", "starcoder2") else "MaskedLM"
    kind = "Seq2SeqLM" if name in ("t5", "bart") else kind
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    auto = getattr(transformers, f"AutoModelFor{kind}")
    eager = auto.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in eager.parameters():
            parameter.mul_(3)
    model = auto.from_config(deepcopy(config), attn_implementation=implementation).eval()
    model.load_state_dict(eager.state_dict())
    tokens = torch.randint(5, 60, (2, 7))
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if kind == "Seq2SeqLM":
        inputs["decoder_input_ids"] = tokens[:, :5]
    found, _ = read(model, lambda: model(**inputs))
    with torch.no_grad():
        output = eager(**inputs, output_attentions=True)
    if kind == "Seq2SeqLM":
        pairs = zip(output.decoder_attentions, output.cross_attentions, strict=True)
        wanted = [*output.encoder_attentions, *(one for pair in pairs for one in pair)]
    else:
        wanted = list(output.attentions)
    for (called, (weights, _, seen)), expected in zip(found.items(), wanted, strict=True):
        real = mask.bool() if weights.shape[2] == 7 else torch.ones(2, 5, dtype=torch.bool)
        rows = real[:, None].expand(weights.shape[:3])
        torch.testing.assert_close(weights[rows], expected[rows], atol=5e-6, rtol=1e-4)
        if weights.shape[3] == 7:  # padding is not among the keys that a real position sees
            assert not seen[1, :, real[1]][..., 5:].any(), called


def test_an_encoder_and_decoder_attends_in_three_ways() -> None:
    shape: Any = {"vocabulary_size": 23, "max_positions": 16, "num_layers": 1, "hidden_size": 16, "num_heads": 2}
    model = EncoderDecoder(feed_forward_size=32, **shape)
    documents = torch.zeros(2, 9, dtype=torch.int64)
    documents[1, 6:] = -1
    found, _ = read(model, lambda: model(TOKENS, documents, TOKENS[:, :4]))
    shapes = {name: tuple(weights.shape) for name, (weights, *_) in found.items()}
    assert shapes == {
        "encoder.blocks.0.attention": (2, 2, 9, 9),
        "decoder.blocks.0.attention": (2, 2, 4, 4),
        "decoder.blocks.0.memory_attention": (2, 2, 4, 9),
    }
    assert not found["decoder.blocks.0.memory_attention"][2][1, ..., 6:].any()


def test_modules_of_torch_are_read_without_changing_what_they_give() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, dropout=0.0, batch_first=True), 2)
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        plain = model(x, src_key_padding_mask=padding)
    results: list[Tensor] = []
    found, calls = read(model.train(), lambda: results.append(model(x, src_key_padding_mask=padding)))
    assert [call.knows_logits for call in calls] == [False, False]
    with torch.no_grad():
        _, wanted = model.layers[0].self_attn(x, x, x, key_padding_mask=padding, average_attn_weights=False)
    torch.testing.assert_close(found["layers.0.self_attn"][0], wanted)
    torch.testing.assert_close(results[0], plain)
    assert torch.isnan(measure_heads(calls[0]).largest_logit).all()


@pytest.mark.parametrize("at_once", [1, 70, 1 << 24])
def test_what_heads_do_against_a_slow_calculation(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query by itself, in float64, with masks, padding, and queries that see one key or none."""
    monkeypatch.setattr(attention_maps, "_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 4, 6, 8, generator=generator), torch.randn(2, 2, 7, 8, generator=generator)
    seen = torch.rand(2, 1, 6, 7, generator=generator) < 0.6
    seen[0, 0, 2] = False
    seen[1, 0, 3] = torch.arange(7) == 4
    counted = torch.rand(2, 6, generator=generator) < 0.7
    counted[0, 2] = counted[1, 3] = True
    module = _Calls(q, k, seen)
    (_, (call,)) = read(module, module)
    measured = measure_heads(call, counted)
    for head in range(4):
        entropies, relatives, firsts, largest = [], [], [], -math.inf
        for row in range(2):
            for query in range(6):
                keys = [key for key in range(7) if seen[row, 0, query, key]]
                if len(keys) < 2 or not counted[row, query]:
                    continue
                products = [
                    float(q[row, head, query].double() @ k[row, head // 2, key].double()) / math.sqrt(8) for key in keys
                ]
                total = sum(math.exp(one) for one in products)
                weights = [math.exp(one) / total for one in products]
                entropies.append(-sum(one * math.log(one) for one in weights))
                relatives.append(entropies[-1] / math.log(len(keys)))
                firsts.append(weights[0])
                largest = max(largest, *products)
        mine = [getattr(measured, name)[head].item() for name in ("entropy", "relative_entropy", "first")]
        slow = [sum(values) / len(values) for values in (entropies, relatives, firsts)]
        assert mine == pytest.approx(slow, rel=1e-5)
        assert measured.largest_logit[head].item() == pytest.approx(largest, rel=1e-5)
    nobody = measure_heads(call, torch.zeros(2, 6, dtype=torch.bool))
    assert torch.isnan(nobody.entropy).all()
    assert torch.isnan(nobody.largest_logit).all()


class _Calls(nn.Module):
    def __init__(self, q: Tensor, k: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.q, self.k, self.mask = q, k, mask

    def forward(self) -> Tensor:
        return F.scaled_dot_product_attention(self.q, self.k, self.k, attn_mask=self.mask, enable_gqa=True)


def test_some_queries_are_the_same_as_among_all() -> None:
    """Causal, with a mask, and of a module that computes softmax by itself."""
    model = decoder(document_mask=True)
    calls = [read(model, lambda: model(TOKENS))[1][0], read(model, lambda: model(TOKENS, POSITIONS, DOCUMENTS))[1][1]]
    logits = torch.randn(2, 3, 9, 9)
    softmax = nn.Softmax(dim=-1)
    calls += read(softmax, lambda: softmax(logits))[1]
    for call in calls:
        whole = call.logits(1)
        for queries in (slice(0, 4), slice(4, 9)):
            for part, all_of_it in zip(call.logits(1, queries), whole, strict=True):
                torch.testing.assert_close(part, all_of_it[:, queries])


def test_looking_leaves_no_trace_and_changes_nothing() -> None:
    """Output and gradients are the same to the bit, and hooks are gone, also after an error."""
    model = decoder(qk_norm=True)
    packs = [block.attention for block in model.all_blocks]
    for attention in packs:
        attention.packs = True
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()]

    def gradients() -> list[Tensor]:
        loss = model(TOKENS).logits.logsumexp(-1).sum()
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    plain = gradients()
    with attention_read(model, lambda call: None):
        assert not any(attention.packs for attention in packs)
        looked = gradients()
    assert all(torch.equal(one, other) for one, other in zip(plain, looked, strict=True))
    with pytest.raises(RuntimeError, match="told"), attention_read(model, _raises):
        model(TOKENS)
    assert all(attention.packs for attention in packs)
    assert hooks == [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()]
    seen: list[str] = []
    with attention_read(model, lambda call: seen.append(call.name)):
        model(TOKENS)
        model(TOKENS)
    assert seen == ["blocks.0.attention", "blocks.1.attention", "blocks.0.attention:2", "blocks.1.attention:2"]


def _raises(call: AttentionCall) -> None:
    raise RuntimeError("told")


def test_outputs_of_an_encoder_head_are_no_attention() -> None:
    """Softmax over classes has two dimensions."""
    module = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=-1))
    assert read(module, lambda: module(torch.randn(2, 4)))[0] == {}
