"""What passes between data, model, objective and step: batches, terms, transforms, probes, randomness, the ring."""

from trimtab.signals.batch import IGNORED, Batch
from trimtab.signals.examination import Examination, Examined, FollowingExamination, Readings, of_layers
from trimtab.signals.probe import InlineProbe, PartsProbe, StepSignals
from trimtab.signals.randomness import key, seeded, set_randomness
from trimtab.signals.ring import PendingRows, Ring
from trimtab.signals.targets import Outputs, SpecialTokens, TargetFacts, outputs_of
from trimtab.signals.task import LossTerms, ModelOutput, Task, Term, Unit
from trimtab.signals.telling import most_telling
from trimtab.signals.transform import Gradients, GradientTransform

__all__ = [
    "IGNORED",
    "Batch",
    "Examination",
    "Examined",
    "FollowingExamination",
    "GradientTransform",
    "Gradients",
    "InlineProbe",
    "LossTerms",
    "ModelOutput",
    "Outputs",
    "PartsProbe",
    "PendingRows",
    "Readings",
    "Ring",
    "SpecialTokens",
    "StepSignals",
    "TargetFacts",
    "Task",
    "Term",
    "Unit",
    "key",
    "most_telling",
    "of_layers",
    "outputs_of",
    "seeded",
    "set_randomness",
]
