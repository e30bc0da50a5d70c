"""Activations computed again: the same bits, less memory, in eager and compiled programs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_hugging_face import TINY
from torch import nn

import trimtab
from trimtab.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig, HuggingFaceConfig
from trimtab.errors import ConfigError, UsageError
from trimtab.model import Block, Decoder, Transformer, build_model
from trimtab.model.recompute import refuses_capture, set_recompute, ways_to_recompute
from trimtab.signals import Outputs, SpecialTokens

DROPOUT = {"embedding": 0.1, "attention": 0.1, "residual": 0.2, "feed_forward": 0.2, "layer": 0.3}
SHAPES: dict[str, dict[str, Any]] = {
    "gelu": {},
    "swiglu, rms_norm, qk_norm": {"activation": "swiglu", "norm": {"name": "rms_norm"}, "qk_norm": True},
    "squared relu, groups": {"activation": "relu_squared", "num_kv_heads": 2, "bias": True},
    "post": {"norm": {"name": "layer_norm", "placement": "post"}},
    "dropout": {"dropout": DROPOUT},
    "dropout, block": {"dropout": {**DROPOUT, "layer_unit": "block", "ramp": "linear"}},
}


def built(kind: str = "decoder", **more: Any) -> Transformer:
    shape = {"num_layers": 3, "hidden_size": 32, "num_heads": 4, **more}
    config: Any = {"decoder": DecoderConfig, "encoder": EncoderConfig, "encoder_decoder": EncoderDecoderConfig}[kind]
    model = build_model(config.model_validate(shape), vocabulary_size=19, sequence_length=24, seed=1)
    assert isinstance(model, Transformer)
    return model


def passed(model: Transformer, kind: str, *, autocast: bool = False) -> tuple[list[torch.Tensor], int]:
    """The loss and the gradients of a pass, and the bytes that were kept for backward, parameters left out."""
    tokens = torch.randint(0, 19, (4, 24), generator=torch.Generator().manual_seed(0))
    ids = torch.zeros(4, 24, dtype=torch.int32)
    ids[:, 15:] = -1
    own = {parameter.untyped_storage().data_ptr() for parameter in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(5)
    model.zero_grad()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        match kind:
            case "encoder_decoder":
                output = model(tokens, ids, tokens[:, :9])
            case "encoder":
                output = model(tokens, None, ids)
            case _:
                output = model(tokens)
        held = sum(kept.values())
    # Cubed: a linear loss would not notice a draw that is another in backward.
    loss = output.features.double().pow(3).sum()
    torch.autograd.backward(loss)
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [loss.detach(), *grads], held


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["selective", "full"])
def test_bits_are_those_of_keeping_everything_and_less_is_kept(how: Any, shape: str) -> None:
    model = built(**SHAPES[shape])
    plain, before = passed(model, "decoder")
    set_recompute(model, how)
    again, after = passed(model, "decoder")
    assert len(plain) == len(again) > 3
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert after < (0.35 if how == "full" else 0.9) * before
    set_recompute(model, "none")
    assert passed(model, "decoder")[1] == before


@pytest.mark.parametrize("kind", ["encoder", "encoder_decoder"])
@pytest.mark.parametrize("how", ["selective", "full"])
def test_so_it_is_with_padding_and_a_memory_and_under_autocast(how: Any, kind: str) -> None:
    model = built(kind, dropout=DROPOUT)
    for autocast in (False, True):
        set_recompute(model, "none")
        plain, before = passed(model, kind, autocast=autocast)
        set_recompute(model, how)
        again, after = passed(model, kind, autocast=autocast)
        assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
        assert after < before


def test_products_are_not_computed_twice_where_only_norms_and_activations_are() -> None:
    model = built()
    counts = {}
    for how in ("none", "selective", "full"):
        set_recompute(model, how)  # type: ignore[arg-type]
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            passed(model, "decoder")
        counts[how] = counter.get_total_flops()
    assert counts["selective"] == counts["none"]
    assert 1.2 * counts["none"] < counts["full"] < 1.4 * counts["none"]


def test_evaluation_computes_nothing_again() -> None:
    model = built()
    set_recompute(model, "full")
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    for block in model.all_blocks:
        block.register_forward_pre_hook(count)
    model.eval()
    torch.autograd.backward(model(torch.zeros(1, 4, dtype=torch.int64)).features.sum())  # type: ignore[operator]
    assert calls == 3
    model.train()
    torch.autograd.backward(model(torch.zeros(1, 4, dtype=torch.int64)).features.sum())
    assert calls == 9


@pytest.mark.parametrize(
    ("how", "whole"),
    [
        ("selective", True),
        ("full", False),
        pytest.param("selective", False, marks=pytest.mark.slow),
        pytest.param("full", True, marks=pytest.mark.slow),
    ],
)
def test_compiled_programs_give_the_same(how: Any, whole: bool) -> None:
    """Traced and partitioned as inductor would have it, and run by torch's own kernels."""
    model = built().double()
    plain, _ = passed(model, "decoder")
    set_recompute(model, how)
    torch._dynamo.reset()
    for module in [model] if whole else model.all_blocks:
        module.compile(dynamic=False, backend="aot_eager_decomp_partition", fullgraph=True)
    compiled, _ = passed(model, "decoder")
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_graph_cannot_put_a_generator_back() -> None:
    model = built(dropout={"residual": 0.1})
    assert refuses_capture(model) is None
    set_recompute(model, "selective")
    assert refuses_capture(model) is None
    set_recompute(model, "full")
    assert "dropout" in str(refuses_capture(model))
    plain = built()
    set_recompute(plain, "full")
    assert refuses_capture(plain) is None


