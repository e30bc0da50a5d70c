"""What is minimized: tasks and the losses they use, as terms that are summed and counted."""

from trimtab.config import ObjectiveConfig, TaskConfig
from trimtab.objective.cross_entropy import CrossEntropy
from trimtab.objective.tasks import CausalLanguageModelingTask
from trimtab.signals import Task

__all__ = ["CausalLanguageModelingTask", "CrossEntropy", "build_objective", "build_task"]


def build_objective(config: ObjectiveConfig) -> CrossEntropy:
    """The objective that `config` describes."""
    return CrossEntropy(config.label_smoothing, config.spread, config.z_loss, fused=config.fused, chunks=config.chunks)


def build_task(config: TaskConfig, objective: CrossEntropy) -> Task:
    """The task that `config` describes, scored by `objective`."""
    match config.name:
        case "causal_lm":
            return CausalLanguageModelingTask(objective)
