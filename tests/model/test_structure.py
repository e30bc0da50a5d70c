"""Layers of models by how they are built, and what passes through them."""

from __future__ import annotations

import pytest
import torch
from tiny_hugging_face import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import DecoderConfig, EncoderConfig
from trimtab.model import build_model, wrap_model
from trimtab.model.activation_functions import Function, activations_read
from trimtab.model.structure import layers_of, streams_read
from trimtab.signals import Outputs

LAYERS = {
    "gpt2": ("transformer.h.0", "transformer.h.1"),
    "llama": ("model.layers.0", "model.layers.1"),
    "gemma2": ("model.layers.0", "model.layers.1"),
    "bert": ("bert.encoder.layer.0", "bert.encoder.layer.1"),
    "roberta": ("roberta.encoder.layer.0", "roberta.encoder.layer.1"),
    "distilbert": ("distilbert.transformer.layer.0", "distilbert.transformer.layer.1"),
    "t5": ("encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"),
    "bart": ("model.encoder.layers.0", "model.decoder.layers.0"),
}
TOKENS = torch.randint(0, 23, (2, 9), generator=torch.Generator().manual_seed(0))


def theirs(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    settings = dict(TINY[name])
    kind = "CausalLM" if name in ("gpt2", "llama", "gemma2") else "MaskedLM"
    kind = "Seq2SeqLM" if name in ("t5", "bart") else kind
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, f"AutoModelFor{kind}").from_config(config).eval()
    return model


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layers_of_transformers(name: str) -> None:
    """They are found, run in their order, hand the hidden states on, and have an activation function each."""
    model = theirs(name)
    assert tuple(layers_of(model)) == LAYERS[name]
    streams: dict[str, tuple[Tensor, Tensor]] = {}
    functions: list[str] = []

    def keep(called: str, argument: Tensor, function: Function, source: str) -> None:
        functions.append(called)
        if called in LAYERS[name]:
            assert argument.shape == (2, 9, 64 if name != "gpt2" else 128)
        assert torch.isfinite(function(argument)).all()

    inputs = {"input_ids": TOKENS} | ({"decoder_input_ids": TOKENS} if name in ("t5", "bart") else {})
    with (
        torch.no_grad(),
        streams_read(model, lambda called, before, after: streams.update({called: (before, after)})),
        activations_read(model, keep),
    ):
        output = model(**inputs, output_hidden_states=True)
    heads = {"bert": "cls.predictions.transform.dense", "roberta": "lm_head.dense", "distilbert": "vocab_transform"}
    assert tuple(streams) == LAYERS[name]
    assert tuple(functions) == (*LAYERS[name], *(heads[one] for one in (name,) if one in heads))
    key = "encoder_hidden_states" if name in ("t5", "bart") else "hidden_states"
    layers = [one for one in LAYERS[name] if "decoder" not in one]
    for hidden, layer in zip(output[key], layers, strict=False):
        torch.testing.assert_close(streams[layer][0], hidden)


def test_a_wrapped_model_has_the_same_layers_behind_its_prefix() -> None:
    wrapped = wrap_model(theirs("gpt2"), 50257, None)
    assert tuple(layers_of(wrapped)) == ("module.transformer.h.0", "module.transformer.h.1")


def test_layers_of_other_modules() -> None:
    torchs = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, batch_first=True), 3)
    assert tuple(layers_of(torchs)) == ("layers.0", "layers.1", "layers.2")
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)))
    assert tuple(layers_of(blocks)) == ("0", "1")
    assert layers_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))) == {}
    nested = nn.ModuleList([nn.ModuleDict({"experts": nn.ModuleList([blocks])})])
    assert tuple(layers_of(nested)) == ("0",)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "swiglu", "relu_squared"])
