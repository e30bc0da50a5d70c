"""What is measured, and how often it is told."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.adaptive import AdaptiveConfig, FullLogging
from trimtab.config.base import Section
from trimtab.config.capture import CaptureConfig
from trimtab.config.examine import ExamineConfig


class NoiseScaleConfig(Section):
    """How far the gradients of a step's micro-batches scatter (McCandlish et al. 2018, arXiv 1812.06162)."""

    every: int = Field(0, ge=0, le=100_000, description="steps between measurements; 0: it is not measured")
    memory: int = Field(50, ge=2, le=10_000, description="measurements in its running means")


class LoggingConfig(Section):
    """Windows and probes."""

    every: int = Field(10, ge=1, le=1_000, description="steps in a window: measured in each step, delivered together")
    layers: bool = Field(True, description="gradient norm, weight norm and activation scale of every layer")
    grad_cosine: bool = Field(
        False, description="cosine between the gradients of successive steps, from a sample of them"
    )
    noise_scale: NoiseScaleConfig = Field(default_factory=NoiseScaleConfig.model_construct)
    examine: ExamineConfig = Field(default_factory=ExamineConfig.model_construct)
    capture: CaptureConfig = Field(default_factory=CaptureConfig.model_construct)
    adaptive: AdaptiveConfig = Field(default_factory=FullLogging.model_construct)
