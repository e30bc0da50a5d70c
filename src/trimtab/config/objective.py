"""What is minimized."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Rate, Section


class CrossEntropyConfig(Section):
    """Token cross-entropy, with label smoothing and a z-loss if wanted."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Rate = Field(0.0, description="probability taken from the true token")
    spread: Literal["all", "others"] = Field(
        "all",
        description="smoothing over all classes (eps/K on each, as torch) or over the others (eps/(K-1))",
    )
    z_loss: NonNegative = Field(0.0, description="weight of the mean of log(Z)^2 (PaLM, section 5)")
    fused: Literal["auto", "on", "off"] = Field(
        "auto", description="head and loss as one operation: auto takes it on CUDA; never in fp16"
    )
    chunks: Count = Field(1, description="portions of a fused head and loss: more take less memory and more time")


ObjectiveConfig = CrossEntropyConfig
