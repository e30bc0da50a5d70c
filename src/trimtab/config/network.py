"""Small networks without attention: the shape of an MLP and of a CNN, with BatchNorm between their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from trimtab.config.base import Count, Positive, Rate, Section
from trimtab.config.freezing import Freeze, Unfreeze

if TYPE_CHECKING:
    from trimtab.config.run import Config


class BatchNormConfig(Section):
    """Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167): each micro-batch by its own mean and variance,
    in evaluation by running ones, which each micro-batch moves once."""

    momentum: float = Field(0.1, gt=0.0, le=1.0, description="what a micro-batch counts in the running statistics")
    epsilon: Positive = Field(1e-5, description="added to the variance")


class NetworkInitialization(Section):
    """Weights at step 0: of layers normal with variance 2 / inputs (He et al. 2015, arXiv 1502.01852, eq. 10), of the
    head 1 / inputs; biases are 0."""

    standard_deviation: Positive = Field(0.1, description="of embeddings, which are normal")


class NetworkDropout(Section):
    """Probability of dropping at each site."""

    embedding: Rate = Field(0.0, description="on the embeddings of tokens")

    @property
    def rates(self) -> dict[str, float]:
        """Every site with its rate."""
        return {name: value for name, value in self if isinstance(value, float)}


class MlpDropout(NetworkDropout):
    """Probability of dropping at each site."""

    hidden: Rate = Field(0.0, description="on the output of each layer, that which the head reads included")


class CnnDropout(NetworkDropout):
    """Probability of dropping at each site."""

    head: Rate = Field(0.0, description="on what the head reads: the largest value of each filter")


class NetworkShape(Section):
    """What small networks have."""

    name: str
    hidden_size: Count = Field(64, description="width of the embeddings of tokens")
    activation: Literal["relu", "gelu"] = Field("relu", description="after each layer and its norm")
    batch_norm: BatchNormConfig | None = Field(
        default_factory=BatchNormConfig,
        description="between a layer and its activation; null: none, and biases instead",
    )
    dropout: NetworkDropout = Field(default_factory=NetworkDropout)
    initialization: NetworkInitialization = Field(default_factory=NetworkInitialization)
    freeze: Freeze = ()
    unfreeze: Unfreeze = Field(default_factory=dict)


class MlpConfig(NetworkShape):
    """Layers over the mean of a text's embeddings, which know no order of tokens."""

    name: Literal["mlp"] = "mlp"
    num_layers: Count = Field(2, description="layers between the mean and the head")
    layer_size: Count = Field(128, description="units of each")
    dropout: MlpDropout = Field(default_factory=MlpDropout)


class CnnConfig(NetworkShape):
    """Convolutions of several widths over a text's embeddings, side by side, and the largest value of each filter."""

    name: Literal["cnn"] = "cnn"
    widths: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = Field(
        (3, 4, 5), description="tokens that a filter reads at once, each once"
    )
    num_filters: Count = Field(64, description="filters of each width")
    dropout: CnnDropout = Field(default_factory=CnnDropout)

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.widths)) < len(self.widths):
            raise ValueError(
                f"widths must differ, and num_filters says how many of each. Received: {list(self.widths)}"
            )
        return self


def without_batch(config: Config) -> str:
    """Why BatchNorm has nothing to normalize by in `config`; "" where it has."""
    model, training = config.model, config.training
    if not (isinstance(model, MlpConfig) and model.batch_norm is not None):
        return ""
    if training.micro_batch_size == 1 or (training.micro_batch_size == "auto" and config.sequences_per_step == 1):
        return (
            "model.batch_norm normalizes over the texts of a micro-batch, and one text has no variance; "
            "training.micro_batch_size is "
            f"{training.micro_batch_size}. Fitting: training.micro_batch_size=32, or model.batch_norm=null"
        )
    whole = config.sequences_per_step
    # The noise scale compares micro-batches, of which there must be two or more.
    divides = any(whole % parts == 0 for parts in range(2, whole // 2 + 1))
    if training.micro_batch_size == "auto" and config.logging.noise_scale.every and not divides:
        return (
            f"training.micro_batch_size auto finds none: {whole} sequences make no two micro-batches of as many texts, "
            "at least two, as logging.noise_scale and model.batch_norm need. Fitting: "
            f"training.batch_size={whole + 1 if whole > 2 else 4}"
        )
    return ""