def test_a_module_from_outside_is_refused() -> None:
    set_recompute(torch.nn.Linear(2, 2), "none")
    with pytest.raises(ConfigError, match="with a model that can: none"):
        set_recompute(torch.nn.Linear(2, 2), "full")
    assert ways_to_recompute(torch.nn.Linear(2, 2)) == ("none",)


@pytest.mark.parametrize(("family", "task"), [("gpt2", "causal_lm"), ("bert", "masked_lm"), ("t5", "seq2seq")])
def test_models_of_transformers_give_the_same_bits_and_keep_less(family: str, task: str) -> None:
    pytest.importorskip("transformers")
    deeper = {"n_layer": 6} if family == "gpt2" else {"num_hidden_layers": 6} if family == "bert" else {"num_layers": 6}
    section = HuggingFaceConfig.model_validate({"config": TINY[family] | deeper | {"vocab_size": 64}})
    outputs = Outputs(64, of_tokens=True, task=task)
    special = SpecialTokens(0, 1, 0)
    model = build_model(section, vocabulary_size=64, sequence_length=32, seed=0, outputs=outputs, special=special)
    assert ways_to_recompute(model) == ("none", "full")

    def step() -> tuple[list[torch.Tensor], int]:
        own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept.update({storage.data_ptr(): storage.nbytes()} if storage.data_ptr() not in own else {})
            return tensor

        torch.manual_seed(5)
        model.zero_grad()
        tokens = torch.randint(2, 64, (4, 32), generator=torch.Generator().manual_seed(0))
        documents = torch.zeros(4, 32, dtype=torch.int32)
        documents[:, 25:] = -1
        second = [tokens[:, :9]] if task == "seq2seq" else []
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output: Any = model(tokens, None, documents, *second)
            held = sum(kept.values())
        logits = output if isinstance(output, torch.Tensor) else output.logits
        loss = logits.double().pow(3).sum()  # a linear loss would not notice a draw that is another in backward
        loss.backward()
        return [loss.detach(), *(one.grad for one in model.parameters() if one.grad is not None)], held

    plain, before = step()
    set_recompute(model, "full")
    again, after = step()
    assert len(plain) == len(again) > 10
    assert all(torch.equal(one, two) for one, two in zip(plain, again, strict=True))
    assert after < 0.6 * before
    with pytest.raises(ConfigError, match="selective is for trimtab's own"):
        set_recompute(model, "selective")
    set_recompute(model, "none")
    assert step()[1] == before


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
        y: torch.Tensor = x + scale * self.drop(torch.tanh(self.inner(x)))
        return y


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, scale=0.5)
        return x


def test_layers_of_any_module_are_computed_again_to_the_same_bits() -> None:
    def step(model: nn.Module) -> tuple[list[torch.Tensor], int]:
        kept: list[torch.Tensor] = []
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(lambda one: (kept.append(one), one)[1], lambda one: one):
            total = model(torch.ones(16, 8, requires_grad=True)).square().sum()
        number = len(kept)
        total.backward()
        return [
            total.detach(),
            *(parameter.grad for parameter in model.parameters() if parameter.grad is not None),
        ], number

    torch.manual_seed(0)
    plain = Stack()
    other = copy.deepcopy(plain)
    (expected, many), (found, few) = step(plain), step(trimtab.MemoryEfficientLLM(other))
    assert len(found) == len(expected) == 9
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert few < many / 2
    with pytest.raises(UsageError, match="no layers were found"):
        trimtab.MemoryEfficientLLM(nn.Linear(2, 2))


def test_models_of_ours_and_of_transformers_compute_their_own_layers_again() -> None:
    ours = Decoder(vocabulary_size=20, max_positions=8, num_layers=2, hidden_size=8, num_heads=2, feed_forward_size=16)
    trimtab.MemoryEfficientLLM(ours)
    assert [module.recompute for module in ours.modules() if isinstance(module, Block)] == ["full", "full"]
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**TINY["gpt2"])
    theirs = transformers.AutoModelForCausalLM.from_config(config)
    trimtab.MemoryEfficientLLM(theirs)
    assert theirs.is_gradient_checkpointing


@pytest.mark.parametrize("given", ["a module", "a model of transformers"])
def test_what_a_user_computes_again_stays_so(given: str) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 19, "n_positions": 16, "bos_token_id": 0}
    backbone = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, eos_token_id=0))
    backbone.gradient_checkpointing_enable()
    around: nn.Module = nn.ModuleDict({"backbone": backbone}) if given == "a module" else backbone
    for how in ("none", "full", "none"):
        set_recompute(around, how)
        assert all(layer.gradient_checkpointing for layer in backbone.transformer.h)
    backbone.gradient_checkpointing_disable()
    for how, expected in (("none", False), ("full", True), ("none", False)):
        set_recompute(around, how)
        assert all(layer.gradient_checkpointing == expected for layer in backbone.transformer.h)
