"""What encoders and decoders share: embedding, blocks, final norm. `block.py` is what happens in between.

Shape suffixes: B sequences · T positions · S positions of what is read besides · D hidden size; all of them in
`signals/batch.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, Required, TypedDict, Unpack

import torch
from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.model.block import Block
from trimtab.model.dropout import Dropout, ramped
from trimtab.model.feed_forward import Activation
from trimtab.model.masks import seen, seen_blocks
from trimtab.model.norms import NormName, NormPlacement, build_norm
from trimtab.model.positions import PositionsName, RotaryPositions, SinusoidalPositions
from trimtab.model.recompute import again

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class Shape(TypedDict, total=False):
    """What a trunk is built from; the first five have no default."""

    vocabulary_size: Required[int]
    max_positions: Required[int]
    num_layers: Required[int]
    hidden_size: Required[int]
    num_heads: Required[int]
    feed_forward_size: Required[int]
    num_kv_heads: int | None
    activation: Activation
    norm: NormName
    norm_placement: NormPlacement
    norm_epsilon: float
    positions: PositionsName
    rotary_base: float
    qk_norm: bool
    bias: bool
    embedding_dropout: float
    attention_dropout: float
    residual_dropout: float
    feed_forward_dropout: float
    dropout_ramp: Literal["none", "linear"]
    layer_dropout: float
    layer_dropout_ramp: Literal["none", "linear"]
    layer_dropout_unit: Literal["branch", "block"]
    layer_dropout_per: Literal["sample", "batch"]
    window: int | None


class Trunk(nn.Module):
    """Tokens to features. It has no `forward`: a decoder and an encoder say what each position sees, and add a head.

    Weights are torch's defaults until `init_weights` is called, which `build_model` does.
    """

    def __init__(self, *, reads_memory: bool = False, **shape: Unpack[Shape]) -> None:
        """With `reads_memory` each block also attends to the features of another sequence."""
        super().__init__()
        hidden_size, num_heads = shape["hidden_size"], shape["num_heads"]
        norm, placement = shape.get("norm", "layer_norm"), shape.get("norm_placement", "pre")
        epsilon, bias = shape.get("norm_epsilon", 1e-5), shape.get("bias", False)
        self.vocabulary_size = shape["vocabulary_size"]
        self.max_positions = shape["max_positions"]
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.window = shape.get("window")
        """How many positions attention reaches, its own included; None: all."""
        self.flex = False
        """Whether FlexAttention computes in training what documents or a window hide."""
        self.output_scale = 1.0
        """What features are multiplied with before a head reads them."""
        self.width_ratio = 1.0
        """How much wider it is than the model on which learning rates were tuned: see `set_width` in `widths.py`."""
        self.measure_activations = False
        """Whether the output's `signals` hold the root mean square of each block's output."""

        self.embedding = nn.Embedding(self.vocabulary_size, hidden_size)
        self.position_embedding: nn.Embedding | SinusoidalPositions | None = None
        self.rotary: RotaryPositions | None = None
        match shape.get("positions", "rotary"):
            case "learned":
                self.position_embedding = nn.Embedding(self.max_positions, hidden_size)
            case "sinusoidal":
                self.position_embedding = SinusoidalPositions(hidden_size, self.max_positions)
            case "rotary":
                base = shape.get("rotary_base", 10_000.0)
                self.rotary = RotaryPositions(hidden_size // num_heads, self.max_positions, base)
        self.embedding_dropout = Dropout(shape.get("embedding_dropout", 0.0))
        num_layers, ramp = shape["num_layers"], shape.get("dropout_ramp", "none")
        layer, layer_ramp = shape.get("layer_dropout", 0.0), shape.get("layer_dropout_ramp", "linear")
        self.blocks = nn.ModuleList(
            Block(
                hidden_size=hidden_size,
                num_heads=num_heads,
                num_kv_heads=shape.get("num_kv_heads") or num_heads,
                feed_forward_size=shape["feed_forward_size"],
                activation=shape.get("activation", "gelu"),
                norm=norm,
                norm_placement=placement,
                norm_epsilon=epsilon,
                qk_norm=shape.get("qk_norm", False),
                bias=bias,
                attention_dropout=ramped(shape.get("attention_dropout", 0.0), index, num_layers, ramp),
                residual_dropout=ramped(shape.get("residual_dropout", 0.0), index, num_layers, ramp),
                feed_forward_dropout=ramped(shape.get("feed_forward_dropout", 0.0), index, num_layers, ramp),
                reads_memory=reads_memory,
                layer_dropout=ramped(layer, index, num_layers, layer_ramp),
                layer_dropout_unit=shape.get("layer_dropout_unit", "branch"),
                layer_dropout_per=shape.get("layer_dropout_per", "sample"),
            )
            for index in range(num_layers)
        )
        # A post-norm block ends with its norm, so that another one would only repeat it.
        self.final_norm = build_norm(norm, hidden_size, epsilon, bias) if placement == "pre" else nn.Identity()

    @property
    def all_blocks(self) -> Iterable[Block]:
        """The blocks, typed."""
        return (block for block in self.blocks if isinstance(block, Block))

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The names in the output's `signals`, when activations are measured."""
        return tuple(f"layer/blocks.{index}/activation_rms" for index in range(len(self.blocks)))

    def features(
        self,
        tokens_BT: Tensor,
        positions: Tensor | None,
        document_ids_BT: Tensor | None,
        *,
        causal: bool,
        memory_BSD: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D] and the signals.

        `positions` are 0, 1, 2 ... if not given. A position sees those of its document, or all where
        `document_ids_BT` is not given, with `causal` those not after it; of these only those within the window remain,
        where there is one. `memory_BSD` is read by blocks that read one, where `memory_mask`, broadcast to
        [B, H, T, S], is True.

        Raises:
            ConfigError: more tokens than positions.
        """
        num_tokens = tokens_BT.shape[1]
        if num_tokens > self.max_positions:
            raise ConfigError(
                f"model.max_positions: a sequence of {num_tokens} tokens is longer than the model's "
                f"{self.max_positions} positions",
                hint=f"set model.max_positions to at least {num_tokens}, or shorten the sequences",
            )
        if positions is None:
            positions = torch.arange(num_tokens, device=tokens_BT.device)
        x_BTD: Tensor = self.embedding(tokens_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(positions).type_as(x_BTD)
        x_BTD = self.embedding_dropout(x_BTD)
        mask = self._seen(document_ids_BT, num_tokens, causal, tokens_BT.device)
        rotation = None if self.rotary is None else self.rotary(positions)
        norms: list[Tensor] = []
        for block in self.all_blocks:
            inputs = (x_BTD, rotation, mask, self.measure_activations, causal, memory_BSD, memory_mask)
            if block.recompute == "full" and self.training and torch.is_grad_enabled():
                x_BTD, norm_BT = again(block, *inputs, draws=block.draws)
            else:
                x_BTD, norm_BT = block(*inputs)
            if norm_BT is not None:
                norms.append(norm_BT.flatten())
        signals: dict[str, Tensor] = {}
        if norms:  # all layers in one: a kernel for each would cost more than the values themselves
            scales = torch.linalg.vector_norm(torch.stack(norms), dim=1) / math.sqrt(x_BTD.numel())
            signals = dict(zip(self.signal_names, scales.unbind(), strict=True))
        return self.scaled(self.final_norm(x_BTD)), signals

    def scaled(self, features_BTD: Tensor) -> Tensor:
        """Features as a head reads them."""
        return features_BTD if self.output_scale == 1.0 else features_BTD * self.output_scale

    def hides(self, documents: bool, num_tokens: int) -> bool:
        """Whether more is hidden from a position than what follows, given `documents` or not."""
        return documents or (self.window is not None and self.window < num_tokens)

    def _seen(
        self, document_ids_BT: Tensor | None, num_tokens: int, causal: bool, device: torch.device
    ) -> Tensor | BlockMask | None:
        """What each position sees: None where nothing is hidden but, with `causal`, what follows."""
        in_blocks = self.flex and self.training and self.hides(document_ids_BT is not None, num_tokens)
        told = seen_blocks if in_blocks else seen
        return told(num_tokens, document_ids_BT, causal=causal, window=self.window, device=device)
