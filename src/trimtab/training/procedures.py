"""From a configuration to how a step's gradients are made, and what that allows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from trimtab.config import AsamConfig, Config, CrossEntropyConfig, NoSharpness
from trimtab.config.beside_procedure import changes_embeddings, procedures_of
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.model import ForeignModel, Network, Transformer
from trimtab.model.embeddings import EmbeddingTransforms, build_embedding_transforms, embedding_of
from trimtab.model.recompute import refuses_capture
from trimtab.objective.procedures import build_procedure
from trimtab.optimizer import ForeignOptimizer, Optimizer
from trimtab.planning import one_shape
from trimtab.signals import Procedure
from trimtab.training.sharpness import Sharpness


@dataclass(frozen=True, slots=True)
class Making:
    """How a step's gradients are made."""

    procedure: Procedure
    sharpness: Sharpness | None
    embeddings: EmbeddingTransforms
    caches: bool
    """Whether the objective is taken over all micro-batches together."""
    compilable: bool


def build_making(config: Config, model: nn.Module) -> Making:
    """What `config` asks for. Raises: ConfigError where the embeddings of `model` are to be changed, and not known."""
    if changes := changes_embeddings(config):
        embedding_of(model, changes)
    chosen = config.sharpness
    return Making(
        build_procedure(config.procedure, config.objective),
        None if isinstance(chosen, NoSharpness) else Sharpness(chosen.radius, adaptive=isinstance(chosen, AsamConfig)),
        build_embedding_transforms(config.embedding),
        config.procedure.name == "gradient_cache" or config.task.name == "contrastive",
        all(spec.compilable for spec in procedures_of(config).values()),
    )


def held_back(config: Config, model: nn.Module, optimizer: Optimizer) -> str | None:
    """The part that does not allow its step to be captured, or None."""
    if isinstance(config.objective, CrossEntropyConfig) and config.objective.distillation is not None:
        return "a teacher is asked in every step"
    if config.task.name == "contrastive":
        return "a loss over the whole batch is computed from micro-batches in several passes"
    if not one_shape(config):
        return "batches are as long as their longest text; task.padding=full gives them one shape"
    if isinstance(model, Network):
        return f"model.name {config.model.name} is run as it is"
    if isinstance(model, ForeignModel):
        if not model.capturable:
            return "a model from outside may keep state in Python; one that does not can say so: capturable = True"
    elif not isinstance(model, Transformer):
        return "a model from outside may keep state in Python"
    elif (why_not := refuses_capture(model)) is not None:
        return why_not
    names = [one.name for one in config.optimizers]
    if isinstance(optimizer, ForeignOptimizer) or "custom" in names:
        return "an optimizer from outside may count its steps in Python"
    for name in names:
        if not OPTIMIZERS[name].capturable:
            return f"{name} {OPTIMIZERS[name].held_back}"
    for key, spec in procedures_of(config).items():
        if not spec.capturable:
            return f"{key} {spec.held_back}"
    return None
