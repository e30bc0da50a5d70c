"""Our decoder or encoder as an architecture of transformers with the same logits, where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from trimtab.config import DecoderConfig, EncoderConfig, TransformerShape
from trimtab.errors import ConfigError
from trimtab.model.encoder_correspondence import Named, converted_encoder, eurobert_settings, halves
from trimtab.signals import Outputs

_ACTIVATIONS: Final = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu_squared": "relu2", "swiglu": "silu"}

ARCHITECTURES: Final = {
    "gpt2": "layer_norm, learned or sinusoidal positions, any activation but swiglu, no grouped heads",
    "llama": "rms_norm, rotary positions, swiglu",
    "qwen3": "rms_norm with epsilon 1e-6, rotary positions, swiglu, qk_norm, no biases",
    "arcee": "rms_norm, rotary positions, any activation but swiglu",
    "starcoder2": "layer_norm, rotary positions, any activation but swiglu",
    "eurobert": "an encoder, rotary positions, no qk_norm",
}
"""Architecture to the settings of a pre-norm decoder, or encoder, that it is exactly."""


def architecture_of(config: TransformerShape) -> str:
    """The architecture that `config` is a setting of. Raises: ConfigError where there is none, with what differs."""
    if not isinstance(config, DecoderConfig | EncoderConfig):
        raise _none(f"model.name {config.name}: T5 and BART tell positions apart otherwise, or normalize embeddings")
    if config.width_base is not None:
        raise _none("model.width_base, by which features are scaled before the head")
    if config.window is not None:
        raise _none(f"model.window {config.window}")
    if config.norm.placement == "post":
        raise _none("model.norm.placement post" + (", as BERT normalizes embeddings" * (config.name == "encoder")))
    if isinstance(config, EncoderConfig):
        if config.positions.name != "rotary":
            raise _none(f"model.positions {config.positions.name} in an encoder: BERT and its kin normalize embeddings")
        if config.qk_norm:
            raise _none("model.qk_norm in an encoder")
        return "eurobert"
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
    config: DecoderConfig | EncoderConfig,
    *,
    vocabulary_size: int,
    max_positions: int,
    end_of_text: int,
    padding: int | None,
) -> dict[str, Any]:
    """The configuration in the words of the architecture, with its `model_type`; what it says is not in it."""
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
    if isinstance(config, EncoderConfig):
        return shared | eurobert_settings(config)
    return shared | ({"use_sliding_window": False} if name == "qwen3" else {"mlp_bias": config.bias})


def converted(
    config: DecoderConfig | EncoderConfig,
    tensors: Mapping[str, Tensor],
    positions_PD: Tensor | None,
    outputs: Outputs | None = None,
) -> dict[str, Tensor]:
    """Our weights, by our names, as the architecture's, by its names; `positions_PD` is the table of positions.

    `outputs` are those of the head; the vocabulary at every position if not given. Rotary positions pair dimensions i
    and i + K/2 there, and 2i and 2i + 1 here: rows of queries and keys are put in the other order, which changes no
    product of them. Biases that we do not have are 0. Raises: ConfigError for a head that has no equal there.
    """
    outputs = outputs or Outputs(len(tensors["embedding.weight"]), of_tokens=True)
    if isinstance(config, EncoderConfig):
        if outputs.pooled and 2 * outputs.size > config.hidden_size:
            raise _none(f"{outputs.size} classes of whole texts, more than half of model.hidden_size")
        found = dict(converted_encoder(config, tensors, of_tokens=outputs.of_tokens, pooled=outputs.pooled))
    else:
        convert = _gpt2 if architecture_of(config) == "gpt2" else _rotary
        found = dict(convert(config, tensors, positions_PD))
        if outputs.pooled:
            _say_classes(config, tensors, found)
    return {name: tensor.detach().float().contiguous().clone() for name, tensor in found.items()}


def _say_classes(config: DecoderConfig, tensors: Mapping[str, Tensor], found: dict[str, Tensor]) -> None:
    """Put the head for whole texts in place of that for tokens, without a bias: the shift of the final norm makes it.

    Of all shifts by which W δ = b the smallest.
    """
    if config.pooling == "mean":
        raise _none("model.pooling mean of a decoder, which there reads the last token")
    weight_VD, bias_V = (tensors[f"head.{kind}"].detach().double() for kind in ("weight", "bias"))
    del found["lm_head.weight"]
    found["score.weight"] = weight_VD
    if not bool(bias_V.any()):
        return
    shift = next((name for name in ("transformer.ln_f.bias", "model.norm.bias") if name in found), None)
    if shift is None:
        raise _none(
            "the bias of head.bias after rms_norm, which has no shift in which it could be",
            hint="model.norm.name=layer_norm, or model.freeze=[head.bias], which begins at 0 and stays there",
        )
    delta_D = torch.linalg.pinv(weight_VD) @ bias_V
    if float((weight_VD @ delta_D - bias_V).abs().max()) > 1e-6 * float(bias_V.abs().max()):
        raise _none(f"the biases of {len(weight_VD)} classes, which depend on each other in ways that weights do not")
    found[shift] = found[shift].double() + delta_D


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
                turned = rows if name == "v" else halves(rows, config.head_size)
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
                yield f"{theirs}.self_attn.{name}.weight", halves(scales_K, config.head_size)
        for own, name in (("attention_norm", "input_layernorm"), ("feed_forward_norm", "post_attention_layernorm")):
            yield from _norm(tensors, f"{ours}.{own}", f"{theirs}.{name}", has_bias=is_layer_norm)
    yield from _norm(tensors, "final_norm", "model.norm", has_bias=is_layer_norm)


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


def _none(what: str, hint: str | None = None) -> ConfigError:
    return ConfigError(
        f"{what}: transformers has no architecture with the same logits",
        hint=(
            hint
            or "pre-norm decoders and encoders have one: "
            + "; ".join(f"{name} for {settings}" for name, settings in ARCHITECTURES.items())
        )
        + ". `--to safetensors` writes the weights of any model",
    )
