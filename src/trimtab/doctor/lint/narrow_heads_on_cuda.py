"""narrow-heads-on-cuda: attention heads that a GPU's kernels are slow on.

Looks for: on CUDA in 16 bits, a decoder whose heads are narrower than 128, where its width is a multiple of 128.
Why: the kernels of plain causal attention work on tiles; at 1,024 tokens 6 heads of 128 take 0.589 ms a layer, forward
    and backward, and 12 heads of 64 take 0.725 ms for the same number of products: 1.23 times as long. Attention is
    about a sixth of a step at 124 million parameters, and more with longer sequences.
Evidence: `model.hidden_size`, `model.num_heads`, `training.precision`; `training.device`, or the fact `device`.
Remedy: fewer and wider heads: `model.num_heads = hidden_size / 128`.
False alarms: fewer heads are another model, whose loss may be a little better or worse; models to be compared with
    published ones, or loaded from them; masked attention, whose kernels were not measured.
Source: own, on an H100 (cuDNN 9.19); Dao 2023, arXiv 2307.08691, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, DecoderConfig
from trimtab.doctor.lint.finding import LintFinding, aims_at_cuda

_WIDE = 128
_MEASURED = 64
_GAIN = 0.725 / 0.589
"""Milliseconds of a layer with heads of 64, over those with heads of 128."""


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of heads below 128 on CUDA in 16 bits."""
    model = config.model
    if not isinstance(model, DecoderConfig) or model.document_mask or not aims_at_cuda(config, facts):
        return
    wide = model.hidden_size // _WIDE
    sixteen_bits = config.training.precision.name in ("bf16", "fp16", "auto")
    if not sixteen_bits or model.head_size >= _WIDE or model.hidden_size % _WIDE or model.dropout.attention:
        return
    gain = f"{_GAIN:.2f}×" if model.head_size == _MEASURED else f"some {_GAIN:.2f}× or more"
    if model.head_size > _MEASURED:
        gain = f"up to {_GAIN:.2f}×"
    whole = model.num_kv_heads is None or wide % model.num_kv_heads == 0
    yield LintFinding(
        "narrow-heads-on-cuda",
        "info",
        "model.num_heads",
        f"{model.num_heads} heads of {model.head_size}: {wide} of {_WIDE} run attention {gain} faster on an H100",
        "kernels of attention work on wide tiles; fewer heads are another model, whose loss may differ a little",
        f"model.num_heads={wide}" if whole else None,
        "own, measured on an H100 at 1,024 tokens",
    )
