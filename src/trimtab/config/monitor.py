"""What is measured, and how often it is told."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Section


class LoggingConfig(Section):
    """Windows and probes."""

    every: int = Field(10, ge=1, le=1_000, description="steps in a window: measured in each step, delivered together")
    layers: bool = Field(True, description="gradient norm, weight norm and activation scale of every layer")
