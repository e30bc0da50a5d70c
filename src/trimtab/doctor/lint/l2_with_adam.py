"""l2-with-adam: weight decay as an L2 penalty inside Adam.

Looks for: `optimizer.name: adam`, or `torch.optim`'s Adam, Adamax, NAdam or RAdam, with weight decay that is not
    decoupled; `penalties.l2` beside any optimizer that scales each value by its own history.
Why: these add the decay to the gradient, where it is divided by the gradient's own scale: weights with large
    gradients are decayed less than others, and the strength depends on the learning rate's history. AdamW
    decays all weights alike, and generalizes better.
Evidence: `optimizer.name`, `optimizer.target`, `optimizer.weight_decay`, `optimizer.arguments`; those of
    `optimizer_switch.to` likewise; `penalties.l2.strength`.
Remedy: `optimizer.name=adamw`, or the argument `decoupled_weight_decay: true` where the class has it.
False alarms: reproducing a paper that trained so: lift it with `lint.allow`.
Source: Loshchilov and Hutter 2019, arXiv 1711.05101, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import AdamConfig, Config, CustomOptimizer, OptimizerConfig
from trimtab.doctor.lint.finding import LintFinding

_COUPLED = {"Adam", "Adamax", "NAdam", "RAdam"}
_NOT_ADAPTIVE = {"sgd"}


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Refuses an L2 penalty in an adaptive optimizer."""
    strength = config.penalties.l2.strength
    for key, optimizer in config.named_optimizers.items():
        if strength and optimizer.name not in _NOT_ADAPTIVE and not _is_plain(optimizer):
            yield LintFinding(
                "l2-with-adam",
                "refusal",
                "penalties.l2.strength",
                f"an L2 penalty of {strength} beside {key}.name {optimizer.name}",
                "the adaptive scaling distorts it: weights with large gradients are hardly decayed",
                "penalties.l2.strength=0",
                "Loshchilov and Hutter 2019, arXiv 1711.05101, section 2",
            )
        name = "Adam"
        if isinstance(optimizer, CustomOptimizer):
            module, _, name = optimizer.target.partition(":")
            decoupled = optimizer.arguments.get("decoupled_weight_decay") is True
            couples = module.startswith("torch.optim") and name in _COUPLED and not decoupled
        else:
            couples = isinstance(optimizer, AdamConfig)
        if couples and optimizer.weight_decay > 0:
            yield LintFinding(
                "l2-with-adam",
                "refusal",
                f"{key}.weight_decay",
                f"{name} takes a weight decay of {optimizer.weight_decay} as an L2 penalty",
                "the adaptive scaling distorts it: weights with large gradients are hardly decayed",
                f"{key}.name=adamw",
                "Loshchilov and Hutter 2019, arXiv 1711.05101, section 2",
            )


def _is_plain(optimizer: OptimizerConfig) -> bool:
    return isinstance(optimizer, CustomOptimizer) and optimizer.target.endswith((":SGD", ":ASGD"))
