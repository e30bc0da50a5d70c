"""How gradients become updates: storage of parameters, their groups, transforms of gradients, optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trimtab.config import GradientsConfig, OptimizerConfig
from trimtab.config.registry import load_target
from trimtab.errors import ConfigError
from trimtab.optimizer.algorithms.adamw import AdamW
from trimtab.optimizer.foreign import ForeignOptimizer
from trimtab.optimizer.parameter_groups import ParameterGroup, kinds, parameter_groups
from trimtab.optimizer.storage import FlatStorage, PerTensorStorage, Storage
from trimtab.optimizer.transforms import ClipByNorm, SkipNonFinite
from trimtab.signals import Gradients, GradientTransform

__all__ = [
    "AdamW",
    "ClipByNorm",
    "FlatStorage",
    "ForeignOptimizer",
    "Optimizer",
    "ParameterGroup",
    "PerTensorStorage",
    "SkipNonFinite",
    "Storage",
    "build_groups",
    "build_optimizer",
    "build_transforms",
    "kinds",
    "parameter_groups",
]


class Optimizer(Protocol):
    """Owns the storage of a model's parameters, and updates it."""

    @property
    def storage(self) -> Storage:
        """Weights and gradients by name."""
        ...

    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """One update; with `gradients.skip` at 1 nothing changes."""
        ...

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """Parameter name to slot to tensor: all that resuming needs besides the weights."""
        ...

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Become what `state` says."""
        ...

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds the weights to be judged."""
        ...


def build_groups(config: OptimizerConfig, model: nn.Module) -> list[ParameterGroup]:
    """The trainable parameters of `model`, grouped as `config` says."""
    return parameter_groups(
        model,
        config.weight_decay,
        biases=config.decay.biases,
        norms=config.decay.norms,
        embeddings=config.decay.embeddings,
    )


def build_optimizer(config: OptimizerConfig, model: nn.Module, compute_dtype: torch.dtype = torch.float32) -> Optimizer:
    """The optimizer that `config` describes, over the trainable parameters of `model`.

    `compute_dtype` is what ours lets the model compute in; a custom one leaves the parameters in fp32.
    """
    groups = build_groups(config, model)
    if config.name == "adamw":
        return AdamW(
            groups,
            beta1=config.beta1,
            beta2=config.beta2,
            epsilon=config.epsilon,
            compute_dtype=compute_dtype,
        )
    target: Any = load_target(config.target, "optimizer.target")
    if not (isinstance(target, type) and issubclass(target, torch.optim.Optimizer)):
        raise ConfigError(f"optimizer.target: must be a subclass of torch.optim.Optimizer. Received: {config.target!r}")
    make: Any = target  # a subclass takes what its own constructor takes
    return ForeignOptimizer(
        groups, lambda torch_groups: make(torch_groups, lr=config.learning_rate, **dict(config.arguments))
    )


def build_transforms(config: GradientsConfig) -> list[GradientTransform]:
    """The gradient transforms that `config` asks for, in the order in which they act."""
    transforms: list[GradientTransform] = []
    if config.clip.name == "norm":
        transforms.append(ClipByNorm())
    if config.skip_non_finite:
        transforms.append(SkipNonFinite())
    return transforms
