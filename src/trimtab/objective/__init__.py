"""What is minimized: tasks and the losses they use, as terms that are summed and counted."""

from trimtab.objective.binary import BinaryCrossEntropy
from trimtab.objective.contrastive import InfoNce, SupervisedContrastive
from trimtab.objective.cross_entropy import CrossEntropy
from trimtab.objective.distillation import DistillationTask, ProbableTask
from trimtab.objective.distributions import divergence, entropy
from trimtab.objective.drawn import draw_classes, drawn_loss
from trimtab.objective.factory import Objective, build_objective, build_task, class_weights
from trimtab.objective.focal import Focal
from trimtab.objective.procedures import (
    FreeLB,
    Plain,
    ProjectedGradient,
    RDrop,
    ascent,
    build_procedure,
    cached_gradients,
    symmetric_divergence,
)
from trimtab.objective.regression import Regression
from trimtab.objective.smoothing import LabelSmoothingLoss
from trimtab.objective.tasks import (
    CausalLanguageModelingTask,
    ClassificationTask,
    ContrastiveTask,
    MaskedLanguageModelingTask,
    MultiLabelTask,
    RegressionTask,
    SequenceToSequenceTask,
)
from trimtab.objective.tasks.parts import logits_of, perplexity_of

__all__ = [
    "BinaryCrossEntropy",
    "CausalLanguageModelingTask",
    "ClassificationTask",
    "ContrastiveTask",
    "CrossEntropy",
    "DistillationTask",
    "Focal",
    "FreeLB",
    "InfoNce",
    "LabelSmoothingLoss",
    "MaskedLanguageModelingTask",
    "MultiLabelTask",
    "Objective",
    "Plain",
    "ProbableTask",
    "ProjectedGradient",
    "RDrop",
    "Regression",
    "RegressionTask",
    "SequenceToSequenceTask",
    "SupervisedContrastive",
    "ascent",
    "build_objective",
    "build_procedure",
    "build_task",
    "cached_gradients",
    "class_weights",
    "divergence",
    "draw_classes",
    "drawn_loss",
    "entropy",
    "logits_of",
    "perplexity_of",
    "symmetric_divergence",
]
