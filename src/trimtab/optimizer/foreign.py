"""Any optimizer of torch.optim's shape, behind our contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor

from trimtab.errors import CheckpointError, ConfigError
from trimtab.optimizer.parameter_groups import ParameterGroup
from trimtab.optimizer.storage import PerTensorStorage
from trimtab.signals import Gradients


@final
class ForeignOptimizer:
    """A torch.optim.Optimizer over per-tensor storage. Never captured; on a GPU each step waits for the skip flag."""

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        self.storage = PerTensorStorage(groups)
        self.groups = tuple(groups)
        torch_groups: list[dict[str, Any]] = []
        for group in groups:
            entry: dict[str, Any] = {"params": list(group.parameters.values())}
            if group.weight_decay or len({g.weight_decay for g in groups}) > 1:
                entry["weight_decay"] = group.weight_decay
            torch_groups.append(entry)
        try:
            self.optimizer = make(torch_groups)
        except TypeError as error:
            raise ConfigError(
                f"optimizer.arguments: {error}", hint="they are passed to the target as they stand"
            ) from error
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise ConfigError("optimizer.target: LBFGS calls the model itself, which the step does not allow")
        self._names = {id(p): name for group in groups for name, p in group.parameters.items()}

    @torch.no_grad()
    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """One `optimizer.step()`, with the scale applied to the gradients and the settings to the groups."""
        if float(gradients.skip):
            return
        torch._foreach_mul_(list(gradients.by_name.values()), gradients.scale)
        for group, torch_group in zip(self.groups, self.optimizer.param_groups, strict=True):
            torch_group["lr"] = float(settings["learning_rate"])
            if "weight_decay" in torch_group:
                torch_group["weight_decay"] = group.weight_decay * float(settings["weight_decay"])
        self.optimizer.step()

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """Each parameter's slots; numbers become 0-dim tensors of fp64."""
        state: dict[str, dict[str, Tensor]] = {}
        for parameter, slots in self.optimizer.state.items():
            state[self._names[id(parameter)]] = {
                slot: value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
                for slot, value in slots.items()
                if value is not None
            }
        return state

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put `state` where the optimizer expects it. Raises: CheckpointError for a parameter that is not there."""
        parameters = {name: p for group in self.groups for name, p in group.parameters.items()}
        if unknown := set(state) - set(parameters):
            raise CheckpointError(f"the optimizer's state names parameters that the model lacks: {sorted(unknown)}")
        self.optimizer.state.clear()
        for name, slots in state.items():
            self.optimizer.state[parameters[name]] = {
                slot: float(value) if value.ndim == 0 and value.dtype == torch.float64 else value.clone()
                for slot, value in slots.items()
            }

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds the weights to be judged: here those it trains."""
        return nullcontext()
