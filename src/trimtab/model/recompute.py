"""Activations that are computed again in the backward pass instead of kept: memory for time, with the same bits."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trimtab.errors import ConfigError
from trimtab.model.dropout import Dropout, LayerDropout

if TYPE_CHECKING:
    from trimtab.model.block import Block

Recompute = Literal["none", "selective", "full"]

_SET: Final[weakref.WeakSet[nn.Module]] = weakref.WeakSet()
"""Models of transformers whose gradient checkpointing was switched on here, and not by whoever built them."""


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
    if any(block.recompute == "full" and block.draws for block in _blocks(model)):
        return "dropout in blocks that are computed again puts the generator's state back, which a graph cannot"
    return None


def ways_to_recompute(model: nn.Module) -> tuple[Recompute, ...]:
    """What `model` can compute again, from least to most."""
    if _blocks(model):
        return "none", "selective", "full"
    return ("none", "full") if _of_transformers(model) is not None else ("none",)


def set_recompute(model: nn.Module, how: Recompute) -> None:
    """Let the layers of `model` compute again what `how` says; before anything is compiled or captured.

    full: whole layers, of which only what they read is kept: about a third more time. selective: what norms and
    activations gave, whose products are kept: hardly more time. Both give the same bits as none. In models of
    transformers whole layers are by its own gradient checkpointing, without reentrance, which puts generators back;
    where whoever built the model switched it on, it stays on.
    Source: selective as in Korthikanti et al. 2022, arXiv 2205.05198, section 5: what is large and cheap; here norms
    and activations, as the scores that they speak of are never written.

    Raises: ConfigError for a model that cannot.
    """
    if how not in (ways := ways_to_recompute(model)):
        raise ConfigError(
            f"training.recompute: {how} is for trimtab's own transformers"
            + (", and full for those of transformers that can" if how == "full" else "")
            + f". Received: {how}, with a model that can: {', '.join(ways)}",
            hint="leave out training.recompute, or wrap the layers of your module in torch.utils.checkpoint",
        )
    for block in _blocks(model):
        block.set_recompute(how)
    module: Any = _of_transformers(model)
    if module is None:
        return
    # All of transformers 5 has it by these names, which newer ones call old.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        if how == "full" and not module.is_gradient_checkpointing:
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            _SET.add(module)
        elif how != "full" and module in _SET:
            module.gradient_checkpointing_disable()
            _SET.discard(module)


def _blocks(model: nn.Module) -> list[Block]:
    from trimtab.model.block import Block

    return [module for module in model.modules() if isinstance(module, Block)]


def _of_transformers(model: nn.Module) -> nn.Module | None:
    """The part of `model` that is a model of transformers which can compute its layers again: it knows how to keep
    them from running twice into one cache."""
    transformers = sys.modules.get("transformers.modeling_utils")
    if transformers is None:
        return None
    found = next((one for one in model.modules() if isinstance(one, transformers.PreTrainedModel)), None)
    return found if found is not None and found.supports_gradient_checkpointing else None
