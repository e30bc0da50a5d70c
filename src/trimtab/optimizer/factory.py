"""From the configuration to groups, optimizer and gradient transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from trimtab.config import (
    AdafactorConfig,
    AdamConfig,
    AgcClip,
    AveragingConfig,
    Budget,
    ClipConfig,
    CustomOptimizer,
    EmaConfig,
    GaLoreConfig,
    GradientsConfig,
    LambConfig,
    LionConfig,
    MuonConfig,
    NoAveraging,
    NoClip,
    NormClip,
    OptimizerConfig,
    ParameterClip,
    QuantileClip,
    ScheduleFreeAdamWConfig,
    SgdConfig,
    SkipSpikes,
    SoapConfig,
    SophiaConfig,
    SpikeConfig,
    ValueClip,
    ZScoreClip,
    steps_asked,
    steps_of,
)
from trimtab.config.registry import load_target, require
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.errors import ConfigError
from trimtab.optimizer.algorithms.adafactor import adafactor
from trimtab.optimizer.algorithms.adam import adam
from trimtab.optimizer.algorithms.adamw import AdamW
from trimtab.optimizer.algorithms.adamw_8bit import adamw_8bit
from trimtab.optimizer.algorithms.galore import galore, projected_rank
from trimtab.optimizer.algorithms.lamb import lamb
from trimtab.optimizer.algorithms.lion import lion
from trimtab.optimizer.algorithms.muon import muon
from trimtab.optimizer.algorithms.rule import Rule
from trimtab.optimizer.algorithms.schedule_free import schedule_free_adamw
from trimtab.optimizer.algorithms.sgd import sgd
from trimtab.optimizer.algorithms.soap import soap
from trimtab.optimizer.algorithms.sophia import sophia
from trimtab.optimizer.average import WeightAverage, equal, exponential
from trimtab.optimizer.by_rule import RuleOptimizer
from trimtab.optimizer.contract import Optimizer
from trimtab.optimizer.foreign import ForeignOptimizer
from trimtab.optimizer.parameter_groups import Factors, ParameterGroup, hidden_matrices, parameter_groups
from trimtab.optimizer.running_norms import ClipByQuantile, ClipByZScore, SkipOutliers
from trimtab.optimizer.storage import Storage
from trimtab.optimizer.transforms import (
    ClipByGroup,
    Noise,
    centralize,
    clip_by_norm,
    clip_by_parameter,
    clip_by_unit,
    clip_by_value,
    skip_non_finite,
)
from trimtab.optimizer.weight_norms import WeightNormControl
from trimtab.signals import GradientTransform


def build_groups(config: OptimizerConfig, model: nn.Module, key: str = "optimizer") -> list[ParameterGroup]:
    """The trainable parameters of `model`, grouped as `config` says, which errors call `key`."""
    return parameter_groups(
        model,
        config.weight_decay,
        width_ratio=getattr(model, "width_ratio", 1.0),
        biases=config.decay.biases,
        norms=config.decay.norms,
        embeddings=config.decay.embeddings,
        decays=Factors(config.decay.layers, config.decay.factors, f"{key}.decay"),
        rates=Factors(config.rates.layers, config.rates.factors, f"{key}.rates"),
        schedules=config.rates.schedules,
        setting=key,
    )


def planned_groups(config: OptimizerConfig, model: nn.Module, key: str = "optimizer") -> list[ParameterGroup]:
    """The groups of the optimizer that `config` describes, before it is built.

    Raises: ConfigError for what `build_optimizer` refuses in the configuration, so that it is refused before step 1.
    """
    groups = build_groups(config, model, key)
    if isinstance(config, MuonConfig | GaLoreConfig):
        return [group for group, _ in _divided(config, model, groups, key)]
    if isinstance(config, CustomOptimizer):
        _foreign_class(config, key)
    return groups


def build_optimizer(
    config: OptimizerConfig,
    model: nn.Module,
    compute_dtype: torch.dtype = torch.float32,
    key: str = "optimizer",
) -> Optimizer:
    """The optimizer that `config` describes, which errors call `key`, over the trainable parameters of `model`.

    `compute_dtype` is what ours lets the model compute in; a custom one leaves the parameters in fp32.
    """
    target = config.decay.target
    if target and config.weight_decay:
        decay_of = {name: group.weight_decay for group in build_groups(config, model, key) for name in group.parameters}
        plain = config.model_copy(update={"weight_decay": 0.0})
        return WeightNormControl(build_optimizer(plain, model, compute_dtype, key), decay_of, target)
    groups = build_groups(config, model, key)
    match config.name:
        case "adamw":
            return AdamW(
                groups,
                beta1=config.beta1,
                beta2=config.beta2,
                epsilon=config.epsilon,
                compute_dtype=compute_dtype,
            )
        case "adamw_8bit":
            require(OPTIMIZERS[config.name], f"{key}.name={config.name}")
            return adamw_8bit(groups, config.beta1, config.beta2, config.epsilon, min_size=config.min_size)
        case "custom":
            return _foreign(config, groups, key)
        case "muon" | "galore":
            return RuleOptimizer(_divided(config, model, groups, key), compute_dtype=compute_dtype)
        case _:
            rule = _rule(config)
            return RuleOptimizer([(group, rule) for group in groups], compute_dtype=compute_dtype)


def _rule(config: OptimizerConfig) -> Rule:
    """The rule of an optimizer that has one for all parameters."""
    match config:
        case AdamConfig():
            return adam(config.beta1, config.beta2, config.epsilon)
        case SgdConfig():
            return sgd(config.momentum, nesterov=config.nesterov)
        case LionConfig():
            return lion(config.beta1, config.beta2)
        case AdafactorConfig():
            return adafactor(config.beta2_power, config.epsilon, config.threshold)
        case LambConfig():
            return lamb(config.beta1, config.beta2, config.epsilon)
        case ScheduleFreeAdamWConfig():
            return schedule_free_adamw(config.beta1, config.beta2, config.epsilon)
        case SoapConfig():
            return soap(
                config.beta1,
                config.beta2,
                config.epsilon,
                basis_every=config.basis_every,
                max_side=config.max_side,
            )
        case SophiaConfig():
            return sophia(
                config.beta1,
                config.beta2,
                config.gamma,
                config.epsilon,
                estimate_every=config.estimate_every,
            )
        case _:
            raise AssertionError(f"{config.name} has no rule of its own")


def _divided(
    config: MuonConfig | GaLoreConfig, model: nn.Module, groups: Sequence[ParameterGroup], key: str
) -> list[tuple[ParameterGroup, Rule]]:
    """Each group in two: matrices inside layers for the rule that `config` names, and the rest for AdamW."""
    plain = adam(config.beta1, config.beta2, config.epsilon, decoupled=True)
    matrices = hidden_matrices(model)
    if isinstance(config, MuonConfig):
        rule = muon(config.momentum, nesterov=config.nesterov, iterations=config.iterations, scaling=config.scaling)
    else:
        matrices = {n for n in matrices if projected_rank(model.get_parameter(n).shape, config.rank) is not None}
        rule = galore(
            config.rank,
            config.beta1,
            config.beta2,
            config.epsilon,
            scale=config.scale,
            basis_every=config.basis_every,
        )
        if not matrices:
            raise ConfigError(
                f"{key}.rank: no matrix inside the model's layers has a longer side than it, so that nothing is "
                f"projected. Received: {config.rank}",
                hint=f"a part of the shorter side fits any model: {key}.rank=0.25",
            )
    divided = []
    for group in groups:
        for own, chosen, factor in ((rule, True, 1.0), (plain, False, config.rest)):
            parameters = {name: p for name, p in group.parameters.items() if (name in matrices) == chosen}
            if parameters:
                name = f"{group.name}, {config.name if chosen else 'adamw'}"
                divided.append((replace(group, name=name, parameters=parameters, rate=group.rate * factor), own))
    return divided


def _foreign_class(config: CustomOptimizer, key: str) -> Any:
    """What is to be called. Raises: ConfigError."""
    target: Any = load_target(config.target, f"{key}.target")
    if not (isinstance(target, type) and issubclass(target, torch.optim.Optimizer)):
        raise ConfigError(f"{key}.target: must be a subclass of torch.optim.Optimizer. Received: {config.target!r}")
    return target  # a subclass takes what its own constructor takes


def _foreign(config: CustomOptimizer, groups: Sequence[ParameterGroup], key: str) -> ForeignOptimizer:
    make = _foreign_class(config, key)
    return ForeignOptimizer(
        groups, lambda torch_groups: make(torch_groups, lr=config.learning_rate, **dict(config.arguments))
    )


def build_average(config: AveragingConfig, storage: Storage, budget: Budget) -> WeightAverage | None:
    """The average that `config` asks for, of the weights in `storage`, in a run of that budget.

    Raises: ConfigError when no update of the run is left for it.
    """
    if isinstance(config, NoAveraging):
        return None
    every = max(1, steps_of(config.every, budget))
    if isinstance(config, EmaConfig):
        decay = config.decay
        if config.half_life is not None:
            decay = 0.5 ** (every / max(1, steps_asked(config.half_life, budget)))
        return WeightAverage(storage, "ema", exponential(decay, warmup=config.warmup), every=every)
    start = steps_of(config.start, budget)
    if start + every > budget.steps:
        raise ConfigError(
            f"averaging: no update is left to be averaged: the first would be {start + every:,} of {budget.steps:,}. "
            f"Received: start {config.start!r}, every {config.every!r}",
            hint="let it begin earlier: averaging.start=0.75",
        )
    return WeightAverage(storage, "swa", equal(), every=every, start=start)


def build_transforms(
    config: GradientsConfig,
    device: torch.device | None = None,
    names: Sequence[str] = (),
    spikes: SpikeConfig | None = None,
) -> list[GradientTransform]:
    """The gradient transforms that `config` asks for, in the order in which they act: that of its fields.

    Where `spikes` are to be skipped, that comes before what is not finite. `names` are those of the gradients.

    Raises: ConfigError for a pattern of names without effect.
    """
    transforms: list[GradientTransform] = [centralize()] if config.centralize else []
    match config.clip:
        case NormClip(threshold=threshold, groups=groups):
            transforms.append(ClipByGroup(names, threshold, groups, device) if groups else clip_by_norm())
        case ValueClip():
            transforms.append(clip_by_value())
        case ParameterClip():
            transforms.append(clip_by_parameter())
        case AgcClip(epsilon=epsilon):
            transforms.append(clip_by_unit(epsilon))
        case QuantileClip(quantile=quantile, memory=memory):
            transforms.append(ClipByQuantile(quantile, memory, device))
        case ZScoreClip(deviations=deviations, memory=memory):
            transforms.append(ClipByZScore(deviations, memory, device))
    if config.noise.scale:
        transforms.append(Noise(config.noise.scale, config.noise.power, device))
    if isinstance(spikes, SkipSpikes):
        transforms.append(SkipOutliers(spikes.deviations, spikes.memory, device))
    if config.skip_non_finite:
        transforms.append(skip_non_finite())
    return transforms


def clip_threshold(config: ClipConfig) -> float:
    """What the setting `clip_threshold` begins with: the threshold, or a factor of 1 on one that follows the norms."""
    match config:
        case NormClip() | ValueClip() | ParameterClip() | AgcClip():
            return config.threshold
        case QuantileClip() | ZScoreClip():
            return 1.0
        case NoClip():
            return math.inf
