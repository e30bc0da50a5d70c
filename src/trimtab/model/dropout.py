"""Dropout whose rate can change while a compiled or captured step goes on."""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

HIGHEST_RATE: Final = 0.95


@final
class Dropout(nn.Module):
    """In training, zeroes each value with probability min(0.95, rate · factor) and divides the others by
    1 minus that probability.

    `factor` is a device scalar, 1.0 until `set_dropout_factor` changes it. A rate of 0 costs nothing and
    stays 0.
    Source: Srivastava et al. 2014 (inverted: nothing to do in eval mode).
    """

    factor: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate is the probability of dropping, from 0 to below 1. Received: {rate}")
        self.rate = rate
        self.register_buffer("factor", torch.ones((), dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself in eval mode; the randomness is torch's own, of the device of `x`."""
        if self.rate == 0.0 or not self.training:
            return x
        rate = (self.rate * self.factor).clamp(max=HIGHEST_RATE)
        # In fp32 whatever the dtype of `x`: a uniform number of 8 bits, as bf16 has, would round the rate.
        keep = torch.rand(x.shape, dtype=torch.float32, device=x.device) >= rate
        return torch.where(keep, x / (1.0 - rate), 0.0)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate}"


def set_dropout_factor(model: nn.Module, factor: float) -> int:
    """Multiply every dropout rate of `model`, as it was built, with `factor`; a rate never exceeds 0.95.

    Reaches trimtab's `Dropout` and torch's dropout modules; not rates that a foreign model passes to
    functions, as `nn.MultiheadAttention` does for its weights. Gives the number of sites that it changed:
    those with a rate above 0. Does not wait for the device.
    """
    if factor < 0.0:
        raise ValueError(f"factor must not be negative. Received: {factor}")
    num_sites, factors = 0, []
    for module in model.modules():
        if isinstance(module, Dropout) and module.rate > 0.0:
            factors.append(module.factor)
            num_sites += 1
        elif isinstance(module, _DropoutNd):
            # Kept on the module, so that copies of the model know it too.
            original_rate = module.__dict__.setdefault("original_rate", module.p)
            if original_rate > 0.0:
                module.p = min(HIGHEST_RATE, original_rate * factor)
                num_sites += 1
    if factors:  # all at once, as a schedule asks for it in every step
        torch._foreach_zero_(factors)
        torch._foreach_add_(factors, factor)
    return num_sites


def count_dropout_sites(model: nn.Module) -> int:
    """How many sites `set_dropout_factor` would change."""
    return sum(
        (module.rate if isinstance(module, Dropout) else module.__dict__.get("original_rate", module.p)) > 0.0
        for module in model.modules()
        if isinstance(module, Dropout | _DropoutNd)
    )
