"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from trimtab.optimizer.contract import Rehearsal
from trimtab.optimizer.parameter_groups import ParameterGroup
from trimtab.optimizer.storage import FlatStorage
from trimtab.signals import Gradients

try:  # Triton comes with torch's CUDA builds alone.
    from trimtab.optimizer.algorithms import adamw_kernel as _kernel
except ImportError:
    _kernel = None  # type: ignore[assignment]


@final
class AdamW:
    """theta <- theta - a * m_hat / (sqrt(v_hat) + eps) - a * l * theta, with bias-corrected moments.

    Works on flat storage, in one pass a group; on CUDA that is one kernel, which leaves the model's
    bf16 copy, too. A skipped step leaves weights, moments and the count of applied updates as they were.
    Source: Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2 (the decay is
    multiplied with the learning rate, as in torch).
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        *,
        beta1: float = 0.9,
        beta2: float = 0.95,
        epsilon: float = 1e-8,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.groups = tuple(groups)
        self.storage = FlatStorage(groups, compute_dtype)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self._momentum = torch.zeros_like(self.storage.flat_weight)
        self._square = torch.zeros_like(self.storage.flat_weight)
        self._applied = torch.zeros((), dtype=torch.float32, device=self.storage.flat_weight.device)

    @torch.no_grad()
    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """One update with the rates in `settings`, and the factor `weight_decay` on each group's own."""
        self._applied.add_(1.0 - gradients.skip)
        if self.storage.flat_weight.device.type == "cpu":
            run = self._update_on_host
        else:
            run = self._update_with_torch if _kernel is None else self._update_with_kernel
        for group, (start, end) in zip(self.groups, self.storage.group_spans, strict=True):
            run(group, slice(start, end), gradients, settings)
        if run != self._update_with_kernel:
            self.storage.refresh()

    def _update_on_host(
        self, group: ParameterGroup, span: slice, gradients: Gradients, settings: Mapping[str, Tensor]
    ) -> None:
        """torch's fused kernel; reading a scalar costs nothing on a CPU."""
        adamw(
            [self.storage.flat_weight[span]],
            [self.storage.flat_gradient[span].float()],
            [self._momentum[span]],
            [self._square[span]],
            [],
            # torch counts this step itself, and takes it back when it is skipped.
            [self._applied - (1.0 - gradients.skip)],
            fused=True,
            grad_scale=1.0 / gradients.scale,
            found_inf=gradients.skip,
            amsgrad=False,
            beta1=self.beta1,
            beta2=self.beta2,
            lr=group.rate * float(settings[group.rate_setting]),
            weight_decay=group.weight_decay * float(settings["weight_decay"]),
            eps=self.epsilon,
            maximize=False,
        )

    def _update_with_kernel(
        self, group: ParameterGroup, span: slice, gradients: Gradients, settings: Mapping[str, Tensor]
    ) -> None:
        """Everything in one pass over memory, from device scalars alone."""
        storage = self.storage
        _kernel.update(
            storage.flat_weight[span],
            storage.flat_compute[span] if storage.narrow else None,
            storage.flat_gradient[span],
            self._momentum[span],
            self._square[span],
            learning_rate=settings[group.rate_setting],
            decay_factor=settings["weight_decay"],
            scale=gradients.scale,
            skip=gradients.skip,
            applied=self._applied,
            weight_decay=group.weight_decay,
            rate_factor=group.rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
        )

    def _update_with_torch(
        self, group: ParameterGroup, span: slice, gradients: Gradients, settings: Mapping[str, Tensor]
    ) -> None:
        """The same from device scalars alone: nothing waits, and a graph can replay it."""
        weight, momentum, square = self.storage.flat_weight[span], self._momentum[span], self._square[span]
        applies = gradients.skip == 0
        # A gradient that is not finite must not reach the moments, not even multiplied by zero.
        gradient = torch.where(applies, self.storage.flat_gradient[span].float() * gradients.scale, 0.0)
        rate = torch.where(applies, settings[group.rate_setting] * group.rate, 0.0)
        keep1 = torch.where(applies, 1.0 - self.beta1, 0.0)
        keep2 = torch.where(applies, 1.0 - self.beta2, 0.0)
        momentum.lerp_(gradient, keep1)
        square.lerp_(gradient.square(), keep2)
        # A first step that is skipped has no applied update yet: its correction is never used, only kept finite.
        count = self._applied.clamp_min(1.0)
        correction1 = 1.0 - torch.pow(self.beta1, count)
        correction2 = 1.0 - torch.pow(self.beta2, count)
        weight.mul_(1.0 - rate * group.weight_decay * settings["weight_decay"])
        denominator = (square / correction2).sqrt_().add_(self.epsilon)
        weight.sub_(rate / correction1 * momentum / denominator)

    def rehearsal(self) -> AbstractContextManager[Rehearsal]:
        """Nothing is left to rehearse: an update that is skipped takes as much as any."""
        return nullcontext(lambda gradients, settings: None)

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """`exp_avg` and `exp_avg_sq` of each parameter, and the count of applied updates under ''."""
        momentum, square = self.storage.views(self._momentum), self.storage.views(self._square)
        state = {name: {"exp_avg": momentum[name], "exp_avg_sq": square[name]} for name in momentum}
        return {"": {"applied": self._applied}, **state}

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy `state` in, by name. Raises: KeyError for a name or slot that is missing."""
        for name, slots in self.state_by_name().items():
            for slot, tensor in slots.items():
                tensor.copy_(state[name][slot])

    averages = False
    curvature = None

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds the weights to be judged: AdamW's are those it trains."""
        return nullcontext()