def test_our_activations_are_what_the_blocks_compute(activation: str) -> None:
    """The function of what is read is what the block projects down, times the value of a gated one."""
    config = {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "activation": activation}
    model = build_model(DecoderConfig.model_validate(config), vocabulary_size=23, sequence_length=16, seed=3)
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    for index, block in enumerate(model.all_blocks):
        forward = block.feed_forward
        forward.fuses = True
        forward.down.register_forward_pre_hook(
            lambda module, given, index=index: downs.update({f"blocks.{index}": given[0]})
        )
        forward.up.register_forward_hook(
            lambda module, given, output, index=index: ups.update({f"blocks.{index}": output})
        )
    hidden: dict[str, Tensor] = {}
    with torch.no_grad(), activations_read(model, lambda name, x, function, _: hidden.update({name: function(x)})):
        model(TOKENS)
        assert not any(block.feed_forward.fuses for block in model.all_blocks)
    assert all(block.feed_forward.fuses for block in model.all_blocks)
    assert tuple(hidden) == ("blocks.0", "blocks.1")
    for name, value in hidden.items():
        gated = value * ups[name].chunk(2, dim=-1)[1] if activation == "swiglu" else value
        torch.testing.assert_close(gated, downs[name])


def test_an_activation_function_is_told_once_and_its_own_hooks_are_left_alone() -> None:
    model = nn.ModuleList([nn.Sequential(nn.Linear(3, 4), nn.ReLU())])
    calls: list[int] = []
    model[0][1].register_forward_hook(lambda *_: calls.append(1))
    found: list[tuple[str, Tensor]] = []
    x = torch.randn(2, 5, 3)
    with activations_read(model, lambda name, before, function, _: found.append((name, function(before)))):
        output = model[0](x)
    assert len(calls) == 1
    assert [name for name, _ in found] == ["0"]
    torch.testing.assert_close(found[0][1], F.relu(model[0][0](x)))
    torch.testing.assert_close(found[0][1], output)


class Called(nn.Module):
    """As people write them: functions that are called, one module used twice, no list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.fc1 = nn.Linear(6 * 4, 12)
        self.fc2 = nn.Linear(12, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.act(self.norm(self.conv(x))), 2)
        x = self.act(self.fc1(x.flatten(1)))
        x = F.leaky_relu(self.fc2(x), 0.1, True)
        return torch.sigmoid(self.head(x))


def test_functions_outside_of_layers_belong_to_the_matrix_before_them() -> None:
    torch.manual_seed(0)
    model, x = Called().eval(), torch.randn(7, 1, 4, 4)
    whole = model(x)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with activations_read(
        model, lambda name, before, function, _: found.update({name: (before.clone(), function(before))})
    ):
        torch.testing.assert_close(model(x), whole)
    assert {name: tuple(before.shape) for name, (before, _) in found.items()} == {
        "conv": (7, 4, 4, 6),
        "fc1": (7, 12),
        "fc2": (7, 5),
    }
    torch.testing.assert_close(found["conv"][0], model.norm(model.conv(x)).movedim(1, -1))
    torch.testing.assert_close(found["fc1"][1], found["fc1"][0].relu())
    before, after = found["fc2"]
    torch.testing.assert_close(after, torch.where(before > 0, before, 0.1 * before))
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_nothing_is_told_outside_of_the_model_or_after_a_pass_that_failed() -> None:
    model = Called()
    names: list[str] = []
    with activations_read(model, lambda name, before, function, _: names.append(name)):
        with pytest.raises(RuntimeError):
            model(torch.randn(7, 1, 3, 3))
        names.clear()
        F.relu(torch.randn(3, 3))
        nn.ReLU()(torch.randn(3, 3))
    assert not names


def test_a_layer_that_runs_twice_has_a_number_the_second_time() -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU()))
    model = nn.ModuleList([layer])
    names: list[str] = []
    with streams_read(model, lambda name, before, after: names.append(name)):
        layer(layer(torch.randn(1, 2, 4)))
    assert names == ["0", "0:2"]


def test_an_encoder_is_ours_too() -> None:
    config = EncoderConfig.model_validate({"name": "encoder", "num_layers": 3, "hidden_size": 16, "num_heads": 2})
    model = build_model(
        config, vocabulary_size=23, sequence_length=16, outputs=Outputs(2, pooled=True, task="classification"), seed=0
    )
    assert tuple(layers_of(model)) == ("blocks.0", "blocks.1", "blocks.2")
