"""The feed-forward block: wider, an activation, back.

Shape suffixes: B sequences · T positions · D hidden size · F feed-forward size.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.model.cublaslt import library, linear_gelu, linear_gelu_gradient
from trimtab.model.fp8 import Fp8Linear
from trimtab.model.recompute import product

_TWICE: Final = 2.0 * math.sqrt(2.0 / math.pi)

Activation = Literal["gelu", "gelu_tanh", "swiglu", "relu_squared"]


@final
class FeedForward(nn.Module):
    """down(activation(up(x))).

    gelu: x Φ(x), exact (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    gelu_tanh: its approximation by tanh, which is in GPT-2's own code. It differs by less than 5e-4, takes twice the
    time on CPUs, and on CUDA in 16 bits nearly none: with `fuses` it is a part of the products.
    relu_squared: max(x, 0)² (So et al. 2021, arXiv 2109.08668).
    swiglu: silu(gate) * value, where `up` gives both, the gate first (Shazeer 2020, arXiv 2002.05202).
    """

    def __init__(self, hidden_size: int, feed_forward_size: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.fuses = False
        """Whether gelu_tanh may be computed within the products (`can_fuse` says where)."""
        width = 2 * feed_forward_size if activation == "swiglu" else feed_forward_size
        self.recomputes = False
        """Whether what the activation gives is computed again in backward instead of kept."""
        self.up = nn.Linear(hidden_size, width, bias=bias)
        self.down = nn.Linear(feed_forward_size, hidden_size, bias=bias)

    def forward(self, x_BTD: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Each position by itself, [B, T, D]; `norm`, if given, comes first."""
        if self.fuses and not self.recomputes and self.can_fuse(x_BTD):
            x_BTD = x_BTD if norm is None else norm(x_BTD)
            fused_BTD: Tensor = _Fused.apply(x_BTD, self.up.weight, self.up.bias, self.down.weight)  # type: ignore[no-untyped-call]
            return fused_BTD if self.down.bias is None else fused_BTD + self.down.bias
        hidden = self.up(x_BTD) if norm is None else product(norm, self.up, x_BTD, recomputes=self.recomputes)
        return product(self._activate, self.down, hidden, recomputes=self.recomputes)

    def _activate(self, hidden: Tensor) -> Tensor:
        """What `up` gave, [B, T, F] or with swiglu [B, T, 2 F], to [B, T, F]."""
        match self.activation:
            case "gelu":
                return F.gelu(hidden)
            case "gelu_tanh":
                # In one kernel with the cast that follows, tanh itself takes longer than memory does.
                in_one_kernel = isinstance(self.up, Fp8Linear) and torch.compiler.is_compiling()
                return gelu_by_sigmoid(hidden) if in_one_kernel else F.gelu(hidden, approximate="tanh")
            case "relu_squared":
                return F.relu(hidden).square()
            case "swiglu":
                gate_BTF, value_BTF = hidden.chunk(2, dim=-1)
                return F.silu(gate_BTF) * value_BTF

    def can_fuse(self, x_BTD: Tensor) -> bool:
        """Whether the product up can apply the activation: plain layers in 16 bits on CUDA, not under autocast."""
        weight, width = self.up.weight, self.up.weight.shape
        return (
            self.activation == "gelu_tanh"
            and type(self.up) is nn.Linear
            and type(self.down) is nn.Linear
            and x_BTD.is_cuda
            and x_BTD.dtype == weight.dtype
            and weight.dtype in (torch.bfloat16, torch.float16)
            and width[0] % 8 == width[1] % 8 == 0
            and not torch.is_autocast_enabled("cuda")
        )


def gelu_by_sigmoid(x: Tensor) -> Tensor:
    """gelu_tanh, written as x σ(2u) for x (1 + tanh u) / 2; in fp32 inside."""
    wide = x.float()
    return (wide * torch.sigmoid(wide * (_TWICE + _TWICE * 0.044715 * wide.square()))).type_as(x)


class _Fused(torch.autograd.Function):
    """down(gelu(up(x))) without the bias of down; GELU and its derivative are computed in the products' own kernels.

    The activation is kept for backward beside its argument: making it anew would take what is gained.
    """

    @staticmethod
    def forward(context: Any, x_BTD: Tensor, up_FD: Tensor, bias_F: Tensor | None, down_DF: Tensor) -> Tensor:
        x_ND = x_BTD.flatten(0, -2).contiguous()
        hidden_NF, argument_NF = linear_gelu(x_ND, up_FD, bias_F)
        context.save_for_backward(x_ND, up_FD, down_DF, hidden_NF, argument_NF)
        context.has_bias = bias_F is not None
        output_ND: Tensor = hidden_NF @ down_DF.t()
        return output_ND.view(x_BTD.shape)

    @staticmethod
    def backward(context: Any, upstream_BTD: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, up_FD, down_DF, hidden_NF, argument_NF = context.saved_tensors
        upstream_ND = upstream_BTD.flatten(0, -2).contiguous()
        argument_gradient_NF = linear_gelu_gradient(upstream_ND, down_DF, argument_NF)
        down_gradient = upstream_ND.t() @ hidden_NF
        up_gradient = argument_gradient_NF.t() @ x_ND
        bias_gradient = argument_gradient_NF.sum(0, dtype=torch.float32).to(up_FD.dtype) if context.has_bias else None
        x_gradient = (argument_gradient_NF @ up_FD).view(upstream_BTD.shape)
        return x_gradient, up_gradient, bias_gradient, down_gradient


def fuses_activation(model: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Let the feed-forward blocks of `model` compute gelu_tanh within their products; gives why not, if not."""
    blocks = [module for module in model.modules() if isinstance(module, FeedForward)]
    if not any(block.activation == "gelu_tanh" for block in blocks):
        return "only gelu_tanh can be"
    if any(block.recomputes for block in blocks):
        return "training.recompute selective computes the activation again"
    if any(type(block.up) is not nn.Linear for block in blocks):
        return "not with layers that compute in fp8 or rounded"
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "only with weights of 16 bits on CUDA"
    if library() is None:
        return "torch's cuBLASLt was not found"
    for block in blocks:
        block.fuses = True
    return None
