"""Activations that are computed again in the backward pass instead of kept: memory for time, with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trimtab.errors import ConfigError
from trimtab.model.dropout import Dropout, LayerDropout

Recompute = Literal["none", "selective", "full"]


def again(function: Callable[..., Any], *inputs: Any, draws: bool) -> Any:
    """What `function` gives, of which only `inputs` are kept: the backward pass calls it once more.

    It stops as soon as it has what it needs, so that a product at the end of `function` is not computed again. With
    `draws` the state of torch's generators is put back for that, which a CUDA graph cannot do.
    Source: Chen et al. 2016, arXiv 1604.06174; torch.utils.checkpoint without reentrance.
    """
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=draws)


def product(before: Callable[[Tensor], Tensor], linear: nn.Module, x: Tensor, *, recomputes: bool) -> Tensor:
    """linear(before(x)); with `recomputes` what is between them is not kept. `before` must draw nothing."""
    if not (recomputes and torch.is_grad_enabled()):
        y: Tensor = linear(before(x))
        return y
    recomputed: Tensor = again(lambda kept: linear(before(kept)), x, draws=False)
    return recomputed


def draws(module: nn.Module) -> bool:
    """Whether `module` draws random numbers in training."""
    return any(isinstance(one, Dropout | LayerDropout) and one.drops for one in module.modules())


def refuses_capture(model: nn.Module) -> str | None:
    """Why a step of `model` cannot be a CUDA graph, if that is for what it computes again; None where it can."""
    from trimtab.model.block import Block

    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if any(block.recompute == "full" and block.draws for block in blocks):
        return "dropout in blocks that are computed again puts the generator's state back, which a graph cannot"
    return None


def set_recompute(model: nn.Module, how: Recompute) -> None:
    """Let the blocks of `model` compute again what `how` says; before anything is compiled or captured.

    full: whole blocks, of which only what they read is kept: about a third more time. selective: what norms and
    activations gave, whose products are kept: hardly more time. Both give the same bits as none.
    Source: selective as in Korthikanti et al. 2022, arXiv 2205.05198, section 5: what is large and cheap; here norms
    and activations, as the scores that they speak of are never written.

    Raises: ConfigError for a model that is not built of trimtab's blocks.
    """
    from trimtab.model.block import Block

    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if how != "none" and not blocks:
        raise ConfigError(
            f"training.recompute: is for trimtab's own models. Received: {how}, with a model from outside",
            hint="leave out training.recompute, or wrap the layers of your module in torch.utils.checkpoint",
        )
    for block in blocks:
        block.set_recompute(how)
