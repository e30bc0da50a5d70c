"""A model whose layers are computed again in the backward pass, for a loop of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import nn

from trimtab.errors import UsageError
from trimtab.model.recompute import again, set_recompute, ways_to_recompute
from trimtab.model.structure import layers_of


@final
class MemoryEfficientLLM(nn.Module):
    """Around `model`: of each layer only what it reads is kept, and backward computes the rest again.

    About a third more time, the same bits; generators draw the same again. Layers of a module from outside are found as
    `layers_of` finds them. In a run it is `training.recompute=full`. The weights are those of `model`, under `model.`.
    Source: Chen et al. 2016, arXiv 1604.06174.

    Raises: UsageError for a module in which no layers are found.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        layers = layers_of(model)
        if not layers:
            raise UsageError(
                f"no layers were found to compute again. Received: {type(model).__name__}",
                hint="a list (nn.ModuleList) of modules of one class, each made of modules, is taken for layers",
            )
        if "full" in ways_to_recompute(model):
            set_recompute(model, "full")
        else:
            for layer in layers.values():
                layer.forward = _kept_by_its_inputs(layer.forward)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What `model` gives."""
        return self.model(*inputs, **named)


def _kept_by_its_inputs(forward: Callable[..., Any]) -> Callable[..., Any]:
    def computed_again(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return again(lambda *kept: forward(*kept, **named), *inputs, draws=True)

    return computed_again
