"""The learning rate over a run.

Stretches count steps (integer), are a part of the run (float), or have a unit: "500 steps", "2e6 tokens", "1.5 epochs".
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trimtab.config.base import Count, Fraction, Positive, Section, Span, is_nothing

PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]


def _not_nothing(span: int | float | str) -> int | float | str:
    if is_nothing(span):
        raise ValueError("must be longer than 0")
    return span


Stretch = Annotated[Span, AfterValidator(_not_nothing)]

Stretches = Annotated[tuple[Stretch, ...], Field(strict=False)]
Levels = Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)]
Multiples = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]

_LENGTHS = "how long each lasts but the last, which goes to the end"
_WARMUP = "rising from 0 to the full rate"
_FLOOR = "the last step's rate, as a part of the full rate"
_LOWEST = "the lowest rate, as a part of the full rate"


class ConstantSchedule(Section):
    """The full rate after a linear warm-up."""

    name: Literal["constant"] = "constant"
    warmup: Span = Field(0, description=_WARMUP)


class LinearSchedule(Section):
    """Linear warm-up, then linear decay to `floor` at the last step."""

    name: Literal["linear"] = "linear"
    warmup: Span = Field(0.02, description=_WARMUP)
    floor: Fraction = Field(0.0, description=_FLOOR)


class CosineSchedule(Section):
    """Linear warm-up, then half a cosine down to `floor` at the last step (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    warmup: Span = Field(0.02, description=_WARMUP)
    floor: Fraction = Field(0.1, description=_FLOOR)


class PolynomialSchedule(Section):
    """Linear warm-up, then a power of what is left of the run, down to `floor` at the last step."""

    name: Literal["polynomial"] = "polynomial"
    warmup: Span = Field(0.02, description=_WARMUP)
    power: Positive = Field(2.0, description="1 is a straight line; more falls early, less falls late")
    floor: Fraction = Field(0.0, description=_FLOOR)


class ExponentialSchedule(Section):
    """Linear warm-up, then the same factor in every step, which comes to `floor` at the last one."""

    name: Literal["exponential"] = "exponential"
    warmup: Span = Field(0.02, description=_WARMUP)
    floor: PositiveFraction = Field(0.01, description=_FLOOR)


class InverseSquareRootSchedule(Section):
    """Linear warm-up, then falling with the root of the steps; needs no end (Vaswani et al. 2017)."""

    name: Literal["inverse_square_root"] = "inverse_square_root"
    warmup: Span = Field(0.02, description=_WARMUP)
    timescale: Stretch | None = Field(None, description="the rate has halved after three of it; null: the warm-up")
    floor: Fraction = Field(0.0, description=_LOWEST)


class StepSchedule(Section):
    """Linear warm-up, then times `factor` after every stretch of `every`."""

    name: Literal["step"] = "step"
    warmup: Span = Field(0.02, description=_WARMUP)
    every: Stretch = Field(0.3, description="from one fall to the next")
    factor: PositiveFraction = Field(0.1, description="what a fall leaves of the rate")
    floor: Fraction = Field(0.0, description=_LOWEST)


class WsdSchedule(Section):
    """Warm-up, full rate, then a fall in the last `decay` steps (Hu et al. 2024, arXiv 2404.06395)."""

    name: Literal["wsd"] = "wsd"
    warmup: Span = Field(0.02, description=_WARMUP)
    decay: Span = Field(0.2, description="the fall at the end")
    shape: Literal["linear", "sqrt"] = Field("linear", description="1 - x, or 1 - sqrt(x) (Hägele et al. 2024)")
    floor: Fraction = Field(0.0, description=_FLOOR)


class TriangularSchedule(Section):
    """Rising and falling again and again, in straight lines (Smith 2017)."""

    name: Literal["triangular"] = "triangular"
    rise: Stretch = Field(0.05, description="from the lowest rate to the peak")
    fall: Stretch | None = Field(None, description="from the peak to the lowest rate; null: as long as the rise")
    halved: bool = Field(False, description="each cycle is half as high as the one before (triangular2)")
    floor: Fraction = Field(0.1, description=_LOWEST)


class ExpRangeSchedule(Section):
    """Triangles whose height falls by the same factor in every step (Smith 2017)."""

    name: Literal["exp_range"] = "exp_range"
    rise: Stretch = Field(0.05, description="from the lowest rate to the peak")
    fall: Stretch | None = Field(None, description="from the peak to the lowest rate; null: as long as the rise")
    final: PositiveFraction = Field(0.1, description="what is left of the height at the end of the run")
    floor: Fraction = Field(0.1, description=_LOWEST)


class OneCycleSchedule(Section):
    """One rise and one long fall far below where it began (Smith and Topin 2018)."""

    name: Literal["one_cycle"] = "one_cycle"
    warmup: Span = Field(0.3, description="from the first step's rate to the full rate")
    start: PositiveFraction = Field(0.04, description="the first step's rate, as a part of the full rate")
    shape: Literal["cosine", "linear"] = Field("cosine", description="of the rise and of the fall")
    floor: Fraction = Field(4e-6, description=_FLOOR)


class WarmRestartsSchedule(Section):
    """Linear warm-up, then half cosines, each beginning at the full rate anew (Loshchilov and Hutter 2017)."""

    name: Literal["warm_restarts"] = "warm_restarts"
    warmup: Span = Field(0, description=_WARMUP)
    period: Stretch = Field(0.25, description="the first half cosine")
    growth: Count = Field(1, description="each half cosine is so many times as long as the one before")
    floor: Fraction = Field(0.0, description="the last rate of each half cosine, as a part of the full rate")


def _one_shorter(name: str, values: int, lengths: int) -> None:
    if lengths != values - 1:
        raise ValueError(f"lengths must be one fewer than {name}, as the last lasts to the end: {lengths} for {values}")


class PiecewiseSchedule(Section):
    """Linear warm-up, then one level after the other, joined by ramps."""

    name: Literal["piecewise"] = "piecewise"
    warmup: Span = Field(0.02, description="rising from 0 to the first level")
    levels: Levels = Field((1.0, 0.1), description="each level, as a part of the full rate")
    lengths: Stretches = Field((0.5,), description=_LENGTHS)
    join: Span = Field(0.05, description="the ramp at the beginning of each level but the first; 0: a jump")
    shape: Literal["linear", "cosine"] = Field("cosine", description="of the ramps")

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        _one_shorter("levels", len(self.levels), len(self.lengths))
        return self


class AccumulationSchedule(Section):
    """One multiple of training.accumulation after the other: a batch that grows."""

    factors: Multiples = Field((1, 2), description="each multiple of training.accumulation")
    lengths: Stretches = Field((0.5,), description=_LENGTHS)

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        _one_shorter("factors", len(self.factors), len(self.lengths))
        return self


ScheduleConfig = Annotated[
    ConstantSchedule
    | LinearSchedule
    | CosineSchedule
    | PolynomialSchedule
    | ExponentialSchedule
    | InverseSquareRootSchedule
    | StepSchedule
    | WsdSchedule
    | TriangularSchedule
    | ExpRangeSchedule
    | OneCycleSchedule
    | WarmRestartsSchedule
    | PiecewiseSchedule,
    Field(discriminator="name"),
]


def rise_of(schedule: ScheduleConfig) -> tuple[str, int | float | str]:
    """The key, and the stretch, in which `schedule` rises to the full rate for the first time."""
    if isinstance(schedule, TriangularSchedule | ExpRangeSchedule):
        return "schedule.rise", schedule.rise
    return "schedule.warmup", schedule.warmup


def counts_data(section: Section | None) -> bool:
    """Whether a stretch of it is in tokens or epochs, which are so many steps only while the batch stays the same."""
    values = [] if section is None else section.model_dump().values()
    spans = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
    return any(isinstance(span, str) and span.endswith((" tokens", " epochs")) for span in spans)
