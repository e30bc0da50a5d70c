"""A model's state as named tensors: parameters, persistent buffers, and what modules keep besides.

A module that overrides `get_extra_state` may give a tensor, which is kept under `<module>._extra_state`, or JSON
values, kept as the bytes of their text under `<module>._extra_state.json`. Anything else could be saved only as a
pickle, and none is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.errors import CheckpointError, ConfigError
from trimtab.model import HuggingFaceModel
from trimtab.training.checkpoint.dtypes import require_known

_EXTRA: Final = "_extra_state"


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All by name; a tied parameter appears once, under its first name.

    Raises: CheckpointError for what is neither a tensor nor JSON.
    """
    return _weights(model) | _extra_tensors(model)


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], masters: Mapping[str, Tensor] | None = None) -> None:
    """Copy `model/<name>` into `model`, or into its `masters` where it computes on a narrower copy of them.

    Raises: CheckpointError unless names and shapes are the same.
    """
    ours = _weights(model) | dict(masters or {})
    given = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    extras = {name: given.pop(name) for name in list(given) if _is_extra(name)}
    modules = {name.removesuffix(".json"): name for name in extras}
    keepers = modules_with_extra_state(model)
    missing = sorted((ours.keys() - given.keys()) | (keepers.keys() - modules.keys()))
    unknown = sorted((given.keys() - ours.keys()) | (modules.keys() - keepers.keys()))
    different = [
        f"{name}: {list(given[name].shape)} in the checkpoint, {list(ours[name].shape)} in the model"
        for name in ours
        if name in given and ours[name].shape != given[name].shape
    ]
    if missing or unknown or different:
        raise CheckpointError(
            "the checkpoint holds another model. "
            f"Missing: {missing or 'nothing'}; unknown: {unknown or 'nothing'}; other shapes: {different or 'none'}"
        )
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(given[name])
    for name, module in keepers.items():
        kept = extras[modules[name]]
        if modules[name].endswith(".json"):
            module.set_extra_state(json.loads(kept.numpy().tobytes()))
        else:
            present = module.get_extra_state()
            module.set_extra_state(kept.to(present.device if isinstance(present, Tensor) else kept.device, copy=True))


def require_saveable(model: nn.Module) -> None:
    """Refuse a model whose state no checkpoint can hold, before anything is trained. Raises: ConfigError."""
    hint = "a module may keep parameters, buffers, and as extra state a tensor or JSON values"
    try:
        require_known(model_tensors(model))
    except CheckpointError as error:
        raise ConfigError(f"model: {error.message}", hint=hint) from error
    for name, module in modules_with_extra_state(model).items():
        if type(module).set_extra_state is nn.Module.set_extra_state:
            raise ConfigError(
                f"model: {type(module).__qualname__} gives its {name}, but has no set_extra_state to take it back",
                hint=hint,
            )


def modules_with_extra_state(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that keep more than parameters and buffers, by the name of that."""
    return {
        f"{name}.{_EXTRA}" if name else _EXTRA: module
        for name, module in model.named_modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }


def _weights(model: nn.Module) -> dict[str, Tensor]:
    left_out = model.left_out if isinstance(model, HuggingFaceModel) else frozenset()
    tensors: dict[str, Tensor] = {name: p.detach() for name, p in model.named_parameters() if name not in left_out}
    every_parameter = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in model.state_dict().items():
        if name in every_parameter or _is_extra(name):
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name} of its state is a {type(value).__name__}, which cannot be saved")
        tensors[name] = value.detach()
    return tensors


def _extra_tensors(model: nn.Module) -> dict[str, Tensor]:
    tensors = {}
    for name, module in modules_with_extra_state(model).items():
        value = module.get_extra_state()
        if isinstance(value, Tensor):
            tensors[name] = value.detach()
        elif _is_json(value):
            tensors[f"{name}.json"] = torch.from_numpy(np.frombuffer(json.dumps(value).encode(), np.uint8).copy())
        else:
            raise CheckpointError(f"{name} is a {type(value).__name__}, or holds what JSON cannot, and cannot be saved")
    return tensors


def _is_extra(name: str) -> bool:
    return name.removesuffix(".json").rpartition(".")[2] == _EXTRA


def _is_json(value: Any) -> bool:
    """Whether JSON gives it back as it is: no tuples, no keys but texts."""
    if type(value) is list:
        return all(map(_is_json, value))
    if type(value) is dict:
        return all(type(key) is str and _is_json(part) for key, part in value.items())
    return value is None or type(value) in (bool, int, float, str)
