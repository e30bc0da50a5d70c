"""What a model of a configuration consists of, counted without building it: parameters, products, attention.

`model/size.py` counts a model that exists, by the same two formulas; both must come to the same numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from trimtab.config import (
    BpeTokenizer,
    ByteTokenizer,
    Classification,
    Config,
    Contrastive,
    DecoderConfig,
    EncoderDecoderConfig,
    InfoNceConfig,
    MaskedLanguageModeling,
    Regression,
    SequenceToSequence,
    TiktokenTokenizer,
    TokenClassification,
    TransformerShape,
    UnigramTokenizer,
)
from trimtab.errors import ConfigError, UsageError

CLASSES = 2
"""Assumed of a classification whose data was not read: such a head is a small part of any model."""


def product_flops(inputs: int, outputs: int) -> float:
    """Operations of one row of a product of matrices, 2 for each multiply-add."""
    return 2.0 * inputs * outputs


def attention_flops(num_heads: int, head_size: int, num_keys: float) -> float:
    """Operations of one query that meets `num_keys` keys: scores and sums, 2 for each multiply-add."""
    return 4.0 * num_heads * head_size * num_keys


def mean_keys(sequence_length: int, *, causal: bool, window: int | None = None) -> float:
    """The keys that a query meets on average: those before it and itself, or all, of them those within `window`."""
    reach = min(window or sequence_length, sequence_length)
    if window is None or reach == sequence_length:
        return (sequence_length + 1) / 2 if causal else float(sequence_length)
    # The first queries meet fewer: in a square of T by T two corners, or with causality all above the diagonal, too.
    missing = reach * (reach - 1) / 2 / sequence_length
    return reach - missing if causal else 2 * reach - 1 - 2 * missing


@final
@dataclass(frozen=True, slots=True)
class Product:
    """A product of matrices in the forward pass: `rows` of a sequence, by a matrix of weights."""

    group: str
    rows: float
    inputs: int
    outputs: int
    repeats: int = 1

    @property
    def flops(self) -> float:
        """Of one sequence, forward."""
        return self.repeats * self.rows * product_flops(self.inputs, self.outputs)


@final
@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Attention of one kind in the forward pass of a sequence."""

    queries: int
    keys: int
    causal: bool
    masked: bool
    """Whether a mask is given: general kernels then compute the whole square."""
    num_heads: int
    num_kv_heads: int
    head_size: int
    rotated: bool
    normalized: bool
    """Whether queries and keys are."""
    repeats: int = 1
    window: int | None = None

    @property
    def flops(self) -> float:
        """Of one sequence, forward, with the keys that are met."""
        keys = mean_keys(self.keys, causal=self.causal, window=self.window)
        return self.repeats * self.queries * attention_flops(self.num_heads, self.head_size, keys)

    @property
    def square_flops(self) -> float:
        """Of one sequence, forward, with all keys: what a masked kernel computes, and what utilization counts."""
        return self.repeats * self.queries * attention_flops(self.num_heads, self.head_size, self.keys)


@final
@dataclass(frozen=True, slots=True)
class Stream:
    """A stack of blocks, and the positions that pass through it in a sequence."""

    positions: int
    num_layers: int
    norms: int
    """In a block: two, or three where another sequence is read."""


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """Of a model that is no transformer of ours: seen in a forward pass of one sequence, in fp32."""

    kept_bytes: float
    """For the backward pass."""
    kept_again_bytes: float
    """The same where layers are computed again; as much where they cannot be."""
    attention_flops: float
    """Of the whole square of its attention: what is no product with weights."""
    kernels: float
    num_layers: int


