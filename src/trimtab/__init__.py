"""trimtab trains transformers, watches every run, and says in plain words what happens and why.

Importing this package does not import torch; the names below load it when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.config import Config as Config
    from trimtab.config import load_config as load_config
    from trimtab.evaluation.attention import visualize_attention as visualize_attention
    from trimtab.evaluation.attributions import attribute_tokens as attribute_tokens
    from trimtab.evaluation.efficiency import calculate_model_efficiency as calculate_model_efficiency
    from trimtab.evaluation.perplexity import calculate_perplexity as calculate_perplexity
    from trimtab.evaluation.uncertainty import estimate_uncertainty as estimate_uncertainty
    from trimtab.experiments import find_learning_rate as find_learning_rate
    from trimtab.integrations.logger import TrainingLogger as TrainingLogger
    from trimtab.integrations.session import finish as finish
    from trimtab.integrations.session import init as init
    from trimtab.integrations.session import log as log
    from trimtab.model import init_weights as init_weights
    from trimtab.model.memory_efficient import MemoryEfficientLLM as MemoryEfficientLLM
    from trimtab.objective import LabelSmoothingLoss as LabelSmoothingLoss
    from trimtab.optimizer import CosineAnnealingWarmupScheduler as CosineAnnealingWarmupScheduler
    from trimtab.optimizer import adaptive_gradient_clipping as adaptive_gradient_clipping
    from trimtab.optimizer import get_parameter_groups as get_parameter_groups
    from trimtab.optimizer import gradient_centralization as gradient_centralization
    from trimtab.report.notebook import monitor_training_metrics as monitor_training_metrics
    from trimtab.trainer import Result as Result
    from trimtab.trainer import Trainer as Trainer
    from trimtab.trainers import ClassificationTrainer as ClassificationTrainer
    from trimtab.trainers import LanguageModelTrainer as LanguageModelTrainer
    from trimtab.trainers import TransformerTrainer as TransformerTrainer
    from trimtab.training import MixedPrecisionTrainer as MixedPrecisionTrainer
    from trimtab.training import train_with_gradient_accumulation as train_with_gradient_accumulation
    from trimtab.training.predictor import open_predictor as open_predictor

__version__ = "0.1.0"

_WHERE = {
    "Config": "trimtab.config",
    "load_config": "trimtab.config",
    "ClassificationTrainer": "trimtab.trainers",
    "LanguageModelTrainer": "trimtab.trainers",
    "TransformerTrainer": "trimtab.trainers",
    "MemoryEfficientLLM": "trimtab.model.memory_efficient",
    "MixedPrecisionTrainer": "trimtab.training",
    "LabelSmoothingLoss": "trimtab.objective",
    "init_weights": "trimtab.model",
    "calculate_perplexity": "trimtab.evaluation.perplexity",
    "calculate_model_efficiency": "trimtab.evaluation.efficiency",
    "attribute_tokens": "trimtab.evaluation.attributions",
    "estimate_uncertainty": "trimtab.evaluation.uncertainty",
    "open_predictor": "trimtab.training.predictor",
    "find_learning_rate": "trimtab.experiments.learning_rate",
    "Trainer": "trimtab.trainer",
    "TrainingLogger": "trimtab.integrations.logger",
    "init": "trimtab.integrations.session",
    "log": "trimtab.integrations.session",
    "finish": "trimtab.integrations.session",
    "monitor_training_metrics": "trimtab.report.notebook",
    "Result": "trimtab.trainer",
    "CosineAnnealingWarmupScheduler": "trimtab.optimizer",
    "adaptive_gradient_clipping": "trimtab.optimizer",
    "get_parameter_groups": "trimtab.optimizer",
    "gradient_centralization": "trimtab.optimizer",
    "train_with_gradient_accumulation": "trimtab.training",
    "visualize_attention": "trimtab.evaluation.attention",
}

_COMPUTE = ("trimtab.trainer", "trimtab.trainers", "trimtab.training.predictor", "trimtab.experiments.learning_rate")
"""What begins a computation of its own: on a busy machine the threads of torch wait as the commands let them."""

__all__ = [
    "ClassificationTrainer",
    "Config",
    "CosineAnnealingWarmupScheduler",
    "LabelSmoothingLoss",
    "LanguageModelTrainer",
    "MemoryEfficientLLM",
    "MixedPrecisionTrainer",
    "Result",
    "Trainer",
    "TrainingLogger",
    "TransformerTrainer",
    "__version__",
    "adaptive_gradient_clipping",
    "attribute_tokens",
    "calculate_model_efficiency",
    "calculate_perplexity",
    "estimate_uncertainty",
    "find_learning_rate",
    "finish",
    "get_parameter_groups",
    "gradient_centralization",
    "init",
    "init_weights",
    "load_config",
    "log",
    "monitor_training_metrics",
    "open_predictor",
    "train_with_gradient_accumulation",
    "visualize_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}; it has: {', '.join(sorted(_WHERE))}")
    if _WHERE[name] in _COMPUTE:
        # What GNU OpenMP reads when torch loads it, and never again.
        from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

        wait_briefly_in_company(OtherPrograms())
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
