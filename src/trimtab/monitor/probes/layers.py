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