@final
@dataclass(frozen=True, slots=True)
class ModelCounts:
    """One model, for one sequence."""

    parameters: dict[str, int]
    """By group, as `model.parameter_counts` gives them."""
    largest_matrices: tuple[tuple[int, int, int], ...]
    """Rows, columns and number of the matrices inside layers."""
    products: tuple[Product, ...]
    attentions: tuple[AttentionShape, ...]
    streams: tuple[Stream, ...]
    shape: TransformerShape | Measured
    vocabulary_size: int
    outputs: int
    """Of the head."""
    heads_of_tokens: bool
    """Whether the head says tokens, and so is what a fused loss takes."""
    targets: float
    """Rows that the head works on, in a sequence."""

    @property
    def total_parameters(self) -> int:
        """All of them; shared ones count once."""
        return sum(self.parameters.values())

    @property
    def tokens(self) -> int:
        """Positions of a sequence that training counts as tokens."""
        return self.streams[-1].positions

    @property
    def positions(self) -> int:
        """Positions through blocks, times blocks."""
        return sum(stream.positions * stream.num_layers for stream in self.streams)

    def forward_flops(self, *, square: bool = False) -> float:
        """Of one sequence; `square` charges every query for all keys."""
        attention = sum(one.square_flops if square else one.flops for one in self.attentions)
        if isinstance(self.shape, Measured):
            attention += self.shape.attention_flops
        return sum(product.flops for product in self.products) + attention

    def training_flops(self, *, square: bool = False) -> float:
        """Of one sequence, forward and backward: three times forward, recomputation left out."""
        return 3.0 * self.forward_flops(square=square)


