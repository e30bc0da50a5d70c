"""Mixed precision for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from trimtab.config import Bf16, Fp16, Fp32
from trimtab.config.training import AutoPrecision
from trimtab.objective import logits_of
from trimtab.objective.cross_entropy import wide
from trimtab.signals import IGNORED
from trimtab.training.accumulate import Pair, summed_cross_entropy, windows
from trimtab.training.precision import Precision

_CONFIGS: Mapping[str, type[AutoPrecision | Bf16 | Fp16 | Fp32]] = {
    "auto": AutoPrecision,
    "bf16": Bf16,
    "fp16": Fp16,
    "fp32": Fp32,
}


@final
class MixedPrecisionTrainer:
    """Updates of a model with any of torch's optimizers, its forward passes in bf16 or fp16 over weights in fp32.

    `precision` auto is bf16 where the device has instructions for it, else fp32; fp16 scales the loss, dynamically.
    An update may have several micro-batches: its gradient is that of the loss summed over all of them by all their
    counted targets (not -100), unscaled before its norm is clipped to `max_norm`. An update whose gradient is not
    finite is left out. `loss_function` gives a sum over counted targets.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto",
        loss_function: Callable[[Tensor, Tensor], Tensor] = summed_cross_entropy,
        max_norm: float | None = 1.0,
        initial_scale: float = 2.0**16,
    ) -> None:
        """Raises: ValueError for an unknown precision, or weights that are not in fp32 or fp64."""
        if precision not in _CONFIGS:
            raise ValueError(f"precision must be one of {', '.join(_CONFIGS)}. Received: {precision!r}")
        narrow = next((n for n, p in model.named_parameters() if p.dtype in (torch.float16, torch.bfloat16)), None)
        if narrow is not None:
            raise ValueError(f"weights must be in fp32, which small updates need: {narrow} is not. Call model.float()")
        self.model, self.optimizer, self.max_norm = model, optimizer, max_norm
        self.device = next(model.parameters()).device
        self._loss_function = loss_function
        self._precision = Precision(_CONFIGS[precision](), self.device)
        scales = self._precision.name == "fp16"
        self._scaler = torch.amp.GradScaler(self.device.type, init_scale=initial_scale, enabled=scales)

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16: what auto came to."""
        return self._precision.name

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied with before the backward pass; 1 but for fp16."""
        return float(self._scaler.get_scale())

    def train_step(self, *batches: Pair) -> Tensor:
        """One update from micro-batches of (inputs, targets); gives the mean loss per counted target, on the device.

        Waits for the device, to see whether the gradient is finite. Without a counted target nothing is updated, and
        the loss is 0. Raises: ValueError without batches.
        """
        if not batches:
            raise ValueError("train_step needs at least one batch of (inputs, targets)")
        self.model.train()
        total = torch.zeros((), device=self.device)
        count = sum(int((targets != IGNORED).sum()) for _, targets in batches)
        if count == 0:
            return total
        self.optimizer.zero_grad()
        for inputs, targets in batches:
            with self._precision.autocast():
                logits = logits_of(self.model(inputs.to(self.device)))
            # Losses are sums over many targets: in fp32, whatever the model gives.
            loss = self._loss_function(wide(logits), targets.to(self.device)) / count
            torch.autograd.backward(self._scaler.scale(loss))
            total += loss.detach()
        self._scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.max_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        if self._scaler.is_enabled() or bool(norm.isfinite()):
            self._scaler.step(self.optimizer)
        self._scaler.update()
        return total

    def train_epoch(self, dataloader: Iterable[Pair], *, accumulation_steps: int = 1) -> list[float]:
        """One pass, an update for every `accumulation_steps` batches and one for those left; the loss of each."""
        return [float(self.train_step(*window)) for window in windows(dataloader, accumulation_steps)]

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs beside the data's place: weights, optimizer, loss scale, random generators."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": {"cpu": torch.get_rng_state()},
        }
        if self.device.type == "cuda":
            state["random"]["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises: ValueError where it was made with a loss scale and there is none now, or not."""
        if bool(state["scaler"]) != self._scaler.is_enabled():
            made = "with" if state["scaler"] else "without"
            raise ValueError(f"the state was made {made} a loss scale, and precision is {self.precision}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
