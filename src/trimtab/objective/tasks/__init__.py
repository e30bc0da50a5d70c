"""One file per task: its inputs, its score, its leading curves."""

from trimtab.objective.tasks.causal_lm import CausalLanguageModelingTask

__all__ = ["CausalLanguageModelingTask"]
