"""How a micro-batch becomes gradients, one procedure a file; and what acts on a whole step, as pure functions."""

from trimtab.objective.procedures.divergence import Answers, symmetric_divergence
from trimtab.objective.procedures.factory import answers_of, build_procedure
from trimtab.objective.procedures.free_lb import FreeLB
from trimtab.objective.procedures.gradient_cache import cached_gradients, joined
from trimtab.objective.procedures.perturbation import Perturbation
from trimtab.objective.procedures.pgd import ProjectedGradient
from trimtab.objective.procedures.plain import Plain
from trimtab.objective.procedures.r_drop import RDrop
from trimtab.objective.procedures.sharpness import ascent

__all__ = [
    "Answers",
    "FreeLB",
    "Perturbation",
    "Plain",
    "ProjectedGradient",
    "RDrop",
    "answers_of",
    "ascent",
    "build_procedure",
    "cached_gradients",
    "joined",
    "symmetric_divergence",
]
