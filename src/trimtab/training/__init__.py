"""The loop, the step, and what they need: calendar, windows, precision, randomness, checkpoints."""

from trimtab.training.accumulate import summed_cross_entropy, train_with_gradient_accumulation
from trimtab.training.adjustments import Adjustments, build_adjustments
from trimtab.training.calendar import Calendar
from trimtab.training.checkpoint import Keeper
from trimtab.training.loop import Loop
from trimtab.training.mixed_precision import MixedPrecisionTrainer
from trimtab.training.precision import LossScaler, Precision
from trimtab.training.progress import Progress
from trimtab.training.requests import Requests
from trimtab.training.settings import Settings
from trimtab.training.step import Step
from trimtab.training.windows import Windows, columns_of_step, peak_memory_bytes

__all__ = [
    "Adjustments",
    "Calendar",
    "Keeper",
    "Loop",
    "LossScaler",
    "MixedPrecisionTrainer",
    "Precision",
    "Progress",
    "Requests",
    "Settings",
    "Step",
    "Windows",
    "build_adjustments",
    "columns_of_step",
    "peak_memory_bytes",
    "summed_cross_entropy",
    "train_with_gradient_accumulation",
]
