"""The learning rate that models of a size are usually trained with."""

from __future__ import annotations

import math


def usual_rate(parameters: float, width: int | None) -> float:
    """A learning rate that AdamW is usually trained with: `parameters` without embeddings, and the model's `width`.

    A yardstick, no bound. Narrow models bear more: their rate goes with one over the width.
    Source: Kaplan et al. 2020, arXiv 2001.08361, equation D.1: 0.003239 - 0.0001395 ln N; Yang et al. 2022, arXiv
    2203.03466, table 8 for the width; that both meet at a width of 60 is own.
    """
    narrow = 0.1 / width if width else 0.0
    return max(0.003239 - 0.0001395 * math.log(max(parameters, 1.0)), narrow, 1e-4)
