"""sizes-off-tiles: sizes that a GPU's tiles do not divide.

Looks for: on CUDA, a `model.hidden_size`, feed-forward size or `data.sequence_length` that is no multiple of 64, and a
    vocabulary that is no multiple of 8 where it is not padded.
Why: tensor cores multiply tiles of 64 or 128 rows and columns, and compute a tile that is not full as a whole; sizes
    that are no multiple of 8 take slower kernels besides. 50,257 columns took 5 % more of a whole step than 50,304.
    trimtab pads the vocabulary to a multiple of 64 inside the model when head and loss are one operation, so that it
    may have any size there.
Evidence: `model`, `data`, `objective.fused`, `training.precision`; `training.device`, or the fact `device`.
Remedy: the next multiple of 64, or of 128 in large models.
False alarms: tiny models, whose time goes elsewhere; sizes that are given, as those of weights that are loaded.
Source: NVIDIA, Matrix Multiplication Background User's Guide, section 3; own, on an H100.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import BpeTokenizer, Config, CrossEntropyConfig, TransformerShape, UnigramTokenizer
from trimtab.doctor.lint.finding import LintFinding, aims_at_cuda

_TILE = 64
_ALIGNED = 8
_SOURCE = "NVIDIA, Matrix Multiplication Background User's Guide; own, measured on an H100"


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of each size that is off."""
    model = config.model
    if not isinstance(model, TransformerShape) or not aims_at_cuda(config, facts):
        return
    # A multiple of the heads, and for rotary positions of twice as many, is a hidden size, too.
    heads = model.num_heads * (2 if model.positions.name == "rotary" else 1)
    sizes = {
        "model.hidden_size": (model.hidden_size, heads),
        "model.feed_forward_size": (model.resolved_feed_forward_size, 1),
        "data.sequence_length": (config.data.sequence_length, 1),
    }
    for key, (size, divisor) in sizes.items():
        if size % _TILE == 0 or (key == "model.feed_forward_size" and model.feed_forward_size is None):
            continue
        above = -(-size // _TILE) * _TILE
        fits = above % divisor == 0 and (key != "data.sequence_length" or _has_room(config, above))
        yield LintFinding(
            "sizes-off-tiles",
            "info",
            key,
            f"{size} is no multiple of {_TILE}: a GPU computes {above} for it",
            f"products are computed in tiles of {_TILE} or 128, of which the last is {size % _TILE / _TILE:.0%} full",
            f"{key}={above}" if fits else None,
            _SOURCE,
        )
    tokenizer, objective = config.data.tokenizer, config.objective
    padded = (
        isinstance(objective, CrossEntropyConfig)
        and objective.fused != "off"
        and config.training.precision.name != "fp16"
    )
    if (
        not isinstance(tokenizer, BpeTokenizer | UnigramTokenizer)
        or padded
        or tokenizer.vocabulary_size % _ALIGNED == 0
    ):
        return
    size = tokenizer.vocabulary_size
    above = -(-size // _TILE) * _TILE
    yield LintFinding(
        "sizes-off-tiles",
        "info",
        "data.tokenizer.vocabulary_size",
        f"{size} is no multiple of {_ALIGNED}, and it is not padded, as head and loss are two operations",
        "tensor cores take slower kernels for it: 50,257 columns cost 5 % of a whole step",
        f"data.tokenizer.vocabulary_size={above}" if above <= 65_536 else None,
        _SOURCE,
    )


def _has_room(config: Config, length: int) -> bool:
    """Whether the model has so many positions."""
    model = config.model
    return not isinstance(model, TransformerShape) or model.max_positions is None or model.max_positions >= length
