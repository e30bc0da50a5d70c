"""What is measured of another trainer's steps: kept on the device until a window ends, so that no step waits for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, final

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from trimtab.events import CheckpointSaved, EvaluationEnded, Event, StepsEnded
from trimtab.integrations.measuring import norms
from trimtab.integrations.recording import Recording

EVERY: Final = 10
"""Steps in a window."""


@dataclass(slots=True)
class _Steps:
    """The steps of the window that is going on."""

    losses: list[list[Tensor]] = field(default_factory=list)
    """Of each step the parts that its loss is the sum or the mean of."""
    averaged: list[bool] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


@final
class Watch:
    """Gathers windows of steps and writes them."""

    def __init__(self, recording: Recording, model: nn.Module, *, every: int, layers: bool, exact_times: bool) -> None:
        """`exact_times`: the trainer waits for the device in each step anyway, so that its clock is the device's."""
        self.recording = recording
        self.every = every
        self.step = recording.started.step
        self.unverified: list[Event] | None = None
        """What was written, as long as it may have to be taken back."""
        self.time_split = {"training": 0.0, "data": 0.0, "evaluation": 0.0, "checkpoint": 0.0}
        self._exact_times = exact_times
        self._device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        plain = all(type(parameter) in (nn.Parameter, Tensor) for _, parameter in named)
        self._names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self._measures_layers = layers and plain and bool(named)
        self._steps = _Steps()
        self._parts: list[Tensor] = []
        self._rate: float | None = None
        self._waited = 0.0
        self._mark = self._mark_of_step = time.perf_counter()
        self._values: dict[str, float] = {}
        self._gradients: Tensor | None = None
        self._weights: Tensor | None = None
        self._clipped_at: float | None = None
        self.is_due = False
        self._since_asked: list[float] = []
        self._device_is_behind: torch.cuda.Event | None = None

    def data_came(self) -> None:
        """A batch is there: the time since it was asked for, or since the step before, was waiting for it."""
        if self.is_due:
            self.close()
        now = time.perf_counter()
        behind = self._device_is_behind
        # While the device still works, nothing waits for the data.
        if behind is None or behind.query():  # type: ignore[no-untyped-call]
            self._waited += now - self._mark
        self._device_is_behind = None

    def loss(self, part: Tensor) -> None:
        """The loss of a micro-batch."""
        if part.numel() == 1:
            self._parts.append(part.detach().reshape(()))

    def before_update(self, optimizer: Any, clipped_at: float | None) -> None:
        """Gradients are whole. `clipped_at`: they were clipped to this norm already."""
        groups = getattr(optimizer, "param_groups", None)
        rate = groups[0].get("lr") if groups else None
        self._rate = float(rate) if isinstance(rate, int | float) else None
        if self._measures_layers and self._ends_window(self.step + 1):
            self._gradients = norms([parameter.grad for parameter in self._parameters], self._device)
            self._clipped_at = clipped_at

    def step_ended(self, *, closes: bool = False, averaged: bool = False) -> None:
        """The update was made. `closes`: the window ends here in any case; `averaged`: of the parts of its loss."""
        now = time.perf_counter()
        self.step += 1
        steps = self._steps
        steps.losses.append(self._parts)
        steps.averaged.append(averaged)
        steps.rates.append(float("nan") if self._rate is None else self._rate)
        steps.seconds.append(now - self._mark_of_step)
        steps.waits.append(self._waited)
        self._parts, self._rate, self._waited = [], None, 0.0
        ends = self._ends_window(self.step)
        if ends and self._measures_layers:
            self._weights = norms(self._parameters, self._device)
        self.is_due = ends or closes
        self.paused()

    def asks_for_data(self) -> None:
        """From here on the loop waits for a batch."""
        self._mark = time.perf_counter()

    def paused(self, cause: str | None = None) -> None:
        """Something that belongs to no step is over: logging, or what `cause` names in the split of the time."""
        now = time.perf_counter()
        if cause is not None:
            self.time_split[cause] += now - self._mark
        self._mark = self._mark_of_step = now
        if self._device.type == "cuda" and not self._exact_times:
            self._device_is_behind = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._device_is_behind.record()

    def value(self, name: str, number: float) -> None:
        """A value of the window that is going on."""
        self._values[name] = number

    def close(self) -> None:
        """Write the window, which waits for the device."""
        self.is_due = False
        steps, self._steps = self._steps, _Steps()
        values, self._values = self._values, {}
        gradients, self._gradients = self._gradients, None
        weights, self._weights = self._weights, None
        num = len(steps.seconds)
        if not num:
            self._values = values
            return
        per_step: dict[str, np.ndarray[Any, Any]] = {}
        losses = _losses(steps)
        if losses is not None:
            per_step["train/loss"] = losses
            self._since_asked += losses.tolist()
        rates = np.array(steps.rates)
        if np.isfinite(rates).all():
            per_step["learning_rate"] = rates
        seconds, waits = np.array(steps.seconds), np.array(steps.waits)
        if not self._exact_times and self._device.type == "cuda":
            seconds = np.full(num, seconds.sum() / num)  # the host runs ahead: only their sum is the device's
        per_step |= {"step_seconds": seconds, "data_seconds": waits}
        self.time_split["data"] += float(waits.sum())
        self.time_split["training"] += float(seconds.sum() - waits.sum())
        layers = self._layers(gradients, weights, values)
        values["memory_bytes"] = _memory_bytes(self._device)
        self.write(StepsEnded(self.step - num + 1, self.step, per_step, values, layers))

    def take_losses(self) -> list[float]:
        """Close the window; the losses of the steps since this was last asked, as far as they were measured."""
        self.close()
        taken, self._since_asked = self._since_asked, []
        return taken

    def take_losses_back(self, mean: float) -> None:
        """Write all that is not verified again, in a new branch and with `mean` in place of the steps' losses."""
        written, self.unverified = self.unverified, None
        if not written:
            return
        self.recording.begin_again()
        for event in written:
            if isinstance(event, StepsEnded):
                per_step = {name: series for name, series in event.per_step.items() if name != "train/loss"}
                values = dict(event.values) | ({"train/loss": mean} if event.last_step == self.step else {})
                event = replace(event, per_step=per_step, values=values)
            self.recording.record(event)

    def evaluated(self, metrics: Mapping[str, float], seconds: float) -> None:
        """A round of evaluation is over."""
        self.close()
        self.paused("evaluation")
        self.write(EvaluationEnded(self.step, metrics, seconds))

    def saved(self, path: str, num_bytes: int) -> None:
        """A checkpoint of the trainer's own is on the disk."""
        self.close()
        seconds = time.perf_counter() - self._mark
        self.paused("checkpoint")
        self.write(CheckpointSaved(self.step, path, num_bytes, seconds, "the trainer's own"))

    def write(self, event: Event) -> None:
        """Write an event, and keep it as long as it may have to be taken back."""
        if self.unverified is not None:
            self.unverified.append(event)
        self.recording.record(event)

    def _ends_window(self, step: int) -> bool:
        return step % self.every == 0 or step <= self.recording.started.step + 1

    def _layers(self, gradients: Tensor | None, weights: Tensor | None, values: dict[str, float]) -> dict[str, float]:
        layers: dict[str, float] = {}
        if gradients is not None:
            norms = np.array(gradients.tolist())
            total = float(np.sqrt((norms**2).sum()))
            before = values.get("grad_norm")
            factor: float | None = 1.0
            if self._clipped_at is not None and not total < 0.999 * self._clipped_at:
                factor = before / total if before is not None and total > 0 else None
            if factor is not None:
                layers = dict(zip((f"layer/{name}/grad_norm" for name in self._names), norms * factor, strict=True))
                values.setdefault("grad_norm", total * factor)
        if weights is not None:
            layers |= zip((f"layer/{name}/weight_norm" for name in self._names), weights.tolist(), strict=True)
        return layers


def _losses(steps: _Steps) -> np.ndarray[Any, Any] | None:
    """The loss of each step, with one copy from the device; None when one was not seen."""
    parts = [part for step in steps.losses for part in step]
    if not parts or not all(steps.losses):
        return None
    numbers = iter(torch.stack([part.float() for part in parts]).tolist())
    sums = [[next(numbers) for _ in step] for step in steps.losses]
    return np.array(
        [sum(step) / (len(step) if mean else 1) for step, mean in zip(sums, steps.averaged, strict=True)], np.float64
    )


def _memory_bytes(device: torch.device) -> float:
    """The peak on CUDA; the resident set elsewhere."""
    if device.type != "cuda":
        return float(psutil.Process().memory_info().rss)
    return float(torch.cuda.max_memory_allocated(device))
