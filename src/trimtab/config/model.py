"""The shape of a model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from trimtab.config.base import Count, Custom, Positive, Rate, Section, Texts
from trimtab.config.freezing import Freeze, Unfreeze
from trimtab.config.network import CnnConfig, MlpConfig
from trimtab.config.widths import WidthBase


class LayerNorm(Section):
    """Layer normalization (Ba et al. 2016, arXiv 1607.06450)."""

    name: Literal["layer_norm"] = "layer_norm"
    placement: Literal["pre", "post"] = Field("pre", description="x + f(norm(x)), or norm(x + f(x))")
    epsilon: Positive = Field(1e-5, description="added to the variance")


class RmsNorm(Section):
    """Root-mean-square normalization (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    name: Literal["rms_norm"] = "rms_norm"
    placement: Literal["pre", "post"] = Field("pre", description="x + f(norm(x)), or norm(x + f(x))")
    epsilon: Positive = Field(1e-6, description="added to the mean square")


NormConfig = Annotated[LayerNorm | RmsNorm, Field(discriminator="name")]


class LearnedPositions(Section):
    """A learned vector for each position."""

    name: Literal["learned"] = "learned"


class SinusoidalPositions(Section):
    """Fixed sines and cosines (Vaswani et al. 2017, section 3.5)."""

    name: Literal["sinusoidal"] = "sinusoidal"


class RotaryPositions(Section):
    """Rotary embeddings of queries and keys (Su et al. 2021, arXiv 2104.09864)."""

    name: Literal["rotary"] = "rotary"
    base: float = Field(10_000.0, gt=1.0, description="of the geometric row of wavelengths")


PositionsConfig = Annotated[LearnedPositions | SinusoidalPositions | RotaryPositions, Field(discriminator="name")]


class DropoutConfig(Section):
    """Probability of dropping at each site."""

    embedding: Rate = Field(0.0, description="on the sum of token and position embeddings")
    attention: Rate = Field(0.0, description="on the attention weights")
    residual: Rate = Field(0.0, description="on the output of attention, before the residual is added")
    feed_forward: Rate = Field(0.0, description="on the output of the feed-forward block, before the residual is added")
    ramp: Literal["none", "linear"] = Field(
        "none",
        description="attention, residual and feed_forward alike in every block, or linear: block l of L has l/L",
    )
    layer: Rate = Field(
        0.0, description="of leaving out whole branches, or blocks, while training; the others are scaled up"
    )
    layer_ramp: Literal["linear", "none"] = Field(
        "linear", description="linear: block l of L has l/L of layer, so that the first are seldom left out; none: all"
    )
    layer_unit: Literal["branch", "block"] = Field(
        "branch", description="each of attention and feed-forward by itself (stochastic depth), or both (LayerDrop)"
    )
    layer_per: Literal["sample", "batch"] = Field(
        "sample", description="drawn for each row of a micro-batch, or once for all of them"
    )

    @property
    def rates(self) -> dict[str, float]:
        """Every site with its rate; that of the last block where it rises with depth."""
        return {name: value for name, value in self if isinstance(value, float)}


class InitializationConfig(Section):
    """Weights at step 0, with the residual projections scaled by 1/sqrt(2 * num_layers)."""

    matrices: Literal["normal", "xavier_uniform"] = Field(
        "normal",
        description="of linear layers: normal, or uniform within sqrt(6 / (inputs + outputs)), whatever the width; "
        "embeddings are normal",
    )
    standard_deviation: Positive = Field(0.02, description="of the normal distribution")
    depth_scaled: bool = Field(True, description="scale the residual projections down with depth (GPT-2)")


class TransformerShape(Section):
    """What all transformers have."""

    name: str
    num_layers: Count = Field(4, description="blocks of attention and feed-forward")
    hidden_size: Count = Field(256, description="width of the residual stream; a multiple of num_heads")
    num_heads: Count = Field(4, description="attention heads")
    num_kv_heads: Count | None = Field(None, description="heads of keys and values; as many as num_heads if not given")
    feed_forward_size: Count | None = Field(
        None,
        description="4 * hidden_size if not given; with swiglu 8/3 of it, rounded up to a multiple of 64",
    )
    activation: Literal["gelu", "gelu_tanh", "swiglu", "relu_squared"] = Field(
        "gelu",
        description="between the two linear layers of the feed-forward block; gelu_tanh is GPT-2's own, and on CUDA "
        "in bf16 quicker than gelu",
    )
    norm: NormConfig = Field(default_factory=LayerNorm)
    positions: PositionsConfig = Field(default_factory=RotaryPositions)
    max_positions: Count | None = Field(
        None, description="positions that the model can tell apart; data.sequence_length if not given"
    )
    window: Count | None = Field(
        None,
        description="sliding window: a position attends to itself and window - 1 before it, in an encoder to as many "
        "after it, too; null: to all",
    )
    qk_norm: bool = Field(False, description="RMS-normalize queries and keys")
    bias: bool = Field(False, description="biases in linear layers and layer norms")
    tied_embeddings: bool = Field(True, description="the head uses the embedding's weights")
    dropout: DropoutConfig = Field(default_factory=DropoutConfig)
    initialization: InitializationConfig = Field(default_factory=InitializationConfig)
    width_base: WidthBase | None = Field(
        None,
        description="the narrower model on which optimizer.learning_rate and initialization.standard_deviation were "
        "tuned, which are then right at this width, too; null: they are for this one",
    )
    freeze: Freeze = ()
    unfreeze: Unfreeze = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_heads: {self.hidden_size} over {self.num_heads} heads"
            )
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads must be a multiple of num_kv_heads: {self.num_heads} over {self.num_kv_heads}")
        if self.positions.name == "rotary" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"rotary positions need an even head size: {self.hidden_size} / {self.num_heads} heads "
                f"= {self.hidden_size // self.num_heads}"
            )
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def width_ratio(self) -> float:
        """How much wider it is than `width_base`; 1 where there is none."""
        return 1.0 if self.width_base is None else self.hidden_size / self.width_base.hidden_size

    @property
    def base_head_size(self) -> float:
        """Width of an attention head of `width_base`, or its own."""
        base = self.width_base
        return float(self.head_size) if base is None else base.hidden_size / base.num_heads

    @property
    def resolved_feed_forward_size(self) -> int:
        """`feed_forward_size`, or what it means when not given."""
        if self.feed_forward_size is not None:
            return self.feed_forward_size
        if self.activation == "swiglu":
            return -(-8 * self.hidden_size // 3 // 64) * 64
        return 4 * self.hidden_size


class HeadDropoutConfig(DropoutConfig):
    """Probability of dropping at each site."""

    head: Rate = Field(0.0, description="on what the head reads")


class DecoderConfig(TransformerShape):
    """A decoder-only transformer: GPT and Llama are settings of it."""

    name: Literal["decoder"] = "decoder"
    document_mask: bool = Field(False, description="no attention across the documents packed in a sequence")
    pooling: Literal["last", "mean"] = Field(
        "last", description="one vector of a text: that of its last token, which has seen all of it, or the mean"
    )
    dropout: HeadDropoutConfig = Field(default_factory=HeadDropoutConfig)


class EncoderConfig(TransformerShape):
    """An encoder: every position sees its whole document. BERT is a setting of it."""

    name: Literal["encoder"] = "encoder"
    pooling: Literal["mean", "first"] = Field(
        "mean", description="one vector of a text: the mean of its positions, or the first, an end-of-text token"
    )
    dropout: HeadDropoutConfig = Field(default_factory=HeadDropoutConfig)


class EncoderDecoderConfig(TransformerShape):
    """An encoder that reads, and a decoder that writes and looks at what was read; num_layers each."""

    name: Literal["encoder_decoder"] = "encoder_decoder"


class CustomModel(Custom):
    """Any `nn.Module` that turns tokens into what the task asks for; `trimtab.model.ForeignModel` is the contract."""

    name: Literal["custom"] = "custom"
    freeze: Freeze = ()
    unfreeze: Unfreeze = Field(default_factory=dict)


class LoraConfig(Section):
    """Low-rank updates beside frozen weights (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Count = Field(8, description="of the update: it has rank * (inputs + outputs) parameters for each matrix")
    alpha: Positive = Field(16.0, description="the update is multiplied with alpha / rank")
    dropout: Rate = Field(0.0, description="on what the update reads")
    targets: Literal["auto", "all"] | Texts = Field(
        "auto",
        description="which matrices: auto are those that peft knows for the architecture, or all; all is every one "
        "but the head; a list has ends of their names, such as [q_proj, v_proj]",
    )


class HuggingFaceConfig(Section):
    """A model of Hugging Face transformers, from a local folder, or from its configuration (extra: huggingface)."""

    name: Literal["hugging_face"] = "hugging_face"
    path: str | None = Field(
        None, min_length=1, description="a folder with config.json and weights; without it weights are random"
    )
    config: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="settings of its configuration in transformers' words, beside those in path; with model_type where "
        "there is no path",
    )
    document_mask: bool = Field(
        False, description="no attention across the documents packed in a sequence, in models that take such a mask"
    )
    lora: LoraConfig | None = Field(None, description="train low-rank updates alone (extra: peft); null: the weights")
    freeze: Freeze = ()
    unfreeze: Unfreeze = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if self.path is None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("give path, a folder, or a config with model_type, such as {model_type: gpt2, n_layer: 2}")
        if self.lora is not None and (self.freeze or self.unfreeze):
            raise ValueError("freeze has no effect beside lora, which freezes all weights but its own and a new head")
        return self


OutsideModel = CustomModel | HuggingFaceConfig
"""Those that trimtab does not build itself."""

ModelConfig = Annotated[
    DecoderConfig | EncoderConfig | EncoderDecoderConfig | MlpConfig | CnnConfig | HuggingFaceConfig | CustomModel,
    Field(discriminator="name"),
]
