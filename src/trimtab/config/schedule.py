"""The learning rate over a run. `warmup` and `decay` count steps (integer) or a part of the run (float)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Fraction, Section, Span


class ConstantSchedule(Section):
    """The full rate after a linear warm-up."""

    name: Literal["constant"] = "constant"
    warmup: Span = Field(0, description="rising from 0 to the full rate: steps, or a part of the run")


class LinearSchedule(Section):
    """Linear warm-up, then linear decay to `floor` at the last step."""

    name: Literal["linear"] = "linear"
    warmup: Span = Field(0.02, description="rising from 0 to the full rate: steps, or a part of the run")
    floor: Fraction = Field(0.0, description="the last step's rate, as a part of the full rate")


class CosineSchedule(Section):
    """Linear warm-up, then half a cosine down to `floor` at the last step (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    warmup: Span = Field(0.02, description="rising from 0 to the full rate: steps, or a part of the run")
    floor: Fraction = Field(0.1, description="the last step's rate, as a part of the full rate")


class WsdSchedule(Section):
    """Warm-up, full rate, then a fall in the last `decay` steps (Hu et al. 2024, arXiv 2404.06395)."""

    name: Literal["wsd"] = "wsd"
    warmup: Span = Field(0.02, description="rising from 0 to the full rate: steps, or a part of the run")
    decay: Span = Field(0.2, description="the fall at the end: steps, or a part of the run")
    shape: Literal["linear", "sqrt"] = Field("linear", description="1 - x, or 1 - sqrt(x) (Hägele et al. 2024)")
    floor: Fraction = Field(0.0, description="the last step's rate, as a part of the full rate")


ScheduleConfig = Annotated[
    ConstantSchedule | LinearSchedule | CosineSchedule | WsdSchedule, Field(discriminator="name")
]
