"""What is known of a run before its first step, and what of it must stay the same when it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trimtab.config import Config, OptimizerConfig, RowTask, effective
from trimtab.config.fit import leading_curves
from trimtab.config.secrets import hidden
from trimtab.data import PackedSequences, PreparedData, fingerprint_of_sets
from trimtab.evaluation import yardsticks
from trimtab.model import parameter_counts
from trimtab.model.mode import largest_dropout
from trimtab.optimizer import ForeignOptimizer, Optimizer, ParameterGroup, planned_groups
from trimtab.runs.environment import usable_cores, versions
from trimtab.schedules import build_stairs
from trimtab.signals import Task
from trimtab.training.data_facts import counting_facts
from trimtab.training.first_batch import first_batch
from trimtab.training.first_pass import scales_at_start
from trimtab.training.outside import flops_of, try_once


def identity_of(
    config: Config,
    data: PreparedData,
    device: torch.device,
    controllers: Sequence[str],
    precision: str,
    teacher: str | None = None,
) -> dict[str, Any]:
    """What must stay the same when a run goes on: `config` as it was asked for, and the `precision` it came to.

    `controllers` are given by name, a `teacher` by the hash of its weights.
    """
    sorts = isinstance(config.task, RowTask) and config.task.bucketing > 1
    return {
        **{f"config.{name}": hidden(value, name) for name, value in effective(config).items()},
        **({"precision": precision} if config.training.precision.name == "auto" else {}),
        "data.fingerprint": data.fingerprint,
        **({"evaluation.sets": fingerprint_of_sets(sets, config.task)} if (sets := config.evaluation.sets) else {}),
        **({"data.bucketing": "padded widths"} if sorts else {}),
        **({"data.order": data.facts["curriculum"]["order_sha256"]} if "curriculum" in data.facts else {}),
        **({"data.synonyms": data.facts["synonyms"]["sha256"]} if "synonyms" in data.facts else {}),
        **({} if teacher is None else {"teacher": teacher}),
        "version.torch": torch.__version__,
        **{f"version.{name}": version for name, version in versions().items() if name in ("trimtab", "numpy")},
        "device": device.type,
        "controllers": list(controllers),
    }


def identity_of_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of plan.json on which a run's bits depend, but the micro-batch, which may be lowered on the way."""
    entries = {name: plan[name] for name in ("threads", "compile", "capture", "attention") if name in plan}
    return {f"plan.{name}": entry["chosen"] if isinstance(entry, Mapping) else entry for name, entry in entries.items()}


def facts_of(config: Config, data: PreparedData, model: nn.Module, task: Task, optimizer: Optimizer) -> dict[str, Any]:
    """What is known before step 1: of data, task, parameters, groups, FLOPs, the plan, and what counting reaches."""
    try_once(model, task, data.training, 1 if config.split is None else config.split.micro_batch_size)
    counts = parameter_counts(model)
    facts: dict[str, Any] = {
        **data.facts,
        "task": task.name,
        "leading": leading_curves(config),
        "parameters": counts,
        **_batch_norm(model),
        **largest_dropout(model),
        "frozen_parameters": [name for name, p in model.named_parameters() if not p.requires_grad][:20],
        "optimizer": _optimizer_name(config, optimizer),
        "parameter_groups": _told(optimizer.groups),
        "flops_per_token": flops_of(model, config.data.sequence_length),
        "learning_rate": _rate(config, config.optimizer),
        "planned_steps": config.training.steps,
        **planned_tokens(config, data),
        "device": str(next(model.parameters()).device),
        "cores": usable_cores(),
    }
    if task.name != "contrastive":  # whose vectors are no logits
        facts["first_pass"] = scales_at_start(model, task, data.training)
        facts["first_batch"] = first_batch(model, task, data.training)
    facts |= counting_facts(config, data)
    if (switch := config.optimizer_switch) is not None:
        facts["optimizer_switch"] = {
            "optimizer": switch.to.name,
            "parameter_groups": _told(planned_groups(switch.to, model, "optimizer_switch.to")),
            "learning_rate": _rate(config, switch.to),
        }
    training, validation = data.training, data.validation
    if (
        config.evaluation.yardsticks
        and isinstance(training, PackedSequences)
        and isinstance(validation, PackedSequences)
    ):
        # The text of the tokens that are judged: all but the first.
        judged = validation.tokens[1:]
        facts["yardsticks"] = data.cached_json(
            "yardsticks",
            lambda: yardsticks(
                training.tokens,
                validation.tokens,
                data.tokenizer.token_bytes,
                data.tokenizer.to_bytes(judged),
            ),
        )
    return facts


def _batch_norm(model: nn.Module) -> dict[str, Any]:
    """How many layers normalize by batches, and whether they stand beside attention; nothing where there are none."""
    if not (layers := sum(isinstance(module, _BatchNorm) for module in model.modules())):
        return {}
    kinds = {type(module).__name__.lower() for module in model.modules()}
    return {"batch_norm": {"layers": layers, "beside_attention": any("attention" in kind for kind in kinds)}}


def planned_tokens(config: Config, data: PreparedData) -> dict[str, Any]:
    """Tokens of a step and of the run, as texts are long on average, and the epochs that these are."""
    training = config.training
    multiple = build_stairs(training.accumulation_schedule, training.steps).mean(training.steps)
    per_step = round(config.sequences_per_step * multiple * data.training.mean_length)
    return {
        "tokens_per_step": per_step,
        "planned_tokens": per_step * training.steps,
        # How long an endless stream is, is not known.
        "epochs": None if "stream" in data.facts else per_step * training.steps / max(1, data.training.num_tokens),
    }


def _told(groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "parameters": sum(parameter.numel() for parameter in group.parameters.values()),
            "weight_decay": group.weight_decay,
            "rate": group.rate,
            "schedule": group.schedule or None,
        }
        for group in groups
    ]


def _rate(config: Config, optimizer: OptimizerConfig) -> dict[str, Any]:
    """What is set, and what is applied of it for this batch."""
    return {
        "set": optimizer.learning_rate,
        "scale": config.rate_scale_of(optimizer),
        "applied": config.full_rate_of(optimizer),
        "batch": config.sequences_per_step,
    }


def _optimizer_name(config: Config, optimizer: Optimizer) -> str:
    return type(optimizer.optimizer).__name__ if isinstance(optimizer, ForeignOptimizer) else config.optimizer.name
