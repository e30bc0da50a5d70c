"""From a step to a factor: pure, torch-free, shared by optimizer, lint, stopping and plots."""

from collections.abc import Sequence

from trimtab.config import AccumulationSchedule, Budget, ScheduleConfig, rise_of, steps_of
from trimtab.schedules.curves import (
    Constant,
    Cosine,
    Exponential,
    InverseSquareRoot,
    Linear,
    Polynomial,
    Schedule,
    StepDecay,
    Wsd,
)
from trimtab.schedules.cycles import OneCycle, Triangular, WarmRestarts
from trimtab.schedules.pieces import Piecewise, Stairs

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "InverseSquareRoot",
    "Linear",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "Schedule",
    "Stairs",
    "StepDecay",
    "Triangular",
    "WarmRestarts",
    "Wsd",
    "build_schedule",
    "build_stairs",
]


def build_schedule(config: ScheduleConfig, budget: Budget | int) -> Schedule:
    """The schedule that `config` describes, over a run of that budget, or of so many steps.

    Raises: UnknownLengthError for a stretch in tokens or epochs when `budget` does not say how long these are.
    """
    total = budget if isinstance(budget, int) else budget.steps
    warmup = steps_of(rise_of(config)[1], budget)

    def length(span: int | float | str | None, otherwise: int) -> int:
        return max(1, otherwise if span is None else steps_of(span, budget))

    match config.name:
        case "constant":
            return Constant(warmup)
        case "linear":
            return Linear(total, warmup, config.floor)
        case "cosine":
            return Cosine(total, warmup, config.floor)
        case "polynomial":
            return Polynomial(total, warmup, config.floor, config.power)
        case "exponential":
            return Exponential(total, warmup, config.floor)
        case "inverse_square_root":
            return InverseSquareRoot(warmup, length(config.timescale, warmup), config.floor)
        case "step":
            return StepDecay(warmup, length(config.every, total), config.factor, config.floor)
        case "wsd":
            return Wsd(total, warmup, steps_of(config.decay, budget), config.shape, config.floor)
        case "triangular":
            per_cycle = 0.5 if config.halved else 1.0
            return Triangular(max(1, warmup), length(config.fall, warmup), config.floor, per_cycle=per_cycle)
        case "exp_range":
            per_step = config.final ** (1.0 / total)
            return Triangular(max(1, warmup), length(config.fall, warmup), config.floor, per_step=per_step)
        case "one_cycle":
            return OneCycle(total, warmup, config.start, config.floor, config.shape)
        case "warm_restarts":
            # A half cosine of one step would be its floor alone.
            return WarmRestarts(warmup, max(2, length(config.period, total)), config.growth, config.floor)
        case "piecewise":
            starts = _starts(config.lengths, warmup, budget)
            return Piecewise(total, config.levels, starts, steps_of(config.join, budget), config.shape, warmup)


def build_stairs(config: AccumulationSchedule | None, budget: Budget | int) -> Stairs:
    """The multiples of the accumulation over a run; always 1 without a schedule."""
    return Stairs((1,), ()) if config is None else Stairs(config.factors, _starts(config.lengths, 0, budget))


def _starts(lengths: Sequence[int | float | str], first: int, budget: Budget | int) -> tuple[int, ...]:
    """Where each part but the first begins, when that begins after `first` steps; none is shorter than a step."""
    starts = []
    for length in lengths:
        first += max(1, steps_of(length, budget))
        starts.append(first)
    return tuple(starts)
