"""What holds a captured step to the one as written; on a GPU in tests/cuda."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trimtab.errors import ConfigError
from trimtab.model import ForeignModel
from trimtab.training.declared import _require_near


class Masked(nn.Module):
    """As many do it: the mask of attention is a buffer of 0 and -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -math.inf).triu(1))
        self.register_buffer("mean", torch.ones(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.float()


def test_a_mask_of_minus_infinity_is_no_difference_and_hides_none() -> None:
    model = ForeignModel(Masked())
    written = {"what the buffers hold": list(model.buffers())}
    _require_near({"what the buffers hold": [one.clone() for one in model.buffers()]}, written, model, 1)
    other = {"what the buffers hold": [model.module.mask.clone(), torch.zeros(3)]}  # type: ignore[union-attr, operator]
    with pytest.raises(ConfigError, match="what the buffers hold differs by 100%"):
        _require_near(other, written, model, 1)
    lost = {"what the buffers hold": [torch.zeros(4, 4), torch.ones(3)]}
    with pytest.raises(ConfigError, match="what the buffers hold differs"):
        _require_near(lost, written, model, 1)


def test_what_is_no_number_differs() -> None:
    nothing = {"the gradient": [torch.tensor([1.0, math.nan])]}
    with pytest.raises(ConfigError, match="the gradient differs"):
        _require_near(nothing, nothing, ForeignModel(Masked()), 1)
