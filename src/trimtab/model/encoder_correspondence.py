"""Our encoder as transformers' EuroBERT, which computes the same: its weights in the other form.

Shape suffixes: D hidden size · O outputs of a matrix · V vocabulary, or classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from trimtab.config import EncoderConfig

Named = Iterator[tuple[str, Tensor]]


def eurobert_settings(config: EncoderConfig) -> dict[str, Any]:
    """What EuroBERT's configuration says besides sizes; `converted_encoder` is what these settings need."""
    return {
        "attention_bias": _has_biases(config),
        "mlp_bias": _has_biases(config),
        "tie_word_embeddings": config.tied_embeddings and config.norm.name == "rms_norm",
        "classifier_pooling": "mean" if config.pooling == "mean" else "bos",
    }


def converted_encoder(config: EncoderConfig, tensors: Mapping[str, Tensor], *, of_tokens: bool, pooled: bool) -> Named:
    """Our weights, by our names, as EuroBERT's, by its names.

    - LayerNorm is RMSNorm where its input has the mean 0: all that is added to the residual stream is centred, which
      no norm that reads it sees, and β goes into the biases of the layers that read it. Centred embeddings are no
      longer those of the head.
    - A feed-forward block without a gate is one whose gate is 1: weights 0, bias 1.
    - EuroBERT has dense and GELU before the classifier of whole texts: gelu(u) - gelu(-u) = u, so that two rows of
      dense for each class leave its logit as it is.
    Source: Jiang et al. 2023, arXiv 2305.14858 (LayerNorm and RMSNorm before blocks); the others own.
    """
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    centres, biases = config.norm.name == "layer_norm", _has_biases(config)
    kv_heads = config.num_kv_heads or config.num_heads
    size = config.head_size
    sizes = [config.num_heads * size, kv_heads * size, kv_heads * size]
    embedding_VD = wide["embedding.weight"]
    yield "model.embed_tokens.weight", embedding_VD - embedding_VD.mean(1, keepdim=True) if centres else embedding_VD

    def reads(norm: str, linear: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer after a norm without β."""
        weight_OD = wide[f"{linear}.weight"]
        bias_O = wide.get(f"{linear}.bias", weight_OD.new_zeros(len(weight_OD)))
        beta_D = wide.get(f"{norm}.bias")
        return weight_OD, bias_O if beta_D is None else bias_O + weight_OD @ beta_D

    def writes(linear: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer whose output is added to the residual stream."""
        weight_DO = wide[f"{linear}.weight"]
        bias_D = wide.get(f"{linear}.bias", weight_DO.new_zeros(len(weight_DO)))
        return (weight_DO - weight_DO.mean(0), bias_D - bias_D.mean()) if centres else (weight_DO, bias_D)

    def layer(theirs: str, weight: Tensor, bias: Tensor) -> Named:
        yield f"{theirs}.weight", weight
        if biases:
            yield f"{theirs}.bias", bias

    for index in range(config.num_layers):
        ours, theirs = f"blocks.{index}", f"model.layers.{index}"
        weight, bias = reads(f"{ours}.attention_norm", f"{ours}.attention.qkv")
        weights, biases_of = torch.split(weight, sizes), torch.split(bias, sizes)
        for name, rows, shifts in zip("qkv", weights, biases_of, strict=True):
            turned = (rows, shifts) if name == "v" else (halves(rows, size), halves(shifts, size))
            yield from layer(f"{theirs}.self_attn.{name}_proj", *turned)
        yield from layer(f"{theirs}.self_attn.o_proj", *writes(f"{ours}.attention.output"))
        weight, bias = reads(f"{ours}.feed_forward_norm", f"{ours}.feed_forward.up")
        if config.activation == "swiglu":
            (gate, up), (gate_bias, up_bias) = weight.chunk(2), bias.chunk(2)
        else:
            gate, gate_bias, up, up_bias = weight, bias, torch.zeros_like(weight), torch.ones_like(bias)
        yield from layer(f"{theirs}.mlp.gate_proj", gate, gate_bias)
        yield from layer(f"{theirs}.mlp.up_proj", up, up_bias)
        yield from layer(f"{theirs}.mlp.down_proj", *writes(f"{ours}.feed_forward.down"))
        for own, name in (("attention_norm", "input_layernorm"), ("feed_forward_norm", "post_attention_layernorm")):
            yield f"{theirs}.{name}.weight", wide[f"{ours}.{own}.weight"]
    yield "model.norm.weight", wide["final_norm.weight"]
    if "head.weight" not in wide:  # of tied embeddings there is one tensor
        wide["head.weight"] = embedding_VD
    weight_VD, bias_V = reads("final_norm", "head")
    if of_tokens:
        yield from layer("lm_head", weight_VD, bias_V)
    elif not pooled:
        yield from (("classifier.weight", weight_VD), ("classifier.bias", bias_V))
    else:
        num_classes, width = weight_VD.shape
        dense_DD, dense_bias_D = weight_VD.new_zeros(width, width), weight_VD.new_zeros(width)
        dense_DD[: 2 * num_classes] = torch.cat((weight_VD, -weight_VD))
        dense_bias_D[: 2 * num_classes] = torch.cat((bias_V, -bias_V))
        one_VV = torch.eye(num_classes, dtype=weight_VD.dtype)
        classifier_VD = weight_VD.new_zeros(num_classes, width)
        classifier_VD[:, : 2 * num_classes] = torch.cat((one_VV, -one_VV), dim=1)
        yield from (("dense.weight", dense_DD), ("dense.bias", dense_bias_D))
        yield from (("classifier.weight", classifier_VD), ("classifier.bias", torch.zeros_like(bias_V)))


def halves(rows: Tensor, head_size: int) -> Tensor:
    """Rows of each head: the even ones, then the odd ones."""
    by_head = rows.reshape(-1, head_size // 2, 2, *rows.shape[1:])
    return by_head.transpose(1, 2).reshape(rows.shape)


def _has_biases(config: EncoderConfig) -> bool:
    return config.bias or config.activation != "swiglu"
