"""Which parameters share their settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from trimtab.errors import ConfigError

Kind = Literal["weight", "bias", "norm", "embedding"]


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters with the same weight decay, schedule, and factor on the learning rate."""

    name: str
    weight_decay: float
    parameters: Mapping[str, nn.Parameter]
    rate: float = 1.0
    """Factor on the learning rate."""
    schedule: str = ""
    """Pattern of the names that follow a schedule of their own; '': the run's."""

    @property
    def rate_setting(self) -> str:
        """Which of the step's settings is its learning rate, before the factor."""
        return f"learning_rate/{self.schedule}" if self.schedule else "learning_rate"


@dataclass(frozen=True, slots=True)
class Factors:
    """A factor for each parameter: one from layer to layer, times that of the last pattern which fits its name."""

    layers: float = 1.0
    """From each layer to the one below; what comes after the last layer has 1."""
    patterns: Mapping[str, float] = field(default_factory=dict)
    """Pattern as of a file name ('blocks.0.*') to factor."""
    setting: str = "factors"
    """What an error calls it."""

    def of(self, model: nn.Module) -> dict[str, float]:
        """Trainable parameter to factor.

        Raises: ConfigError for a pattern that fits no name, or a model without a list of layers where that is needed.
        """
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        found = dict.fromkeys(names, 1.0)
        if self.layers != 1.0:
            depth, top = depths(model), num_layers(model) + 1
            if top == 1:
                raise ConfigError(
                    f"{self.setting}.layers: the model has no nn.ModuleList of layers. Received: {self.layers}",
                    hint=f"give {self.setting}.factors by patterns of names",
                )
            found = {name: self.layers ** (top - depth[name]) for name in names}
        chosen = last_fitting(names, self.patterns, f"{self.setting}.factors")
        return {name: found[name] * self.patterns.get(chosen.get(name, ""), 1.0) for name in names}

    def require_one_of(self, names: Collection[str]) -> None:
        """Raises: ConfigError for a pattern that fits none of `names`, those on which the factors act."""
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"{self.setting}.factors: what fits has no weight decay. Received: {pattern!r}",
                    hint=f"{self.setting}.biases, .norms and .embeddings say what has; or leave the pattern out",
                )


def last_fitting(names: Sequence[str], patterns: Collection[str], setting: str) -> dict[str, str]:
    """Name to the last of `patterns`, as of file names, that fits it; names that none fits are left out.

    Raises: ConfigError for a pattern that fits no name, or none that is left to it; `setting` is what it calls them.
    """
    chosen: dict[str, str] = {}
    for pattern in patterns:
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise ConfigError(
                f"{setting}: no trainable parameter has such a name. Received: {pattern!r}",
                hint=f"the model's begin with {', '.join(names[:3])}",
            )
        chosen |= dict.fromkeys(fitting, pattern)
    for pattern in patterns:
        if pattern not in chosen.values():
            raise ConfigError(
                f"{setting}: a later pattern fits all that this one fits, so that it changes nothing. "
                f"Received: {pattern!r}",
                hint="the last that fits acts: put the wider pattern first",
            )
    return chosen


def applied_rates(groups: Sequence[ParameterGroup], settings: Mapping[str, float]) -> dict[str, float]:
    """`group/<name>/learning_rate` of each group under the rates in `settings`; nothing where all are alike."""
    if len({(group.rate_setting, group.rate) for group in groups}) == 1:
        return {}
    return {f"group/{group.name}/learning_rate": settings[group.rate_setting] * group.rate for group in groups}


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


def num_layers(model: nn.Module) -> int:
    """How many layers `model` has, or each of its stacks: the length of its longest `nn.ModuleList`, or 0."""
    return max((len(module) for module in model.modules() if isinstance(module, nn.ModuleList)), default=0)


def _stacks(model: nn.Module) -> list[str]:
    """The longest lists of modules, as an encoder and a decoder have one each: names with a dot, outermost alone."""
    longest, found = num_layers(model), list[str]()
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and 0 < len(module) == longest and not name.startswith(tuple(found)):
            found.append(f"{name}.")
    return found


