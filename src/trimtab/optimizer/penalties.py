"""Penalties on the weights themselves: once an update, whatever the number of micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from typing import Literal, final

import torch
from torch import Tensor, nn

from trimtab.config import PenaltiesConfig
from trimtab.errors import ConfigError
from trimtab.optimizer.contract import Optimizer, Rehearsal
from trimtab.optimizer.curvature import Curvature
from trimtab.optimizer.parameter_groups import ParameterGroup, kinds
from trimtab.optimizer.storage import Storage
from trimtab.signals import Gradients, GradientTransform, InlineProbe, StepSignals


def penalized(model: nn.Module, chosen: Literal["matrices", "all"] | Sequence[str], setting: str) -> list[str]:
    """The trainable parameters that `chosen` means.

    Raises: ConfigError for a pattern that fits none, which `setting` is the name of, and where nothing is left.
    """
    kind_of = kinds(model)
    if isinstance(chosen, str):
        names = [name for name, kind in kind_of.items() if chosen == "all" or kind == "weight"]
    else:
        for pattern in chosen:
            if not any(fnmatchcase(name, pattern) for name in kind_of):
                raise ConfigError(
                    f"{setting}: no trainable parameter has such a name. Received: {pattern!r}",
                    hint=f"the model's begin with {', '.join(list(kind_of)[:3])}",
                )
        names = [name for name in kind_of if any(fnmatchcase(name, pattern) for pattern in chosen)]
    if not names:
        raise ConfigError(f"{setting}: there is nothing to penalize. Received: {chosen!r}", hint=f"{setting}=all")
    return names


@final
class L2Penalty:
    """Adds lambda * w to the gradient, before all that clips or measures it: the gradient of lambda / 2 * sum w².

    With gradients of 16 bits the sum is rounded to them. Source: Hoerl and Kennard 1970 (ridge); Krogh and Hertz 1991,
    equation 2, whose factor of a half is here, too.
    """

    name = "l2_penalty"

    def __init__(self, strength: float, names: Sequence[str]) -> None:
        self._strength, self._names = strength, tuple(names)

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Change the gradients, and their norms."""
        strength = self._strength / gradients.scale
        for name in self._names:
            gradient = gradients.by_name[name]
            gradient.add_((gradients.weights[name] * strength).to(gradient.dtype))
        norms = torch._foreach_norm(list(gradients.by_name.values()), 2.0, torch.float32)
        gradients.norms_P = torch.stack(norms) * gradients.scale
        gradients.total_norm = torch.linalg.vector_norm(gradients.norms_P)

    def state_by_name(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""


@final
class L1Shrinkage:
    """w <- sign(w) max(|w| - a * lambda, 0) after the update of `inner`, with the learning rate a: weights become
    exactly 0, which a subgradient in the loss does not bring about.

    The step is the learning rate alone, apart from what an adaptive optimizer makes of the gradient, as AdamW's decay
    is. A skipped update changes nothing. Source: Parikh and Boyd 2014, section 6.5.2 (proximal operator of the 1-norm);
    Daubechies et al. 2004 (iterated shrinkage).
    """

    def __init__(self, inner: Optimizer, strength: float, names: Sequence[str]) -> None:
        """Raises: ConfigError for an optimizer that trains other weights than it is judged by."""
        if inner.averages:
            raise ConfigError(
                "penalties.l1: this optimizer's weights are averages of others, in which nothing stays 0",
                hint="take another optimizer.name, such as adamw",
            )
        self._inner = inner
        wanted = set(names)
        self._shrunk = [(group, [name for name in group.parameters if name in wanted]) for group in inner.groups]
        self._strength = strength

    @property
    def storage(self) -> Storage:
        """The inner one's."""
        return self._inner.storage

    @property
    def groups(self) -> Sequence[ParameterGroup]:
        """The inner one's."""
        return self._inner.groups

    @torch.no_grad()
    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """The inner update, and the shrinkage; with `gradients.skip` at 1 nothing changes."""
        self._inner.update(gradients, settings)
        applies = 1.0 - gradients.skip
        for group, names in self._shrunk:
            threshold = settings[group.rate_setting] * (group.rate * self._strength) * applies
            for name in names:
                weight = self.storage.weights[name]
                weight.sub_(weight.clamp(-threshold, threshold))
        self.storage.refresh()

    def rehearsal(self) -> AbstractContextManager[Rehearsal]:
        """The inner one's: what shrinks is as large as one parameter at a time."""
        return self._inner.rehearsal()

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """The inner one's."""
        return self._inner.state_by_name()

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inner one's."""
        self._inner.load_state_by_name(state)

    @property
    def curvature(self) -> Curvature | None:
        """As the inner one."""
        return self._inner.curvature

    averages = False

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """As the inner one."""
        return self._inner.evaluation_weights()


@final
class PenaltySizes:
    """What the penalties add to the loss, and which part of the weights that l1 shrinks is exactly 0."""

    only_at_window_end = True

    def __init__(self, l1: tuple[float, Sequence[str]] | None, l2: tuple[float, Sequence[str]] | None) -> None:
        """Strength and names of each that there is."""
        self._l1, self._l2 = l1, l2
        of_l1 = ("penalty/l1", "penalty/zero_fraction") if l1 else ()
        self.columns = (*of_l1, *(("penalty/l2",) if l2 else ()))

    def read(self, signals: StepSignals) -> Tensor:
        """In the order of `columns`."""
        values: list[Tensor] = []
        if self._l1 is not None:
            strength, names = self._l1
            weights = [signals.weights[name] for name in names]
            zeros = torch.stack([(weight == 0).sum(dtype=torch.float32) for weight in weights]).sum()
            values += [
                strength * torch.stack(torch._foreach_norm(weights, 1.0)).sum(),
                zeros / sum(weight.numel() for weight in weights),
            ]
        if self._l2 is not None:
            strength, names = self._l2
            norms = torch._foreach_norm([signals.weights[name] for name in names])
            values.append(strength / 2.0 * torch.stack(norms).square().sum())
        return torch.stack(values)


def build_penalties(
    config: PenaltiesConfig, model: nn.Module
) -> tuple[list[GradientTransform], Callable[[Optimizer], Optimizer], list[InlineProbe]]:
    """What acts on gradients first, what goes around an optimizer, and what tells how large the penalties are.

    Raises: ConfigError for a pattern of names that fits nothing.
    """
    l1, l2 = (
        (one.strength, penalized(model, one.parameters, f"penalties.{name}.parameters")) if one.strength else None
        for name, one in (("l1", config.l1), ("l2", config.l2))
    )
    transforms: list[GradientTransform] = [] if l2 is None else [L2Penalty(*l2)]
    probes: list[InlineProbe] = [PenaltySizes(l1, l2)] if l1 or l2 else []
    return transforms, (lambda inner: inner) if l1 is None else lambda inner: L1Shrinkage(inner, *l1), probes
