"""attention-dropout: dropout acts on the attention weights.

Looks for: `model.dropout.attention` above 0.
Why: teachers disagree: the first transformers had it, most language models since have none. It also rules out
    the fastest attention kernels, so steps take longer.
Evidence: the setting.
Remedy: 0 there, and 0.1 after attention and feed-forward (`residual`, `feed_forward`) where data is small.
False alarms: fine-tuning a model that was trained with it.
Source: Vaswani et al. 2017, section 5.4 (dropout after the sub-layers); the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, TransformerShape
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of dropout inside the attention."""
    if isinstance(config.model, TransformerShape) and config.model.dropout.attention > 0.0:
        yield LintFinding(
            "attention-dropout",
            "info",
            "model.dropout.attention",
            f"dropout of {config.model.dropout.attention} on the attention weights",
            "it rules out the fastest attention kernels; most language models have none there",
            "model.dropout.attention=0.0",
            "Vaswani et al. 2017, section 5.4",
        )
