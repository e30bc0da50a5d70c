"""What is read of the machine while a run goes on, and what its speed is held against."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trimtab.config.base import Positive, Section


class HardwareConfig(Section):
    """Readings by a thread of their own, the split of a step's time, and utilization."""

    every_seconds: Annotated[float, Field(ge=0.0, le=3_600.0)] = Field(
        5.0, description="seconds between readings of processor, memory, disk, network and GPU; 0: none are taken"
    )
    split_every: int = Field(
        7,
        ge=0,
        le=100_000,
        description="steps between those whose time is split into parts (time/…); 0: none. A number that does not "
        "divide logging.every meets every place in a window in turn",
    )
    peak_flops: Positive | None = Field(
        None,
        description="floating-point operations a second that utilization (mfu) is held against; null: the data "
        "sheet's for a known GPU, else those of a large product, measured once",
    )
