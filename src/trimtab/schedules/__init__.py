"""From a step to a factor: pure, torch-free, shared by optimizer, lint, stopping and plots."""

from trimtab.config import ScheduleConfig
from trimtab.config.base import steps_of
from trimtab.schedules.curves import Constant, Cosine, Linear, Schedule, Wsd

__all__ = ["Constant", "Cosine", "Linear", "Schedule", "Wsd", "build_schedule"]


def build_schedule(config: ScheduleConfig, total_steps: int) -> Schedule:
    """The schedule that `config` describes, over a run of `total_steps` steps."""
    warmup_steps = steps_of(config.warmup, total_steps)
    match config.name:
        case "constant":
            return Constant(warmup_steps)
        case "linear":
            return Linear(total_steps, warmup_steps, config.floor)
        case "cosine":
            return Cosine(total_steps, warmup_steps, config.floor)
        case "wsd":
            return Wsd(total_steps, warmup_steps, steps_of(config.decay, total_steps), config.shape, config.floor)
