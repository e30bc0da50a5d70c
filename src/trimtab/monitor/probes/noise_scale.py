"""How far the gradients of micro-batches scatter: the batch size from which on more samples gain little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from trimtab.signals import StepSignals


@final
class GradientNoiseScale:
    """The simple noise scale tr(Σ) / |G|², in sequences, from the gradients that the micro-batches of a step add.

    Σ is the covariance of one sequence's gradient, G the mean gradient. With k micro-batches of b sequences, g_i what
    micro-batch i adds to the whole, small = mean |k g_i|² and big = |Σ g_i|²:

        signal |G|² = (k big - small) / (k - 1)        noise tr(Σ) = (small - big) k b / (k - 1)

    Both are unbiased, for Gradients of the mean over all targets of the step; their ratio is not, so each has its own
    running mean: of all measurements at first, then with a weight of 1 / `memory` for the newest. The covariance of
    the two gives the relative standard error of the ratio, to first order.

    A measured step takes four passes over the gradients for each micro-batch, and the probe holds one copy of them.
    Nothing waits for the device; a step that is skipped, or not finite, is not remembered.

    Source: McCandlish et al. 2018, arXiv 1812.06162, appendix A.1. There the two batches are those of one and of all
    workers; the error is own.
    """

    name = "gradient_noise_scale"
    columns = ("gradient_noise_scale", "gradient_noise_error", "gradient_noise", "gradient_signal", "batch_size")
    only_at_window_end = True

    def __init__(self, every: int, memory: int, device: torch.device) -> None:
        """Measures every `every` steps."""
        self.every, self.memory = every, memory
        self._before: list[Tensor] = []
        self._squares = torch.zeros((), device=device)
        self._seen = torch.zeros(3, device=device)  # noise, signal, batch
        self._is_new = torch.zeros((), device=device)
        self._slots = {
            "count": torch.zeros((), device=device),
            "means": torch.zeros(2, device=device),
            "covariance": torch.zeros(2, 2, device=device),
            "batch": torch.zeros((), device=device),
        }

    def measures(self, step: int) -> bool:
        """Every `every` steps."""
        return step % self.every == 0

    @torch.no_grad()
    def part(self, gradients: Mapping[str, Tensor], *, first: bool) -> None:
        """Add the squared norm of what this micro-batch brought: the sums now less the sums before."""
        now = list(gradients.values())
        if first:
            self._before = self._before or [torch.zeros_like(gradient) for gradient in now]
            torch._foreach_zero_(self._before)
            self._squares.zero_()
        torch._foreach_neg_(self._before)
        torch._foreach_add_(self._before, now)
        self._squares += torch.stack(torch._foreach_norm(self._before)).square().sum()
        torch._foreach_copy_(self._before, now)

    @torch.no_grad()
    def whole(self, gradients: Mapping[str, Tensor], parts: int, sequences: int, unscale: Tensor) -> None:
        """Estimate noise and signal of this step."""
        big = torch.stack(torch._foreach_norm(list(gradients.values()))).square().sum() * unscale.square()
        small = self._squares * unscale.square() * parts
        noise = (small - big) * (sequences / (parts - 1))
        signal = (parts * big - small) / (parts - 1)
        torch.stack([noise, signal, torch.full_like(noise, sequences)], out=self._seen)
        self._is_new.fill_(1.0)

    def settle(self, skip: Tensor) -> None:
        """Take the step into the running means."""
        count, means, covariance, batch = self._slots.values()
        taken = self._is_new * (1.0 - skip) * torch.isfinite(self._seen).all()
        weight = taken / (count + 1.0).clamp(max=float(self.memory))
        difference = torch.where(taken > 0, self._seen[:2] - means, 0.0)
        means.add_(weight * difference)
        covariance.copy_((1.0 - weight) * (covariance + weight * torch.outer(difference, difference)))
        batch.copy_(torch.where(taken > 0, self._seen[2], batch))
        count.add_(taken).clamp_(max=float(self.memory))
        self._is_new.zero_()

    def read(self, signals: StepSignals) -> Tensor:
        """[5], in the order of `columns`; not a number where nothing was measured, or the signal is not above 0."""
        count, means, covariance, batch = self._slots.values()
        noise, signal = means.unbind()
        # The gradient of log(noise / signal), for the error of the ratio relative to itself.
        relative = torch.stack([1.0 / noise, -1.0 / signal])
        error = (relative @ covariance @ relative / (count - 1.0)).sqrt()
        ratio = torch.stack([noise / signal, error])
        values = torch.cat([torch.where(signal > 0, ratio, torch.nan), means, batch[None]])
        return torch.where(count > 0, values, torch.nan)

    def follow(self, gradients: Mapping[str, Tensor]) -> None:
        """Others are summed now, in another order; the running means stay."""
        self._before = []

    def state_by_name(self) -> dict[str, Tensor]:
        """Measurements remembered, running means of noise and signal, their covariance, and the batch measured."""
        return dict(self._slots)

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says; empty: as new."""
        for slot, tensor in self._slots.items():
            tensor.copy_(state[slot]) if state else tensor.zero_()
