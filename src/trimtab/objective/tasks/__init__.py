"""One file per task: its inputs, its score, its leading curves."""

from trimtab.objective.tasks.causal_lm import CausalLanguageModelingTask
from trimtab.objective.tasks.classification import ClassificationTask, MultiLabelTask
from trimtab.objective.tasks.contrastive import ContrastiveTask
from trimtab.objective.tasks.masked_lm import MaskedLanguageModelingTask
from trimtab.objective.tasks.regression import RegressionTask
from trimtab.objective.tasks.seq2seq import SequenceToSequenceTask

__all__ = [
    "CausalLanguageModelingTask",
    "ClassificationTask",
    "ContrastiveTask",
    "MaskedLanguageModelingTask",
    "MultiLabelTask",
    "RegressionTask",
    "SequenceToSequenceTask",
]
