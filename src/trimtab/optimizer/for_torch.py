"""Our groups, schedule and gradient transforms for a training loop of one's own over a `torch.optim` optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from trimtab.optimizer.parameter_groups import Factors, num_layers, parameter_groups
from trimtab.optimizer.transforms import centralize, clip_by_unit
from trimtab.schedules import Cosine
from trimtab.signals import Gradients


def get_parameter_groups(
    model: nn.Module, weight_decay: float = 0.1, *, learning_rate: float | None = None, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters in torch's form: biases, norms and vectors without weight decay.

    With a `learning_rate` each group has its `lr`, times `layer_decay` for each layer further down; without one the
    optimizer's own acts. Raises: ValueError for a `layer_decay` without a `learning_rate`, or for a model without an
    `nn.ModuleList` of layers.
    """
    if learning_rate is None and layer_decay != 1.0:
        raise ValueError(f"layer_decay is a factor on learning_rate, which is None. Received: {layer_decay}")
    if layer_decay != 1.0 and num_layers(model) == 0:
        raise ValueError(f"layer_decay needs a model with an nn.ModuleList of layers. Received: {layer_decay}")
    groups = parameter_groups(model, weight_decay, rates=Factors(layers=layer_decay))
    return [
        {
            "name": group.name,
            "params": list(group.parameters.values()),
            "weight_decay": group.weight_decay,
            **({} if learning_rate is None else {"lr": learning_rate * group.rate}),
        }
        for group in groups
    ]


@final
class CosineAnnealingWarmupScheduler(LRScheduler):
    """Linear warm-up to each group's own rate, then half a cosine to `min_lr` at the last of `total_steps`.

    Call `step()` after each update. The first step has a rate above 0, and a group whose rate is below `min_lr` keeps
    its own. Raises: ValueError for lengths that do not fit. Source: as `Cosine`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, warmup_steps: int, total_steps: int, min_lr: float = 0.0
    ) -> None:
        if not 0 <= warmup_steps < total_steps or min_lr < 0.0:
            raise ValueError(
                "warmup_steps must be at least 0 and less than total_steps, and min_lr at least 0. "
                f"Received: {warmup_steps}, {total_steps}, {min_lr}"
            )
        self.warmup_steps, self.total_steps, self.min_lr = warmup_steps, total_steps, min_lr
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group in the next update."""
        rates: list[float | Tensor] = []
        for base in map(float, self.base_lrs):
            floor = min(1.0, self.min_lr / base) if base else 1.0
            rates.append(base * Cosine(self.total_steps, self.warmup_steps, floor).factor(self.last_epoch))
        return rates


def gradient_centralization(parameters: nn.Module | Iterable[Tensor]) -> None:
    """Take from each row of a matrix's `.grad` its mean, in place: after backward, before clipping and the update.

    Source: as `centralize`.
    """
    if given := _with_gradients(parameters):
        centralize().apply(_gradients(given), {})


def adaptive_gradient_clipping(
    parameters: nn.Module | Iterable[Tensor], threshold: float = 0.01, epsilon: float = 1e-3
) -> None:
    """Scale each row of a `.grad` down to `threshold` times the norm of its weights, in place.

    Raises: ValueError for a threshold that is not positive. Source: as `clip_by_unit`.
    """
    if not 0.0 < threshold < math.inf:
        raise ValueError(f"threshold must be positive. Received: {threshold}")
    if given := _with_gradients(parameters):
        setting = torch.tensor(threshold, device=given[0].device)
        with torch.no_grad():
            clip_by_unit(epsilon).apply(_gradients(given), {"clip_threshold": setting})


def _with_gradients(parameters: nn.Module | Iterable[Tensor]) -> list[Tensor]:
    several = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    return [parameter for parameter in several if parameter.grad is not None]


@torch.no_grad()
def _gradients(parameters: list[Tensor]) -> Gradients:
    """The `.grad` of `parameters`, which a transform changes in place."""
    by_name = {str(index): p.grad for index, p in enumerate(parameters) if p.grad is not None}
    norms_P = torch.stack(torch._foreach_norm(list(by_name.values())))
    one = torch.ones((), device=norms_P.device)
    weights = {str(index): parameter.detach() for index, parameter in enumerate(parameters)}
    return Gradients(by_name, norms_P, torch.linalg.vector_norm(norms_P), one, torch.zeros_like(one), weights)
