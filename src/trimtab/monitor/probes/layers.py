"""One value a layer: gradient norms, weight norms, scale of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from trimtab.signals import StepSignals


@final
class GradientNorms:
    """2-norm of each parameter's gradient, before clipping. Costs nothing: clipping needs them anyway."""

    only_at_window_end = False

    def __init__(self, parameter_names: Sequence[str]) -> None:
        self.columns = tuple(f"layer/{name}/grad_norm" for name in parameter_names)

    def read(self, signals: StepSignals) -> Tensor:
        """[parameters]."""
        return signals.gradients.norms_P


@final
class ClippedNorms:
    """2-norm of the gradient after clipping; of each parameter, too, where clipping treats them apart.

    Before the noise that is added to it, if any. A few operations on scalars, as clipping has the norms.
    """

    only_at_window_end = False

    def __init__(self, parameter_names: Sequence[str], *, apart: bool) -> None:
        layers = [f"layer/{name}/grad_norm_clipped" for name in parameter_names] if apart else []
        self.columns = ("grad_norm_clipped", *layers)

    def read(self, signals: StepSignals) -> Tensor:
        """[1], or [1 + parameters]."""
        gradients = signals.gradients
        scale = gradients.scale if gradients.unscale is None else gradients.scale / gradients.unscale
        if gradients.clipped_P is None:
            return (gradients.total_norm * scale).unsqueeze(0)
        norms_P = gradients.clipped_P * scale
        total = torch.linalg.vector_norm(norms_P).unsqueeze(0)
        return torch.cat((total, norms_P)) if len(self.columns) > 1 else total


@final
class WeightNorms:
    """2-norm of each parameter after the update, at the end of each window: one pass over the weights."""

    only_at_window_end = True

    def __init__(self, parameter_names: Sequence[str]) -> None:
        self.columns = tuple(f"layer/{name}/weight_norm" for name in parameter_names)

    def read(self, signals: StepSignals) -> Tensor:
        """[parameters]."""
        return torch.stack(torch._foreach_norm(list(signals.weights.values())))


@final
class ActivationScale:
    """Root mean square of each block's output, averaged over the micro-batches; the model gives it."""

    only_at_window_end = False

    def __init__(self, signal_names: Sequence[str]) -> None:
        self.columns = tuple(signal_names)

    def read(self, signals: StepSignals) -> Tensor:
        """[blocks]."""
        return torch.stack([signals.model[name] for name in self.columns])
