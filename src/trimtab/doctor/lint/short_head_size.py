"""short-head-size: attention heads of an awkward width.

Looks for: `hidden_size / num_heads` below 32, or not a multiple of 8.
Why: fast attention kernels work on multiples of 8 and pad the rest; a head of fewer than 32 dimensions can
    hardly tell keys apart.
Evidence: `model.hidden_size`, `model.num_heads`.
Remedy: heads of 64, or of 32 in the smallest models.
False alarms: toy models.
Source: Dao 2023, arXiv 2307.08691 (head sizes of the kernels); Bhojanapalli et al. 2020, arXiv 2002.07028.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, TransformerShape
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of heads below 32 or not a multiple of 8."""
    model = config.model
    if not isinstance(model, TransformerShape) or (model.head_size >= 32 and model.head_size % 8 == 0):
        return
    fitting = (n for n in range(model.num_heads, 0, -1) if model.hidden_size % n == 0)
    better = next((n for n in fitting if model.hidden_size // n >= 32 and model.hidden_size // n % 8 == 0), None)
    whole = better is not None and (model.num_kv_heads is None or better % model.num_kv_heads == 0)
    yield LintFinding(
        "short-head-size",
        "info",
        "model.num_heads",
        f"{model.hidden_size} / {model.num_heads} heads = {model.head_size} dimensions a head",
        "short heads can hardly tell keys apart"
        if model.head_size < 32
        else "attention kernels pad heads that are no multiple of 8",
        f"model.num_heads={better}" if whole else None,
        "Dao 2023, arXiv 2307.08691; Bhojanapalli et al. 2020, arXiv 2002.07028",
    )
