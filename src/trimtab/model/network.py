"""What small networks share: a norm and an activation after a product, and weights at step 0."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.model.batch_norm import BatchNorm


@final
class Normalized(nn.Module):
    """A norm, where there is one, and the activation after it: [..., C] -> [..., C]."""

    def __init__(
        self, num_channels: int, *, activation: Literal["relu", "gelu"], momentum: float | None, epsilon: float
    ) -> None:
        """`momentum`: of BatchNorm; None: there is no norm."""
        super().__init__()
        self.norm = None if momentum is None else BatchNorm(num_channels, momentum=momentum, epsilon=epsilon)
        self.activation = activation

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """`real` says which places are no padding."""
        if self.norm is not None:
            x = self.norm(x, real)
        return F.relu(x) if self.activation == "relu" else F.gelu(x)


@torch.no_grad()
def init_network(model: nn.Module, head: nn.Module, *, standard_deviation: float, seed: int) -> None:
    """Layers normal with variance 2 / inputs, `head` 1 / inputs, embeddings with `standard_deviation`; biases 0.

    The same seed gives the same weights on every device; torch's generators stay untouched.
    Source: He et al. 2015, arXiv 1502.01852, equation 10; for the head, which no ReLU follows, LeCun et al. 1998.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.copy_(torch.empty(module.weight.shape).normal_(0.0, standard_deviation, generator=generator))
        elif isinstance(module, nn.Linear | nn.Conv1d):
            inputs = module.weight[0].numel()
            deviation = math.sqrt((1.0 if module is head else 2.0) / inputs)
            module.weight.copy_(torch.empty(module.weight.shape).normal_(0.0, deviation, generator=generator))
            if module.bias is not None:
                module.bias.zero_()


def texts_of(document_ids_BT: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Which positions [B, T] are no padding, and which rows [B] hold a text; None where all are and do."""
    if document_ids_BT is None:
        return None, None
    real_BT = document_ids_BT >= 0
    return real_BT, real_BT.any(1)
