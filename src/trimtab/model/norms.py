"""Normalization over the last dimension."""

from __future__ import annotations

from typing import Literal

from torch import nn

NormName = Literal["layer_norm", "rms_norm"]
NormPlacement = Literal["pre", "post"]


def build_norm(name: NormName, size: int, epsilon: float, bias: bool) -> nn.LayerNorm | nn.RMSNorm:
    """LayerNorm: γ (x - mean) / sqrt(variance + ε), + β with `bias`. RMSNorm: γ x / sqrt(mean(x²) + ε).

    Source: Ba et al. 2016, arXiv 1607.06450; Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4.
    """
    if name == "rms_norm":
        return nn.RMSNorm(size, eps=epsilon)
    return nn.LayerNorm(size, eps=epsilon, bias=bias)
