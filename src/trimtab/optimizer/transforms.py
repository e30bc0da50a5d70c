"""What is done to gradients before the update, on the device; what remembers norms is in running_norms.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from trimtab.optimizer.parameter_groups import last_fitting
from trimtab.signals import Gradients


@final
class ClipByGroup:
    """g * c / ||g|| when ||g|| > c, for each group of parameters by its own norm and threshold.

    `groups` are patterns of names with their thresholds; the last that fits acts, and what none fits is a group with
    `threshold`. The setting `clip_threshold` over `threshold` is a factor on all. Another optimizer may take over that
    has the parameters in another order. Source: as clip_by_norm.
    """

    name = "clip_by_group"

    def __init__(
        self, names: Sequence[str], threshold: float, groups: Mapping[str, float], device: torch.device | None = None
    ) -> None:
        """`names` are those of the gradients, in their order. Raises: ConfigError for a pattern without effect."""
        group_of = last_fitting(names, groups, "gradients.clip.groups")
        patterns = list(groups)
        self._group_of = {name: patterns.index(group_of[name]) if name in group_of else len(groups) for name in names}
        self._relative_G = torch.tensor([*groups.values(), threshold], device=device) / threshold
        self._names: tuple[str, ...] = ()
        self._order(tuple(names))

    def _order(self, names: tuple[str, ...]) -> None:
        self._names, self._group_P = names, [self._group_of[name] for name in names]
        member_GP = torch.zeros(len(self._relative_G), len(names), dtype=torch.bool)
        member_GP[self._group_P, range(len(names))] = True
        self._member_GP = member_GP.to(self._relative_G.device)

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Change the gradients."""
        if (names := tuple(gradients.by_name)) != self._names:
            self._order(names)
        norms_G = torch.where(self._member_GP, gradients.norms_P, 0.0).square().sum(-1).sqrt()
        factors = (settings["clip_threshold"] * self._relative_G / norms_G).clamp(max=1.0).unbind()
        for gradient, group in zip(gradients.by_name.values(), self._group_P, strict=True):
            gradient.mul_(factors[group])
        gradients.clipped_P = gradients.norms_P * torch.stack([factors[group] for group in self._group_P])

    def state_by_name(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""


@final
class Stateless:
    """A transform that remembers nothing: a name and what it does."""

    def __init__(self, name: str, function: Callable[[Gradients, Mapping[str, Tensor]], None]) -> None:
        self.name, self._function = name, function

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Change the gradients."""
        self._function(gradients, settings)

    def state_by_name(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""


def clip_by_norm() -> Stateless:
    """g * c / ||g|| when ||g|| > c, over the whole gradient; c is the setting `clip_threshold`.

    Source: Pascanu et al. 2013, arXiv 1211.5063, algorithm 1. No epsilon: a zero gradient is below any c.
    """

    def apply(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        gradients.scale = gradients.scale * (settings["clip_threshold"] / gradients.total_norm).clamp(max=1.0)

    return Stateless("clip_by_norm", apply)


def skip_non_finite() -> Stateless:
    """Skip the update when the loss or any gradient is not finite. Source: own."""

    def apply(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        bad = ~(torch.isfinite(gradients.total_norm) & torch.isfinite(settings["loss"]))
        gradients.skip = torch.maximum(gradients.skip, bad.to(gradients.skip.dtype))

    return Stateless("skip_non_finite", apply)


def centralize() -> Stateless:
    """Each row of a matrix's gradient less its mean: plain descent then moves no row along the vector of ones.

    An optimizer that divides each value by a size of its own, as Adam does, still may. The norms are those of what is
    left. Source: Yong et al. 2020, arXiv 2004.01461, equation 1.
    """

    def apply(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        for gradient in gradients.by_name.values():
            if gradient.ndim > 1:
                gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True))
        gradients.norms_P = _norms(gradients)
        gradients.total_norm = torch.linalg.vector_norm(gradients.norms_P)

    return Stateless("centralize", apply)


def clip_by_value() -> Stateless:
    """Every value into [-c, c]; c is the setting `clip_threshold`."""

    def apply(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        limit = settings["clip_threshold"] / gradients.scale
        for gradient in gradients.by_name.values():
            gradient.clamp_(-limit, limit)
        gradients.clipped_P = _norms(gradients)

    return Stateless("clip_by_value", apply)


def clip_by_parameter() -> Stateless:
    """g * c / ||g|| when ||g|| > c, for each parameter by itself; c is the setting `clip_threshold`."""

    def apply(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        factors_P = (settings["clip_threshold"] / gradients.norms_P).clamp(max=1.0)
        for gradient, factor in zip(gradients.by_name.values(), factors_P.unbind(), strict=True):
            gradient.mul_(factor)
        gradients.clipped_P = gradients.norms_P * factors_P

    return Stateless("clip_by_parameter", apply)


def clip_by_unit(epsilon: float = 1e-3) -> Stateless:
    """g_i * c * ||w_i|| / ||g_i|| when ||g_i|| > c * ||w_i||, for each row i of a matrix, and for a vector as a whole.

    c is the setting `clip_threshold`, and ||w_i|| is at least `epsilon`. The paper leaves the last linear layer out;
    here every parameter is clipped.
    Source: Brock et al. 2021, arXiv 2102.06171, equation 3 (adaptive gradient clipping).
    """

    def apply(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.by_name.items():
            size = _unit_norms(gradients.weights[name]).clamp_min(epsilon)
            length = _unit_norms(gradient.float()) * gradients.scale
            # A row without a gradient gives infinity, which is no reason to clip.
            gradient.mul_((settings["clip_threshold"] * size / length).clamp(max=1.0))
        gradients.clipped_P = _norms(gradients)

    return Stateless("clip_by_unit", apply)


def _norms(gradients: Gradients) -> Tensor:
    return torch.stack(torch._foreach_norm(list(gradients.by_name.values()), 2.0, torch.float32)) * gradients.scale


def _unit_norms(tensor: Tensor) -> Tensor:
    """The norm of each row, in a shape that multiplies `tensor`; of a vector, its own."""
    dims = tuple(range(1, tensor.ndim)) if tensor.ndim > 1 else None
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
    return norms


@final
class Noise:
    """Gaussian noise of variance eta / (1 + t)^gamma on what the optimizer sees; t counts attempted updates from 0.

    In a gradient of bf16 (weights in bf16, one micro-batch) the sum is rounded to bf16: noise far below 1/256 of a
    value is lost. Its numbers come from the device's generator, which the step sets by seed and step before.
    Source: Neelakantan et al. 2015, arXiv 1511.06807, equations 1 and 2; added after clipping, as there.
    """

    name = "noise"

    def __init__(self, scale: float, power: float, device: torch.device | None = None) -> None:
        self.scale, self.power = scale, power
        self._steps = torch.zeros((), dtype=torch.float32, device=device)

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Add the noise."""
        deviation = (self.scale * torch.pow(1.0 + self._steps, -self.power)).sqrt() / gradients.scale
        for gradient in gradients.by_name.values():
            gradient.add_(torch.randn_like(gradient) * deviation)
        self._steps.add_(1.0)

    def state_by_name(self) -> dict[str, Tensor]:
        """How often it was applied."""
        return {"steps": self._steps}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._steps.copy_(state["steps"])
