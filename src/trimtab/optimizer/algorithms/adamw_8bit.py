"""AdamW whose moments are kept in 8 bits, by bitsandbytes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from trimtab.optimizer.foreign import ForeignOptimizer
from trimtab.optimizer.parameter_groups import ParameterGroup


def adamw_8bit(
    groups: Sequence[ParameterGroup],
    beta1: float = 0.9,
    beta2: float = 0.95,
    epsilon: float = 1e-8,
    *,
    min_size: int = 4096,
) -> ForeignOptimizer:
    """AdamW on per-tensor storage; moments in blocks of 256 values, each of which has a scale of its own.

    Parameters of fewer than `min_size` values keep theirs in fp32. On a GPU each update waits for the skip flag.
    Source: Dettmers et al. 2022, arXiv 2110.02861; bitsandbytes' `AdamW8bit`.
    """
    bitsandbytes = _bitsandbytes()
    return ForeignOptimizer(
        groups,
        lambda torch_groups: bitsandbytes.optim.AdamW8bit(
            torch_groups,
            lr=0.0,  # each update sets it
            betas=(beta1, beta2),
            eps=epsilon,
            weight_decay=0.0,  # where a group has its own, that
            min_8bit_size=min_size,
        ),
    )


def _bitsandbytes() -> Any:
    """The library; on a CPU it warns of a kernel for 4 bits, which no optimizer needs."""
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    finally:
        logger.setLevel(before)
    return bitsandbytes
