"""What passes between data, model, objective and step: batches, terms, transforms, probes, randomness, the ring."""

from trimtab.signals.batch import IGNORED, Batch
from trimtab.signals.examination import Examination, Examined, FollowingExamination, Readings, of_layers
from trimtab.signals.probe import InlineProbe, PartsProbe, RememberingProbe, StepSignals
from trimtab.signals.procedure import Change, Pass, Passes, Procedure
from trimtab.signals.randomness import key, seeded, set_randomness
from trimtab.signals.ring import PendingRows, Ring
from trimtab.signals.targets import Outputs, SpecialTokens, TargetFacts, Vectors, outputs_of
from trimtab.signals.task import LossTerms, ModelOutput, Task, Term, Unit
from trimtab.signals.telling import most_telling
from trimtab.signals.transform import Gradients, GradientTransform

__all__ = [
    "IGNORED",
    "Batch",
    "Change",
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
    "Pass",
    "Passes",
    "PendingRows",
    "Procedure",
    "Readings",
    "RememberingProbe",
    "Ring",
    "SpecialTokens",
    "StepSignals",
    "TargetFacts",
    "Task",
    "Term",
    "Unit",
    "Vectors",
    "key",
    "most_telling",
    "of_layers",
    "outputs_of",
    "seeded",
    "set_randomness",
]
