"""The feed-forward block: wider, an activation, back.

Shape suffixes: B sequences · T positions · D hidden size · F feed-forward size.
"""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["gelu", "swiglu", "relu_squared"]


@final
class FeedForward(nn.Module):
    """down(activation(up(x))).

    gelu: x Φ(x), exact (Hendrycks and Gimpel 2016, arXiv 1606.08415); GPT-2's own code has its tanh
    approximation, which differs by less than 5e-4 and takes twice the time on CPUs.
    relu_squared: max(x, 0)² (So et al. 2021, arXiv 2109.08668).
    swiglu: silu(gate) * value, where `up` gives both, the gate first (Shazeer 2020, arXiv 2002.05202).
    """

    def __init__(self, hidden_size: int, feed_forward_size: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        width = 2 * feed_forward_size if activation == "swiglu" else feed_forward_size
        self.up = nn.Linear(hidden_size, width, bias=bias)
        self.down = nn.Linear(feed_forward_size, hidden_size, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each position by itself, [B, T, D]."""
        hidden: Tensor = self.up(x_BTD)
        match self.activation:
            case "gelu":
                hidden_BTF = F.gelu(hidden)
            case "relu_squared":
                hidden_BTF = F.relu(hidden).square()
            case "swiglu":
                gate_BTF, value_BTF = hidden.chunk(2, dim=-1)
                hidden_BTF = F.silu(gate_BTF) * value_BTF
        output_BTD: Tensor = self.down(hidden_BTF)
        return output_BTD
