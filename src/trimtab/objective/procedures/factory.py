"""From a configuration to a procedure."""

from __future__ import annotations

from trimtab.config import (
    BinaryCrossEntropyConfig,
    CrossEntropyConfig,
    FgmConfig,
    FocalConfig,
    FreeLBConfig,
    ObjectiveConfig,
    PgdConfig,
    ProcedureConfig,
    RDropConfig,
)
from trimtab.objective.procedures.divergence import Answers
from trimtab.objective.procedures.free_lb import FreeLB
from trimtab.objective.procedures.pgd import ProjectedGradient
from trimtab.objective.procedures.plain import Plain
from trimtab.objective.procedures.r_drop import RDrop
from trimtab.signals import Procedure


def build_procedure(config: ProcedureConfig, objective: ObjectiveConfig) -> Procedure:
    """The procedure for each micro-batch that `config` describes; gradient_cache is one of the whole step."""
    match config:
        case RDropConfig():
            return RDrop(config.alpha, answers_of(objective))
        case FgmConfig():
            return ProjectedGradient(config.radius, step=config.radius, steps=1, weight=config.weight)
        case PgdConfig():
            return ProjectedGradient(config.radius, step=config.step_size, steps=config.steps, weight=config.weight)
        case FreeLBConfig():
            return FreeLB(config.radius, step=config.step_size, steps=config.steps, initial=config.initial)
        case _:
            return Plain()


def answers_of(objective: ObjectiveConfig) -> Answers:
    """What an objective judges."""
    if isinstance(objective, CrossEntropyConfig | FocalConfig):
        return "classes"
    return "labels" if isinstance(objective, BinaryCrossEntropyConfig) else "numbers"
