"""What is minimized."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Positive, Rate, Section
from trimtab.config.distillation import DistillationConfig


class CrossEntropyConfig(Section):
    """Cross-entropy, with label smoothing and a z-loss if wanted."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Rate = Field(0.0, description="probability taken from the true class")
    spread: Literal["all", "others"] = Field(
        "all",
        description="smoothing over all classes (eps/K on each, as torch) or over the others (eps/(K-1))",
    )
    z_loss: NonNegative = Field(0.0, description="weight of the mean of log(Z)^2 (PaLM, section 5)")
    mmce: NonNegative = Field(
        0.0,
        description="weight of a term that keeps confidence near accuracy (Kumar et al. 2018); over the whole batch, "
        "of texts or words with classes",
    )
    fused: Literal["auto", "on", "off"] = Field(
        "auto", description="head and loss as one operation: auto takes it on CUDA; never in fp16"
    )
    chunks: Literal["auto"] | Count = Field(
        "auto", description="portions of a fused head and loss, which take less memory; auto: logits of 2 GiB at most"
    )
    distillation: DistillationConfig | None = Field(
        None, description="learn from a trained model besides, head and loss apart; null: from what is right alone"
    )


class FocalConfig(Section):
    """Cross-entropy that counts less what is predicted well already (Lin et al. 2017, arXiv 1708.02002)."""

    name: Literal["focal"] = "focal"
    gamma: NonNegative = Field(2.0, description="power of 1 - p; 0 is cross-entropy")


class BinaryCrossEntropyConfig(Section):
    """Cross-entropy of labels that are decided one by one."""

    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    label_smoothing: Rate = Field(0.0, description="labels become y (1 - eps) + eps / 2")
    gamma: NonNegative = Field(0.0, description="power of 1 - p of what is true: above 0 the focal loss")


class MeanSquaredErrorConfig(Section):
    """Square of the error; outliers pull hard."""

    name: Literal["mse"] = "mse"


class RootMeanSquaredErrorConfig(Section):
    """Root of the mean square of the batch's errors: steps of one size however large they are."""

    name: Literal["rmse"] = "rmse"


class MeanAbsoluteErrorConfig(Section):
    """Size of the error; its minimum is the median."""

    name: Literal["mae"] = "mae"


class HuberConfig(Section):
    """Square of small errors, size of large ones (Huber 1964)."""

    name: Literal["huber"] = "huber"
    delta: Positive = Field(1.0, description="where it becomes straight, in standard deviations of the targets")


class QuantileConfig(Section):
    """Pinball loss, whose minimum is a quantile (Koenker and Bassett 1978)."""

    name: Literal["quantile"] = "quantile"
    quantile: float = Field(0.5, gt=0.0, lt=1.0, description="which part of the targets shall lie below")


class LogCoshConfig(Section):
    """log cosh of the error: like half its square near 0, like its size far out."""

    name: Literal["log_cosh"] = "log_cosh"


class InfoNceConfig(Section):
    """Find the partner of a text among those of its batch (van den Oord et al. 2018, arXiv 1807.03748)."""

    name: Literal["info_nce"] = "info_nce"
    temperature: Positive = Field(0.05, description="similarities are divided by it; small: the nearest count most")
    learn_temperature: bool = Field(
        False, description="the temperature is trained from there on, never below 0.01 (CLIP, section 2.5)"
    )
    symmetric: bool = Field(
        True, description="half of the loss is for first texts, half for second ones; false: for first ones alone"
    )


class SupervisedContrastiveConfig(Section):
    """Find the texts of the same class among those of the batch (Khosla et al. 2020, arXiv 2004.11362)."""

    name: Literal["supervised_contrastive"] = "supervised_contrastive"
    temperature: Positive = Field(0.1, description="similarities are divided by it; small: the nearest count most")


ObjectiveConfig = Annotated[
    CrossEntropyConfig
    | FocalConfig
    | BinaryCrossEntropyConfig
    | MeanSquaredErrorConfig
    | RootMeanSquaredErrorConfig
    | MeanAbsoluteErrorConfig
    | HuberConfig
    | QuantileConfig
    | LogCoshConfig
    | InfoNceConfig
    | SupervisedContrastiveConfig,
    Field(discriminator="name"),
]
