"""From a configuration to a model."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from trimtab.config import (
    CnnConfig,
    CustomModel,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    HuggingFaceConfig,
    MlpConfig,
    ModelConfig,
    TransformerShape,
)
from trimtab.config.registry import load_target
from trimtab.errors import ConfigError
from trimtab.model.convolutional import ConvolutionalNetwork
from trimtab.model.encoder import Encoder
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.freeze import freeze
from trimtab.model.hugging_face import HuggingFaceModel
from trimtab.model.initialize import init_weights
from trimtab.model.kinds import Network, Outside, Transformer
from trimtab.model.network import init_network
from trimtab.model.perceptron import MultilayerPerceptron
from trimtab.model.pretrained import build_pretrained, fingerprint_of
from trimtab.model.transformer import Decoder
from trimtab.model.trunk import Shape
from trimtab.model.widths import set_width
from trimtab.model.wrap import wrap_model
from trimtab.signals import Outputs, SpecialTokens, seeded


def build_model(
    config: ModelConfig,
    *,
    vocabulary_size: int,
    sequence_length: int,
    seed: int,
    outputs: Outputs | None = None,
    special: SpecialTokens | None = None,
) -> Transformer | Network | Outside:
    """The model that `config` describes, on the CPU, in training mode, with the weights of `seed`, or of its folder.

    `outputs` is what a task calls for; the vocabulary at every position if not given. `special` are the tokenizer's,
    which a model of transformers is told; the first token if not given. What `config` freezes takes no gradient.

    The state of torch's CPU generator is left as it was. A custom model initializes itself, from the global
    generators of torch, numpy and Python, seeded with `seed`.

    Raises:
        ConfigError: a model from outside that cannot be imported or built; a pattern to freeze that fits nothing.
        DataError: a folder that cannot be read.
    """
    outputs = outputs or Outputs(vocabulary_size, of_tokens=True)
    if isinstance(config, HuggingFaceConfig):
        model: Transformer | Network | Outside = build_pretrained(
            config,
            outputs,
            vocabulary_size=vocabulary_size,
            longest_sequence=sequence_length,
            special=special or SpecialTokens(0, 0, 0),
            seed=seed,
        )
    elif isinstance(config, CustomModel):
        with seeded(seed):
            model = wrap_model(_build_custom(config), vocabulary_size, outputs)
    elif isinstance(config, MlpConfig | CnnConfig):
        model = _build_network(config, vocabulary_size, seed, outputs)
    else:
        model = _build_ours(config, vocabulary_size, sequence_length, seed, outputs)
    freeze(model, config.freeze)
    if isinstance(config, HuggingFaceConfig) and config.path is not None and isinstance(model, HuggingFaceModel):
        _leave_out(model, list(config.unfreeze))
    return model


def _leave_out(model: HuggingFaceModel, thawing: Sequence[str]) -> None:
    """What is frozen for good and in the folder is not kept in checkpoints, which name it by its hash instead."""
    frozen = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and name.removeprefix("module.").replace(".base_layer", "") not in model.new  # peft wraps it so
        and not any(fnmatchcase(name, pattern) for pattern in thawing)
    }
    if frozen:
        model.left_out, model.given = frozenset(frozen), fingerprint_of(frozen)


def _build_network(config: MlpConfig | CnnConfig, vocabulary_size: int, seed: int, outputs: Outputs) -> Network:
    shared: dict[str, Any] = {
        "vocabulary_size": vocabulary_size,
        "outputs": outputs,
        "hidden_size": config.hidden_size,
        "activation": config.activation,
        "embedding_dropout": config.dropout.embedding,
        **(
            {"momentum": None}
            if config.batch_norm is None
            else {"momentum": config.batch_norm.momentum, "epsilon": config.batch_norm.epsilon}
        ),
    }
    with torch.random.fork_rng(devices=[]):
        model: Network = (
            MultilayerPerceptron(
                num_layers=config.num_layers,
                layer_size=config.layer_size,
                hidden_dropout=config.dropout.hidden,
                **shared,
            )
            if isinstance(config, MlpConfig)
            else ConvolutionalNetwork(
                widths=config.widths, num_filters=config.num_filters, head_dropout=config.dropout.head, **shared
            )
        )
    init_network(model, model.head, standard_deviation=config.initialization.standard_deviation, seed=seed)
    return model


def _build_ours(
    config: DecoderConfig | EncoderConfig | EncoderDecoderConfig,
    vocabulary_size: int,
    sequence_length: int,
    seed: int,
    outputs: Outputs,
) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        model = _build(config, _shape(config, vocabulary_size, config.max_positions or sequence_length), outputs)
    init_weights(
        model,
        standard_deviation=config.initialization.standard_deviation,
        matrices=config.initialization.matrices,
        depth_scaled=config.initialization.depth_scaled,
        num_layers=config.num_layers,
        seed=seed,
        width_ratio=config.width_ratio,
    )
    if config.width_base is not None:
        set_width(model, config.width_ratio, config.base_head_size)
    return model


def _build(config: DecoderConfig | EncoderConfig | EncoderDecoderConfig, shape: Shape, outputs: Outputs) -> Transformer:
    match config:
        case DecoderConfig():
            return Decoder(
                outputs=outputs,
                pooling=config.pooling,
                head_dropout=config.dropout.head,
                document_mask=config.document_mask,
                tied_embeddings=config.tied_embeddings,
                **shape,
            )
        case EncoderConfig():
            return Encoder(
                outputs=outputs,
                pooling=config.pooling,
                head_dropout=config.dropout.head,
                tied_embeddings=config.tied_embeddings,
                **shape,
            )
        case EncoderDecoderConfig():
            return EncoderDecoder(tied_embeddings=config.tied_embeddings, **shape)


def _shape(config: TransformerShape, vocabulary_size: int, max_positions: int) -> Shape:
    return Shape(
        vocabulary_size=vocabulary_size,
        max_positions=max_positions,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        feed_forward_size=config.resolved_feed_forward_size,
        activation=config.activation,
        norm=config.norm.name,
        norm_placement=config.norm.placement,
        norm_epsilon=config.norm.epsilon,
        positions=config.positions.name,
        rotary_base=config.positions.base if config.positions.name == "rotary" else 10_000.0,
        qk_norm=config.qk_norm,
        bias=config.bias,
        embedding_dropout=config.dropout.embedding,
        attention_dropout=config.dropout.attention,
        residual_dropout=config.dropout.residual,
        feed_forward_dropout=config.dropout.feed_forward,
        dropout_ramp=config.dropout.ramp,
        layer_dropout=config.dropout.layer,
        layer_dropout_ramp=config.dropout.layer_ramp,
        layer_dropout_unit=config.dropout.layer_unit,
        layer_dropout_per=config.dropout.layer_per,
        window=config.window,
    )


def _build_custom(config: CustomModel) -> nn.Module:
    target = load_target(config.target, "model.target")
    try:
        module: Any = target(**config.arguments)
    except Exception as error:  # whatever a constructor from elsewhere raises
        raise ConfigError(
            f"model.arguments: {config.target} cannot be called so: {error}. Received: {config.arguments}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"model.target: {config.target} must give an nn.Module. Received: {type(module).__qualname__}"
        )
    return module
