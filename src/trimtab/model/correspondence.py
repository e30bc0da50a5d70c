"""Our decoder as an architecture of transformers with the same logits, where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from trimtab.config import DecoderConfig, TransformerShape
from trimtab.errors import ConfigError

_ACTIVATIONS: Final = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu_squared": "relu2", "swiglu": "silu"}

ARCHITECTURES: Final = {
    "gpt2": "layer_norm, learned or sinusoidal positions, any activation but swiglu, no grouped heads",
    "llama": "rms_norm, rotary positions, swiglu",
    "qwen3": "rms_norm with epsilon 1e-6, rotary positions, swiglu, qk_norm, no biases",
    "arcee": "rms_norm, rotary positions, any activation but swiglu",
    "starcoder2": "layer_norm, rotary positions, any activation but swiglu",
}
"""Architecture to the settings of a pre-norm decoder that it is exactly."""


def architecture_of(config: TransformerShape) -> str:
    """The architecture that `config` is a setting of. Raises: ConfigError where there is none, with what differs."""
    if not isinstance(config, DecoderConfig):
        what = {
            "encoder": "BERT and its kin normalize their embeddings, and have a layer more before the head",
            "encoder_decoder": "T5 and BART tell positions apart in other ways, or normalize their embeddings",
        }[config.name]
        raise _none(f"model.name {config.name}: {what}")
    if config.width_base is not None:
        raise _none("model.width_base, by which features are scaled before the head")
    if config.window is not None:
        raise _none(f"model.window {config.window}")
    if config.norm.placement == "post":
        raise _none("model.norm.placement post")
    is_layer_norm, gated = config.norm.name == "layer_norm", config.activation == "swiglu"
    grouped = config.num_kv_heads not in (None, config.num_heads)
    if config.positions.name != "rotary":
        if not is_layer_norm or gated or grouped or config.qk_norm:
            raise _none(
                f"model.positions {config.positions.name} with model.norm {config.norm.name}, model.activation "
                f"{config.activation}"
                + (", grouped heads" if grouped else "")
                + (", qk_norm" if config.qk_norm else "")
            )
        return "gpt2"
    if is_layer_norm and not gated and not config.qk_norm:
        return "starcoder2"
    if not is_layer_norm and not gated and not config.qk_norm:
        return "arcee"
    if is_layer_norm or not gated:
        raise _none(
            f"model.norm {config.norm.name} with model.activation {config.activation} and rotary positions"
            + (" and qk_norm" if config.qk_norm else "")
        )
    if not config.qk_norm:
        return "llama"
    if config.norm.epsilon != 1e-6 or config.bias:
        raise _none(f"model.qk_norm with model.norm.epsilon {config.norm.epsilon} and model.bias {config.bias}")
    return "qwen3"


def described(
    config: DecoderConfig, *, vocabulary_size: int, max_positions: int, end_of_text: int, padding: int | None
) -> dict[str, Any]:
    """The configuration in the words of the architecture, with its `model_type`."""
    name = architecture_of(config)
    shared: dict[str, Any] = {
        "model_type": name,
        "vocab_size": vocabulary_size,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": padding,
        "tie_word_embeddings": config.tied_embeddings,
    }
    if name == "gpt2":
        return shared | {
            "n_positions": max_positions,
            "n_embd": config.hidden_size,
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "n_inner": config.resolved_feed_forward_size,
            "activation_function": _ACTIVATIONS[config.activation],
            "layer_norm_epsilon": config.norm.epsilon,
            "resid_pdrop": config.dropout.residual,
            "embd_pdrop": config.dropout.embedding,
            "attn_pdrop": config.dropout.attention,
        }
    assert config.positions.name == "rotary"
    shared |= {
        "max_position_embeddings": max_positions,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads or config.num_heads,
        "intermediate_size": config.resolved_feed_forward_size,
        "hidden_act": _ACTIVATIONS[config.activation],
        "attention_dropout": config.dropout.attention,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.positions.base},
    }
    if name == "starcoder2":
        return shared | {
            "norm_epsilon": config.norm.epsilon,
            "use_bias": config.bias,
            "residual_dropout": config.dropout.residual,
            "embedding_dropout": config.dropout.embedding,
            "sliding_window": None,
        }
    shared |= {"rms_norm_eps": config.norm.epsilon, "head_dim": config.head_size, "attention_bias": config.bias}
    return shared | ({"use_sliding_window": False} if name == "qwen3" else {"mlp_bias": config.bias})


def converted(config: DecoderConfig, tensors: Mapping[str, Tensor], positions_PD: Tensor | None) -> dict[str, Tensor]:
    """Our weights, by our names, as the architecture's, by its names; `positions_PD` is the table of positions.

    Rotary positions pair dimensions i and i + K/2 there, and 2i and 2i + 1 here: rows of queries and keys are put in
    the other order, which changes no product of them. Biases that we do not have are 0.
    """
    convert = _gpt2 if architecture_of(config) == "gpt2" else _rotary
    found = dict(convert(config, tensors, positions_PD))
    return {name: tensor.detach().float().contiguous().clone() for name, tensor in found.items()}


Named = Iterator[tuple[str, Tensor]]


def _gpt2(config: DecoderConfig, tensors: Mapping[str, Tensor], positions_PD: Tensor | None) -> Named:
    assert positions_PD is not None
    yield "transformer.wte.weight", tensors["embedding.weight"]
    yield "transformer.wpe.weight", positions_PD
    yield "lm_head.weight", _head(tensors)
    parts = {"attention.qkv": "attn.c_attn", "attention.output": "attn.c_proj"}
    parts |= {"feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"}
    for layer in range(config.num_layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for own, name in parts.items():
            weight_OI = tensors[f"{ours}.{own}.weight"]
            yield f"{theirs}.{name}.weight", weight_OI.T
            yield f"{theirs}.{name}.bias", _bias(tensors, f"{ours}.{own}", weight_OI.shape[0])
        yield from _norm(tensors, f"{ours}.attention_norm", f"{theirs}.ln_1")
        yield from _norm(tensors, f"{ours}.feed_forward_norm", f"{theirs}.ln_2")
    yield from _norm(tensors, "final_norm", "transformer.ln_f")


def _rotary(config: DecoderConfig, tensors: Mapping[str, Tensor], positions_PD: Tensor | None) -> Named:
    is_layer_norm = config.norm.name == "layer_norm"
    yield "model.embed_tokens.weight", tensors["embedding.weight"]
    yield "lm_head.weight", _head(tensors)
    kinds = ("weight", "bias") if config.bias else ("weight",)
    kv_heads = config.num_kv_heads or config.num_heads
    sizes = [config.num_heads * config.head_size, *[kv_heads * config.head_size] * 2]
    for layer in range(config.num_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        for kind in kinds:
            for name, rows in zip("qkv", torch.split(tensors[f"{ours}.attention.qkv.{kind}"], sizes), strict=True):
                turned = rows if name == "v" else _halves(rows, config.head_size)
                yield f"{theirs}.self_attn.{name}_proj.{kind}", turned
            yield f"{theirs}.self_attn.o_proj.{kind}", tensors[f"{ours}.attention.output.{kind}"]
            up, down = (tensors[f"{ours}.feed_forward.{name}.{kind}"] for name in ("up", "down"))
            if is_layer_norm:
                yield f"{theirs}.mlp.c_fc.{kind}", up
                yield f"{theirs}.mlp.c_proj.{kind}", down
                continue
            if config.activation == "swiglu":
                gate, up = up.chunk(2)
                yield f"{theirs}.mlp.gate_proj.{kind}", gate
            yield f"{theirs}.mlp.up_proj.{kind}", up
            yield f"{theirs}.mlp.down_proj.{kind}", down
        if config.qk_norm:
            for own, name in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
                scales_K = tensors[f"{ours}.attention.{own}.weight"]
                yield f"{theirs}.self_attn.{name}.weight", _halves(scales_K, config.head_size)
        for own, name in (("attention_norm", "input_layernorm"), ("feed_forward_norm", "post_attention_layernorm")):
            yield from _norm(tensors, f"{ours}.{own}", f"{theirs}.{name}", has_bias=is_layer_norm)
    yield from _norm(tensors, "final_norm", "model.norm", has_bias=is_layer_norm)


def _halves(rows: Tensor, head_size: int) -> Tensor:
    """Rows of each head: the even ones, then the odd ones."""
    by_head = rows.reshape(-1, head_size // 2, 2, *rows.shape[1:])
    return by_head.transpose(1, 2).reshape(rows.shape)


def _head(tensors: Mapping[str, Tensor]) -> Tensor:
    """Of tied embeddings there is one tensor."""
    return tensors.get("head.weight", tensors["embedding.weight"])


def _bias(tensors: Mapping[str, Tensor], name: str, size: int) -> Tensor:
    return tensors.get(f"{name}.bias", torch.zeros(size))


def _norm(tensors: Mapping[str, Tensor], ours: str, theirs: str, *, has_bias: bool = True) -> Named:
    weight = tensors[f"{ours}.weight"]
    yield f"{theirs}.weight", weight
    if has_bias:
        yield f"{theirs}.bias", _bias(tensors, ours, weight.shape[0])


def _none(what: str) -> ConfigError:
    return ConfigError(
        f"{what}: transformers has no architecture with the same logits",
        hint="pre-norm decoders have one: "
        + "; ".join(f"{name} for {settings}" for name, settings in ARCHITECTURES.items())
        + ". `--to safetensors` writes the weights of any model",
    )
