"""Which parameters share their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

Kind = Literal["weight", "bias", "norm", "embedding"]


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters with the same weight decay."""

    name: str
    weight_decay: float
    parameters: Mapping[str, nn.Parameter]


def kinds(model: nn.Module) -> dict[str, Kind]:
    """The kind of each trainable parameter, by name; a tied parameter appears once, under its first name."""
    kind_of: dict[str, Kind] = {}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{name}" if module_name else name
            if full_name not in trainable:
                continue
            if isinstance(module, nn.Embedding):
                kind_of[full_name] = "embedding"
            elif "norm" in type(module).__name__.lower():
                kind_of[full_name] = "norm"
            elif name.endswith("bias") or parameter.ndim < 2:
                kind_of[full_name] = "bias"
            else:
                kind_of[full_name] = "weight"
    return kind_of


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    biases: bool = False,
    norms: bool = False,
    embeddings: bool = True,
) -> list[ParameterGroup]:
    """The trainable parameters in up to two groups: with weight decay, and without. Vectors count as biases."""
    decays: dict[Kind, bool] = {"weight": True, "bias": biases, "norm": norms, "embedding": embeddings}
    kind_of = kinds(model)
    groups = []
    for name, decay in (("decay", True), ("no_decay", False)):
        members = {
            parameter_name: parameter
            for parameter_name, parameter in model.named_parameters()
            if parameter_name in kind_of and decays[kind_of[parameter_name]] == decay
        }
        if members:
            groups.append(ParameterGroup(name, weight_decay if decay else 0.0, members))
    return groups