def count_model(config: Config, *, classes: int = CLASSES) -> ModelCounts:
    """What the model of `config` consists of; `classes` where its head has one output for each.

    Raises: UsageError for a model from outside; ConfigError for a tokenizer that is not there.
    """
    model = config.model
    if not isinstance(model, TransformerShape):
        raise UsageError(
            "model.name: what is no transformer of trimtab's own is not counted without building it. "
            f"Received: {model.name!r}",
            hint="name a preset of its size instead: trimtab plan --model gpt2",
        )
    vocabulary = vocabulary_of(config)
    pooled, of_tokens, outputs = outputs_in(config, vocabulary, classes)
    length = config.data.sequence_length
    second = length
    if isinstance(config.task, SequenceToSequence) and config.task.target_length is not None:
        second = config.task.target_length
    max_positions = model.max_positions or config.longest_sequence
    blocks = _Blocks(model)
    positions = max_positions * model.hidden_size if model.positions.name == "learned" else 0
    groups = {"embedding": vocabulary * model.hidden_size + positions}
    own = _attention(model, length, causal=isinstance(model, DecoderConfig), masked=_is_masked(config))
    texts = 2 if isinstance(config.task, Contrastive) and config.task.has_pairs else 1
    match model:
        case EncoderDecoderConfig():
            groups["embedding"] += positions
            parts = [blocks.parameters(False), blocks.parameters(True)]
            products = [*blocks.products(length), *blocks.products(second, memory=length)]
            attentions = [
                own,
                _attention(model, second, causal=True, masked=False),
                replace(
                    own, queries=second, num_kv_heads=model.num_heads, rotated=False, normalized=False, window=None
                ),
            ]
            streams = [Stream(length, model.num_layers, 2), Stream(second, model.num_layers, 3)]
        case _:
            parts, products = [blocks.parameters(False)], [*blocks.products(length)] * texts
            attentions, streams = [own] * texts, [Stream(length, model.num_layers, 2)] * texts
    for part in parts:
        for name, number in part.items():
            groups[name] = groups.get(name, 0) + number
    if outputs and not (of_tokens and model.tied_embeddings):
        has_bias = not (of_tokens or isinstance(config.task, Contrastive))
        groups["head"] = model.hidden_size * outputs + (outputs if has_bias else 0)
    if isinstance(config.objective, InfoNceConfig) and config.objective.learn_temperature:
        groups["head"] = groups.get("head", 0) + 1
    rows = float(texts) if pooled else float(streams[-1].positions)
    # Both texts of a row pass through the same matrices.
    matrices = tuple((p.inputs, p.outputs, p.repeats) for p in products[: len(products) // texts])
    if outputs:
        products.append(Product("head", rows, model.hidden_size, outputs))
    return ModelCounts(
        {name: number for name, number in groups.items() if number},
        matrices,
        tuple(products),
        tuple(attentions),
        tuple(streams),
        model,
        vocabulary,
        outputs,
        of_tokens,
        rows,
    )


def vocabulary_of(config: Config) -> int:
    """Tokens that the model tells apart; of a BPE that is not learned yet as many as are asked for.

    Raises: ConfigError for a tokenizer.json that is not there, or is none.
    """
    tokenizer = config.data.tokenizer
    match tokenizer:
        case BpeTokenizer() | UnigramTokenizer():
            size = tokenizer.vocabulary_size
        case TiktokenTokenizer():
            size = 1 + sum(bool(line) for line in Path(tokenizer.path).expanduser().read_bytes().splitlines())
        case ByteTokenizer():
            size = 257
        case _:
            path = Path(tokenizer.path or "tokenizer.json")
            size = _tokens_in(path / "tokenizer.json" if path.is_dir() else path)
    hides = isinstance(config.task, MaskedLanguageModeling) or config.data.augmentation.span_masking is not None
    return size + hides


def _tokens_in(path: Path) -> int:
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        entries = state["model"]["vocab"]
        # A mapping of tokens to numbers, or with Unigram a list in their order.
        numbers = entries.values() if isinstance(entries, dict) else range(len(entries))
        return int(max([*numbers, *(token["id"] for token in state.get("added_tokens", ()))])) + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"data.tokenizer.path: no tokenizer.json of Hugging Face tokenizers can be read there ({error}). "
            f"Received: {str(path)!r}"
        ) from error


def outputs_in(config: Config, vocabulary: int, classes: int = CLASSES) -> tuple[bool, bool, int]:
    """Whether the head speaks of whole texts, whether of tokens, and how many outputs it has."""
    match config.task:
        case Classification():
            return True, False, classes
        case TokenClassification():
            return False, False, classes
        case Regression():
            return True, False, 1
        case Contrastive():
            return True, False, config.task.projection or 0
        case _:
            return False, True, vocabulary


def _is_masked(config: Config) -> bool:
    """Whether attention over the first text is given a mask."""
    return config.model.document_mask if isinstance(config.model, DecoderConfig) else True


def _attention(model: TransformerShape, length: int, *, causal: bool, masked: bool) -> AttentionShape:
    return AttentionShape(
        queries=length,
        keys=length,
        causal=causal,
        masked=masked or (model.window is not None and model.window < length),
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads or model.num_heads,
        head_size=model.head_size,
        rotated=model.positions.name == "rotary",
        normalized=model.qk_norm,
        repeats=model.num_layers,
        window=model.window,
    )


@final
class _Blocks:
    """The blocks of one stack."""

    def __init__(self, model: TransformerShape) -> None:
        self.model = model
        self.width = model.hidden_size
        self.inner = model.resolved_feed_forward_size
        self.up = 2 * self.inner if model.activation == "swiglu" else self.inner
        self.kv = 2 * (model.num_kv_heads or model.num_heads) * model.head_size

    def parameters(self, reads_memory: bool) -> dict[str, int]:
        """Of all layers and the last norm, by group."""
        model, width, bias = self.model, self.width, int(self.model.bias)
        attention = width * (width + self.kv) + bias * (width + self.kv) + width * width + bias * width
        if reads_memory:
            attention += 4 * width * width + bias * 4 * width
        norm = width * (1 + (bias if model.norm.name == "layer_norm" else 0))
        norms = norm * (3 if reads_memory else 2) + (2 * model.head_size if model.qk_norm else 0)
        feed_forward = width * self.up + bias * self.up + self.inner * width + bias * width
        final_norm = norm if model.norm.placement == "pre" else 0
        return {
            "attention": model.num_layers * attention,
            "feed_forward": model.num_layers * feed_forward,
            "norm": model.num_layers * norms + final_norm,
        }

    def products(self, rows: int, memory: int | None = None) -> list[Product]:
        """Of all layers; `memory` is how long the sequence is that is read besides."""
        width, layers = self.width, self.model.num_layers
        products = [
            Product("attention", rows, width, width + self.kv, layers),
            Product("attention", rows, width, width, layers),
            Product("feed_forward", rows, width, self.up, layers),
            Product("feed_forward", rows, self.inner, width, layers),
        ]
        if memory is not None:
            products += [
                Product("attention", rows, width, width, layers),
                Product("attention", memory, width, 2 * width, layers),
                Product("attention", rows, width, width, layers),
            ]
        return products
