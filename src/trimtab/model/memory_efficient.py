"""A model whose layers are computed again in the backward pass, for a loop of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, final

import torch
from torch import nn

from trimtab.errors import UsageError
from trimtab.model.block import Block
from trimtab.model.recompute import again, set_recompute
from trimtab.model.structure import layers_of
from trimtab.model.wrap import is_hugging_face


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
        if any(isinstance(layer, Block) for layer in layers.values()):
            set_recompute(model, "full")
        elif is_hugging_face(model):
            # Its layers must not run twice into one cache of keys and values: transformers knows how. All of
            # transformers 5 has it by this name, which newer ones call old.
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
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
