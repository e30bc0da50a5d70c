"""tokens-per-parameter: the model is large for the tokens that it will see.

Looks for: fewer than 10 planned tokens for each parameter.
Why: for a given amount of compute the loss is lowest at about 20 tokens for each parameter; with far fewer, a
    smaller model trained for longer reaches a lower loss for the same cost. The optimum is flat, so the boundary
    lies at half of it.
Evidence: the facts `parameters` and `planned_tokens` (by the configuration if not given); without the first
    nothing is said.
Remedy: more steps, larger batches, or a smaller model; where that would be more than 4 epochs, more text.
False alarms: demonstrations; runs that are continued.
    Rows with targets are left alone, as the rule is about text, and so is a pretrained model, `model.path`.
Source: Hoffmann et al. 2022, arXiv 2203.15556, table 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, HuggingFaceConfig, RowTask
from trimtab.doctor.lint.finding import LintFinding

_FEW = 10
_BEST = 20
_AS_GOOD_AS_NEW = 4
"""Epochs, as in epochs-over-data: so the two rules never ask for more steps and for fewer."""


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of fewer than ten tokens a parameter."""
    is_pretrained = isinstance(config.model, HuggingFaceConfig) and config.model.path is not None
    if "parameters" not in facts or isinstance(config.task, RowTask) or is_pretrained:
        return
    steps, parameters = config.training.steps, facts["parameters"]["total"]
    planned_tokens = facts.get("planned_tokens", config.tokens_per_step * steps)
    if planned_tokens < _FEW * parameters:
        wanted = -(-_BEST * parameters * steps // max(1, planned_tokens))
        reason = f"about {_BEST} make the best of a given amount of compute"
        per_epoch = facts.get("tokens_per_epoch", 0)
        if is_too_little := 0 < _AS_GOOD_AS_NEW * per_epoch < _BEST * parameters:
            reason += f"; the {per_epoch:,} in the data are too few for that: more text helps, or a smaller model"
        else:
            reason += "; a smaller model would learn more from these"
        yield LintFinding(
            "tokens-per-parameter",
            "info",
            "training.steps",
            f"{planned_tokens / parameters:.1f} tokens a parameter: {planned_tokens:,} for {parameters:,}",
            reason,
            None if is_too_little else f"training.steps={wanted}",
            "Hoffmann et al. 2022, arXiv 2203.15556, table 3",
        )
