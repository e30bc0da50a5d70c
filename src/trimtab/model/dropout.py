"""Dropout whose rate can change while a compiled or captured step goes on."""

from __future__ import annotations

from typing import Final, Literal, final

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
    base: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        _check(rate)
        self.rate = rate
        self.drops = rate > 0.0
        """Whether the rate is above 0."""
        self.register_buffer("factor", torch.ones((), dtype=torch.float32), persistent=False)
        # A tensor: a number would be a constant of compiled code, and blocks of different rates compiled apart.
        self.register_buffer("base", torch.tensor(rate, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself in eval mode; the randomness is torch's own, of the device of `x`."""
        if not self.drops or not self.training:
            return x
        rate = (self.base * self.factor).clamp(max=HIGHEST_RATE)
        # In fp32 whatever the dtype of `x`: a uniform number of 8 bits, as bf16 has, would round the rate.
        keep = torch.rand(x.shape, dtype=torch.float32, device=x.device) >= rate
        return torch.where(keep, x / (1.0 - rate), 0.0)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate}"


@final
class LayerDropout(nn.Module):
    """Leaves out what a branch would add to the residual stream with probability min(0.95, rate · factor), in training,
    and divides it by 1 minus that probability where it is kept, so that its expectation stays; in eval mode nothing.

    Branches are computed either way: a step has one shape, and can be compiled and captured. Drawn for each row of a
    micro-batch, so that documents packed in a row have one fate, or once for all rows.
    Source: Huang et al. 2016, arXiv 1603.09382 (stochastic depth; scaled in training instead of at inference); Larsson
    et al. 2017, arXiv 1605.07648 (for each row: drop path); Fan et al. 2019, arXiv 1909.11556 (LayerDrop: one draw for
    the branches of a block).
    """

    factor: Tensor
    base: Tensor

    def __init__(self, rate: float, *, per: Literal["sample", "batch"] = "sample") -> None:
        super().__init__()
        _check(rate)
        self.rate, self.drops, self.per = rate, rate > 0.0, per
        self.register_buffer("factor", torch.ones((), dtype=torch.float32), persistent=False)
        self.register_buffer("base", torch.tensor(rate, dtype=torch.float32), persistent=False)

    def draw(self, x_BTD: Tensor) -> Tensor | None:
        """A fate for each row of `x_BTD`, boolean [B, 1, 1] or [1, 1, 1]: True is kept. None where nothing is drawn."""
        if not self.drops or not self.training:
            return None
        rows = x_BTD.shape[0] if self.per == "sample" else 1
        return torch.rand((rows, 1, 1), dtype=torch.float32, device=x_BTD.device) >= self._rate()

    def forward(self, branch_BTD: Tensor, keep: Tensor | None) -> Tensor:
        """What is added of `branch_BTD`, given what `draw` gave."""
        if keep is None:
            return branch_BTD
        # Chosen, not multiplied by zero: what is left out may be infinite.
        return torch.where(keep, branch_BTD / (1.0 - self._rate()), 0.0)

    def _rate(self) -> Tensor:
        return (self.base * self.factor).clamp(max=HIGHEST_RATE)

    def extra_repr(self) -> str:
        """The rate and what it is drawn for, for printing."""
        return f"rate={self.rate}, per={self.per}"


def ramped(rate: float, block: int, num_blocks: int, ramp: Literal["none", "linear"]) -> float:
    """The rate of block number `block`, counted from 0: `rate` everywhere, or rising to it at the last block.

    Source: Huang et al. 2016, section 3 (l/L, which gives the first block a rate, too).
    """
    return rate * (block + 1) / num_blocks if ramp == "linear" else rate


def _check(rate: float) -> None:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"rate is the probability of dropping, from 0 to below 1. Received: {rate}")


def set_dropout_factor(model: nn.Module, factor: float) -> int:
    """Multiply every dropout rate of `model`, as it was built, with `factor`; a rate never exceeds 0.95.

    Reaches trimtab's `Dropout` and `LayerDropout` and torch's dropout modules; not rates that a foreign model passes to
    functions, as `nn.MultiheadAttention` does for its weights. Gives the number of sites that it changed:
    those with a rate above 0. Does not wait for the device.
    """
    if factor < 0.0:
        raise ValueError(f"factor must not be negative. Received: {factor}")
    num_sites, factors = 0, []
    for module in model.modules():
        if isinstance(module, Dropout | LayerDropout) and module.drops:
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
        (module.rate if isinstance(module, Dropout | LayerDropout) else module.__dict__.get("original_rate", module.p))
        > 0.0
        for module in model.modules()
        if isinstance(module, Dropout | LayerDropout | _DropoutNd)
    )
