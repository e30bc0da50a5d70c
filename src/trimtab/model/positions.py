"""How a model tells positions apart.

Shape suffixes: B sequences · T positions · D hidden size · N heads · K head size · P positions of a table.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

PositionsName = Literal["learned", "sinusoidal", "rotary"]


@final
class SinusoidalPositions(nn.Module):
    """Fixed vectors: sines in even and cosines in odd dimensions, wave lengths from 2π to 10,000 · 2π.

    Source: Vaswani et al. 2017, section 3.5. The paper scales the token embeddings up by sqrt(D) (section
    3.4); here the table is scaled down by it: the same ratio, with a residual stream that starts small.
    """

    table: Tensor

    def __init__(self, hidden_size: int, max_positions: int) -> None:
        super().__init__()
        angles = _angles(hidden_size + hidden_size % 2, max_positions, 10_000.0)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :hidden_size]
        self.register_buffer("table", (table / hidden_size**0.5).float(), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """The vectors of integer `positions`: one more dimension, of size D."""
        return self.table[positions]


@final
class RotaryPositions(nn.Module):
    """Turns dimensions 2i and 2i+1 of queries and keys by the angle position · base^(-2i/K).

    A product of query and key then depends on the distance of their positions alone.
    Source: Su et al. 2021, arXiv 2104.09864, eq. 34 (neighbouring dimensions are a pair, as in the paper;
    Hugging Face's Llama pairs i with i + K/2 and permutes the weights accordingly).
    """

    table: Tensor

    def __init__(self, head_size: int, max_positions: int, base: float) -> None:
        super().__init__()
        angles = _angles(head_size, max_positions, base)
        table = torch.stack((angles.cos(), angles.sin()), dim=-1).float()
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Cosines and sines for `rotate`: fp32, the shape of `positions` and then [1, K/2, 2]."""
        return self.table[positions].unsqueeze(-3).float()


def rotate(x_BTNK: Tensor, rotation: Tensor) -> Tensor:
    """`x_BTNK` with each pair of dimensions turned, computed in fp32, in the dtype of `x_BTNK`."""
    pairs = x_BTNK.float().reshape(*x_BTNK.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():
        # The compiler fuses real arithmetic and cannot fuse complex arithmetic.
        x, y = pairs.unbind(-1)
        cosine, sine = rotation.unbind(-1)
        turned = torch.stack((x * cosine - y * sine, x * sine + y * cosine), dim=-1)
    else:
        # One kernel instead of seven: four times as fast on CPUs.
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    return turned.flatten(-2).type_as(x_BTNK)


def _angles(size: int, max_positions: int, base: float) -> Tensor:
    """position · base^(-2i/size), [P, size/2], in float64: in fp32 large angles would lose their digits."""
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    return torch.outer(torch.arange(max_positions, dtype=torch.float64), frequencies)