def depths(model: nn.Module) -> dict[str, int]:
    """Each parameter's layer: from 1 on inside layers, 0 for what is declared before them, the highest for the rest.

    With several stacks of layers each counts its own, and what stands beside one of them counts with it.
    Source: as Clark et al. 2020, arXiv 2003.10555, and Bao et al. 2021, arXiv 2106.08254, count for layer-wise rates.
    """
    stacks, top = _stacks(model), num_layers(model) + 1
    around = {stack: stack.rstrip(".").rpartition(".")[0] + "." for stack in stacks}
    begun: set[str] = set()
    depth: dict[str, int] = {}
    for name, _ in model.named_parameters():
        inside = next((stack for stack in stacks if name.startswith(stack)), None)
        if inside is not None:
            depth[name] = 1 + int(name.removeprefix(inside).partition(".")[0])
            begun.add(inside)
        else:
            beside = [stack for stack in stacks if name.startswith(around[stack])] or stacks
            depth[name] = top if begun & set(beside) else 0
    return depth


def hidden_matrices(model: nn.Module) -> set[str]:
    """The weight matrices inside the model's layers; in a model without a list of layers, all weight matrices."""
    depth, top = depths(model), num_layers(model) + 1
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    matrices = {name for name, kind in kinds(model).items() if kind == "weight" and shapes[name] == 2}
    return matrices if top == 1 else {name for name in matrices if 0 < depth[name] < top}


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    biases: bool = False,
    norms: bool = False,
    embeddings: bool = True,
    decays: Factors | None = None,
    rates: Factors | None = None,
    schedules: Collection[str] = (),
    setting: str = "optimizer",
    width_ratio: float = 1.0,
) -> list[ParameterGroup]:
    """The trainable parameters, in a group for each weight decay, rate and schedule; those with decay come first.

    Vectors count as biases. `decays` and `rates` are factors on weight decay and on the learning rate; `schedules` are
    patterns of names that follow a schedule of their own; `setting` is what an error calls the optimizer. In a model
    that is wider than the one of which the rate is, by `width_ratio`, matrices inside layers have so much less of it
    (Yang et al. 2022, arXiv 2203.03466, table 8, Adam).
    Raises: as `Factors.of`.
    """
    acts: dict[Kind, bool] = {"weight": True, "bias": biases, "norm": norms, "embedding": embeddings}
    kind_of = kinds(model)
    decay_of, rate_of = (decays or Factors()).of(model), (rates or Factors()).of(model)
    if width_ratio != 1.0:
        rate_of |= {name: rate_of[name] / width_ratio for name in hidden_matrices(model) if name in rate_of}
    if decays is not None and weight_decay > 0.0:
        decays.require_one_of({name for name, kind in kind_of.items() if acts[kind]})
    schedule_of = last_fitting(list(kind_of), schedules, f"{setting}.rates.schedules")
    members: dict[tuple[bool, float, float, str], dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name in kind_of:
            decayed = acts[kind_of[name]]
            key = (not decayed, decay_of[name] if decayed else 1.0, rate_of[name], schedule_of.get(name, ""))
            members.setdefault(key, {})[name] = parameter
    groups: list[ParameterGroup] = []
    for (exempt, decay, rate, schedule), parameters in sorted(members.items(), key=lambda item: item[0][0]):
        told = [f"decay x {decay:.4g}"] * (decay != 1.0) + [f"rate x {rate:.4g}"] * (rate != 1.0)
        told += [f"schedule {schedule}"] * bool(schedule)
        name = ", ".join(["no_decay" if exempt else "decay", *told])
        # Factors that differ further back than is told.
        alike = sum(group.name == name or group.name.startswith(f"{name} (") for group in groups)
        name = f"{name} ({alike + 1})" if alike else name
        groups.append(ParameterGroup(name, 0.0 if exempt else weight_decay * decay, parameters, rate, schedule))
    return groups
