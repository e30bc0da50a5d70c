"""post-norm-without-warmup: a post-norm transformer starts at the full learning rate.

Looks for: `model.norm.placement` post and a warm-up of less than 1 % of the steps.
Why: with the norm after the residual, the gradients of the last layers are large at the start, and a full rate
    then throws the model where it does not come back from.
Evidence: the two settings.
Remedy: a warm-up of 2 to 10 % of the steps, or the norm before each block.
False alarms: going on from a trained model.
Source: Xiong et al. 2020, arXiv 2002.04745.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, TransformerShape, rise_of, steps_of
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of post-norm with a warm-up under 1 %."""
    steps = config.training.steps
    key, rise = rise_of(config.schedule)
    warmup = steps_of(rise, config.budget(facts))
    is_post = isinstance(config.model, TransformerShape) and config.model.norm.placement == "post"
    if is_post and 100 * warmup < steps:
        yield LintFinding(
            "post-norm-without-warmup",
            "warning",
            key,
            f"norms after the residual, and a warm-up of {warmup} of {steps} steps",
            "the gradients of the last layers are large at the start: the full rate then may ruin the model",
            f"{key}=0.05",
            "Xiong et al. 2020, arXiv 2002.04745",
        )
