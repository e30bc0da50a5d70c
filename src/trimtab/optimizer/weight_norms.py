"""Weight decay towards a norm: each parameter is pulled to a part of the norm it began with, not to 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from trimtab.optimizer.contract import Optimizer, Rehearsal
from trimtab.optimizer.curvature import Curvature
from trimtab.optimizer.parameter_groups import ParameterGroup
from trimtab.optimizer.storage import Storage
from trimtab.signals import Gradients

_SLOT = "initial_norm"


@final
class WeightNormControl:
    """theta <- theta - a * l * (1 - target * ||theta_0|| / ||theta||) * theta, and then the update of `inner`.

    `inner` is an optimizer without weight decay of its own; `weight_decay` gives each parameter's l. What is below its
    norm grows. Decay as usual is the case of target 0. Nothing waits, and a skipped update changes nothing.
    Source: after Loshchilov 2023, arXiv 2311.11446 (weight norm control); for each parameter by itself, and before the
    update, as AdamW decays here.
    """

    def __init__(self, inner: Optimizer, weight_decay: Mapping[str, float], target: float) -> None:
        self._inner, self._target = inner, target
        self._decays = [
            (group, [name for name in group.parameters if weight_decay[name]], weight_decay) for group in inner.groups
        ]
        weights = inner.storage.weights
        self._initial = {
            name: torch.linalg.vector_norm(weights[name].detach()) for _, names, _ in self._decays for name in names
        }

    @property
    def storage(self) -> Storage:
        """The inner one's."""
        return self._inner.storage

    @property
    def groups(self) -> Sequence[ParameterGroup]:
        """The inner one's, with the weight decay that acts on them."""
        return [
            replace(group, weight_decay=decay_of[next(iter(group.parameters))]) for group, _, decay_of in self._decays
        ]

    @torch.no_grad()
    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Decay, and the inner update; with `gradients.skip` at 1 nothing changes."""
        applies = gradients.skip == 0
        for group, names, decay_of in self._decays:
            if not names:
                continue
            weights = [self.storage.weights[name] for name in names]
            norms_P = torch.stack(torch._foreach_norm(weights)).clamp_min(torch.finfo(torch.float32).tiny)
            pull_P = 1.0 - self._target * torch.stack([self._initial[name] for name in names]) / norms_P
            rate = settings[group.rate_setting] * group.rate * settings["weight_decay"]
            for weight, name, pull in zip(weights, names, pull_P.unbind(), strict=True):
                weight.mul_(torch.where(applies, 1.0 - rate * decay_of[name] * pull, 1.0))
        self._inner.update(gradients, settings)

    def rehearsal(self) -> AbstractContextManager[Rehearsal]:
        """The inner one's: the decay takes no memory of its own."""
        return self._inner.rehearsal()

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """The inner one's, and `initial_norm` of each parameter that is decayed."""
        state = {name: dict(slots) for name, slots in self._inner.state_by_name().items()}
        for name, norm in self._initial.items():
            state.setdefault(name, {})[_SLOT] = norm
        return state

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Become what `state` says. Raises: KeyError for what is missing."""
        for name, norm in self._initial.items():
            norm.copy_(state[name][_SLOT])
        inner = {name: {slot: t for slot, t in slots.items() if slot != _SLOT} for name, slots in state.items()}
        self._inner.load_state_by_name({name: slots for name, slots in inner.items() if slots})

    @property
    def curvature(self) -> Curvature | None:
        """As the inner one."""
        return self._inner.curvature

    @property
    def averages(self) -> bool:
        """As the inner one."""
        return self._inner.averages

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """As the inner one."""
        return self._inner.evaluation_weights()
