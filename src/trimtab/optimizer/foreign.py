"""Any optimizer of torch.optim's shape, behind our contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, final

import torch
from torch import Tensor

from trimtab.errors import CheckpointError, ConfigError
from trimtab.optimizer.contract import Rehearsal
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
        self.groups, self._make = tuple(groups), make
        differ = len({group.weight_decay for group in groups}) > 1
        self._sets_decay = [bool(group.weight_decay) or differ for group in groups]
        try:
            self.optimizer = make(self._torch_groups())
        except Exception as error:  # whatever a constructor from elsewhere raises
            raise ConfigError(
                f"optimizer: it cannot be built: {error}", hint="optimizer.arguments go to the target as they stand"
            ) from error
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise ConfigError("optimizer.target: LBFGS calls the model itself, which the step does not allow")
        self._names = {id(p): name for group in groups for name, p in group.parameters.items()}
        self._is_known_to_save = False
        self._require_saveable("as it is built")

    def _torch_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(group.parameters.values())} | ({"weight_decay": group.weight_decay} if sets else {})
            for group, sets in zip(self.groups, self._sets_decay, strict=True)
        ]

    @torch.no_grad()
    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """One `optimizer.step()`, with the scale applied to the gradients and the settings to the groups.

        Raises: ConfigError after the first one when the optimizer keeps what no checkpoint can hold.
        """
        if float(gradients.skip):
            return
        torch._foreach_mul_(list(gradients.by_name.values()), gradients.scale)
        self._set(self.optimizer, settings)
        self.optimizer.step()
        if not self._is_known_to_save:
            self._require_saveable("after its first update")
            self._is_known_to_save = True

    def _set(self, optimizer: torch.optim.Optimizer, settings: Mapping[str, Tensor]) -> None:
        for group, torch_group, sets in zip(self.groups, optimizer.param_groups, self._sets_decay, strict=True):
            torch_group["lr"] = group.rate * float(settings[group.rate_setting])
            if sets:  # else the optimizer's own default stays
                torch_group["weight_decay"] = group.weight_decay * float(settings["weight_decay"])

    @contextmanager
    def rehearsal(self) -> Iterator[Rehearsal]:
        """Another optimizer of the same make runs its first updates on the weights, which are put back; a copy of them
        is held on the host. Nothing is rehearsed where the state is there already.
        """
        if self.optimizer.state:
            yield lambda gradients, settings: None
            return
        other = self._make(self._torch_groups())
        kept = {name: weight.to("cpu", copy=True) for name, weight in self.storage.weights.items()}

        @torch.no_grad()
        def rehearse(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
            self._set(other, settings)
            try:
                other.step()
            finally:
                for name, weight in self.storage.weights.items():
                    weight.copy_(kept[name])

        yield rehearse

    def _require_saveable(self, when: str) -> None:
        """Refuse at once what the first save would, hours later. Raises: ConfigError."""
        try:
            self.state_by_name()
        except CheckpointError as error:
            raise ConfigError(
                f"optimizer: {type(self.optimizer).__qualname__} cannot be resumed: {error.message} ({when})",
                hint="an optimizer from outside may keep tensors and numbers, for each parameter or in its groups",
            ) from error

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """Each parameter's slots, and under `group-<n>` what the optimizer counts in its groups, as Prodigy does.

        Numbers become 0-dim tensors of fp64, or of int64 where they are whole. Raises: CheckpointError for a value that
        is neither.
        """
        state: dict[str, dict[str, Tensor]] = {}
        for parameter, slots in self.optimizer.state.items():
            name = self._names.get(id(parameter))
            if name is None:
                raise CheckpointError("the optimizer keeps state that belongs to no parameter, which cannot be saved")
            state[name] = {slot: _tensor(value, f"{name}/{slot}") for slot, value in slots.items() if value is not None}
        for index, group in enumerate(self.optimizer.param_groups):
            numbers = {key: value for key, value in group.items() if _counts(key, value)}
            if numbers:
                state[f"group-{index}"] = {key: _tensor(value, key) for key, value in numbers.items()}
        return state

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put `state` where the optimizer expects it, on its parameters' devices, by torch's own rules.

        Raises: CheckpointError for a parameter that is not there.
        """
        groups = self.optimizer.param_groups
        for index, group in enumerate(groups):
            for key, value in state.get(f"group-{index}", {}).items():
                group[key] = value.clone() if isinstance(group.get(key), Tensor) else type(group[key])(value.item())
        slots_of = {name: slots for name, slots in state.items() if not name.startswith("group-")}
        if unknown := set(slots_of) - set(self._names.values()):
            raise CheckpointError(f"the optimizer's state names parameters that the model lacks: {sorted(unknown)}")
        order = [self._names[id(parameter)] for group in groups for parameter in group["params"]]
        torch_state = self.optimizer.state_dict()
        torch_state["state"] = {
            index: {slot: _value(tensor) for slot, tensor in slots_of[name].items()}
            for index, name in enumerate(order)
            if name in slots_of
        }
        self.optimizer.load_state_dict(torch_state)

    averages = False
    curvature = None

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds the weights to be judged: here those it trains."""
        return nullcontext()


def _counts(key: str, value: Any) -> bool:
    """Whether a group's entry is something that the optimizer may change by itself."""
    return key not in ("params", "lr", "weight_decay") and isinstance(value, Tensor | int | float)


def _tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.tensor(value, dtype=torch.int64)
    if isinstance(value, bool | float):
        return torch.tensor(float(value), dtype=torch.float64)
    raise CheckpointError(f"the optimizer keeps a {type(value).__name__} in {where}, which cannot be saved")


def _value(tensor: Tensor) -> Tensor | float:
    """A number again, or a tensor of its own."""
    is_number = tensor.ndim == 0 and tensor.dtype in (torch.float64, torch.int64)
    return tensor.item() if is_number else tensor.clone()
