"""Examines a model: a forward and a backward pass on a fixed probe batch, which leave no trace.

The probe batch are training samples at even distances, the same in the whole run: the optimizer works on the gradient
of the training objective, so that is what is looked at, and two examinations differ by the weights alone. The pass is
eager and in eval mode, without dropout and with BatchNorm's running statistics, so that neither generators nor buffers
of our models are touched; those of a model from outside are put back. Gradients go into tensors of their own.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from trimtab.events import AlertRaised, ArtifactLogged, Event, ExaminationEnded
from trimtab.model import Outside
from trimtab.model.mode import buffers_kept, evaluating, uncompiled
from trimtab.signals import (
    Batch,
    Examination,
    Examined,
    FollowingExamination,
    ModelOutput,
    Readings,
    Task,
    key,
    seeded,
)

NEWEST: Final = 4


@final
class Examiner:
    """Makes all of `examinations` at once; one that raises is left out from then on, and said so.

    `weights` gives the fp32 weights by name, as they are; `scale` the factor that keeps the gradients of fp16 in its
    range.
    """

    def __init__(
        self,
        examinations: Sequence[Examination],
        *,
        model: nn.Module,
        task: Task,
        batch: Batch,
        weights: Callable[[], Mapping[str, Tensor]],
        autocast: Callable[[], AbstractContextManager[Any]],
        scale: Callable[[], Tensor | None],
        is_due: Callable[[int], bool],
        batch_of: Callable[[Sequence[int]], Batch],
        text: Callable[[Sequence[int]], str],
        seed: int,
        newest_at_once: int = 0,
        left: Callable[[], Tensor | None] = lambda: None,
    ) -> None:
        """`newest_at_once` is how many samples of the newest step are judged in one pass, at least as many as the probe
        batch has; `left` gives the norm of what gradients hold."""
        self.examinations = list(examinations)
        self._model, self._task, self._batch = model, task, batch
        self._weights, self._autocast, self._scale = weights, autocast, scale
        self._is_due, self._batch_of, self._text, self._left = is_due, batch_of, text, left
        self.samples_of: Callable[[int], Sequence[int]] = lambda step: ()
        """Which samples a step was trained on."""
        self._newest_at_once = max(newest_at_once, len(batch.sample_ids_B))
        self._randomness = key(seed, 0, 0, "probe")
        self._is_begun, self._seconds_before = False, 0.0
        self._left_over: Tensor | None = None
        self._alerts: list[AlertRaised] = []

    @property
    def following(self) -> tuple[FollowingExamination, ...]:
        """Those that remember something, which checkpoints keep."""
        return tuple(one for one in self.examinations if isinstance(one, FollowingExamination))

    def before(self, step: int) -> float:
        """Step number `step` is about to run. The seconds that took; where there is something to do the device is
        waited for, so that they are its own. They are part of what the examination tells that it took."""
        is_first, self._is_begun = not self._is_begun, True
        is_due = self._is_due(step)
        if not self.following or not (is_first or is_due):
            return 0.0
        self._wait()
        begun = time.perf_counter()
        if is_first:
            self._tell_all(step, lambda one, weights: one.begin(step - 1, weights))
        if is_due:
            self._tell_all(step, lambda one, weights: one.before(weights))
        self._wait()
        seconds = time.perf_counter() - begun
        self._seconds_before += seconds
        return seconds

    def begun(self, step: int) -> None:
        """Step number `step` has cleared the gradients of the one before; what is left of them is read on the device,
        and fetched with the rest."""
        self._left_over = self._left() if self._is_due(step) else None

    def _wait(self) -> None:
        if (device := self._batch.tokens_BT.device).type == "cuda":
            torch.cuda.synchronize(device)

    def __call__(self, step: int) -> list[Event]:
        """What the model shows after `step` updates, and what went wrong; waits for the device."""
        begun = time.perf_counter()
        readings: Readings | None = None
        if self.examinations:
            try:
                readings = self._examine(step, self.examinations)
            except Exception as error:
                readings = self._one_by_one(step, error)
        alerts, self._alerts = self._alerts, []
        if readings is None:
            return list(alerts)
        left, self._left_over = self._left_over, None
        if left is not None:
            readings.metrics["probe/grad_left"] = left
        metrics, layers = _fetched(readings.metrics, readings.layers)
        seconds, self._seconds_before = time.perf_counter() - begun + self._seconds_before, 0.0
        ended = ExaminationEnded(step, metrics, seconds, layers, readings.histograms, tuple(readings.samples))
        texts = [ArtifactLogged(step, "text", name, text) for name, text in readings.texts.items()]
        return [*alerts, ended, *texts]

    def _examine(self, step: int, examinations: Sequence[Examination]) -> Readings:
        """One pass. What an examination raises while it reads leaves it out; what the pass raises is raised."""
        readings = Readings()
        with _untouched(self._model, self._randomness, self._batch.tokens_BT.device):
            with ExitStack() as attached:  # in this pass alone, not in those of the newest samples
                for one in examinations:
                    attached.enter_context(one.attach(self._model))
                examined = self._pass(step)
            with torch.no_grad():
                for one in examinations:
                    try:
                        readings.take(one.read(examined))
                    except Exception as error:
                        self._leave_out(one, step, error)
        return readings

    def _one_by_one(self, step: int, error: Exception) -> Readings | None:
        """The pass failed with all of them: what is left when each whose own pass fails, too, is left out."""
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
        found: list[Readings] = []
        for one in list(self.examinations):
            try:
                found.append(self._examine(step, [one]))
            except Exception as own:
                self._leave_out(one, step, own)
        if not found:
            return None
        readings = Readings()
        for other in found:
            readings.take(other)
        return readings

    def _leave_out(self, one: Examination, step: int, error: Exception) -> None:
        text = f"the examination {one.name!r} failed and is left out from here on ({type(error).__name__}: {error})"[
            :500
        ]
        self.examinations.remove(one)
        warnings.warn(text, stacklevel=2)
        self._alerts.append(AlertRaised(step, "examination_failed", text, {"examination": one.name}))

    def _tell_all(self, step: int, tell: Callable[[FollowingExamination, Mapping[str, Tensor]], None]) -> None:
        if following := self.following:
            weights = self._ordered_weights()
            for one in following:
                try:
                    with torch.no_grad():
                        tell(one, weights)
                except Exception as error:
                    self._leave_out(one, step, error)

    def _ordered_weights(self) -> dict[str, Tensor]:
        """In the order of the model, whatever groups an optimizer makes."""
        weights = self._weights()
        return {name: weights[name] for name, _ in self._model.named_parameters() if name in weights}

    def _newest(self, step: int) -> Iterator[tuple[Batch, Tensor]]:
        """Up to `NEWEST` times as many samples of the newest step as the probe batch has, in few batches."""
        samples = list(self.samples_of(step))[: NEWEST * len(self._batch.sample_ids_B)]
        size = self._newest_at_once
        for start in range(0, len(samples), size):
            batch = self._batch_of(samples[start : start + size]).to(self._batch.tokens_BT.device)
            with torch.no_grad(), self._autocast():
                output = self._model(**self._task.inputs(batch))
                yield batch, self._task.terms(output, batch).losses

    def _pass(self, step: int) -> Examined:
        batch, weights = self._batch, self._ordered_weights()
        parameters = {name: p for name, p in self._model.named_parameters() if name in weights}
        with torch.enable_grad():
            with self._autocast():
                output = self._model(**self._task.inputs(batch))
                terms = self._task.terms(output, batch)
            counts = {"target": max(1, batch.count), "sequence": batch.tokens_BT.shape[0]}
            loss = torch.zeros((), device=batch.tokens_BT.device)
            for term in terms.terms:
                loss = loss + term.sum / counts[term.unit] * term.weight
            scale = self._scale()
            found = torch.autograd.grad(
                loss if scale is None else loss * scale, list(parameters.values()), allow_unused=True
            )
        gradients = _widened(parameters, found, scale)
        return Examined(
            step=step,
            model=self._model,
            task=self._task,
            batch=batch,
            output=_detached(output),
            losses=terms.losses,
            loss=loss.detach(),
            gradients=gradients,
            weights=weights,
            newest=partial(self._newest, step),
            text=self._text,
        )


def _widened(
    parameters: Mapping[str, Tensor], found: Sequence[Tensor | None], scale: Tensor | None
) -> dict[str, Tensor]:
    """Gradients by name, fp32 and without their scale; zeros where there is none."""
    gradients: list[Tensor] = []
    narrow: list[Tensor] = []
    widened: list[Tensor] = []
    for parameter, gradient in zip(parameters.values(), found, strict=True):
        if gradient is None:
            gradients.append(torch.zeros_like(parameter, dtype=torch.float32))
        elif gradient.dtype == torch.float32:
            gradients.append(gradient.detach())
        else:
            narrow.append(gradient.detach())
            widened.append(torch.empty_like(parameter, dtype=torch.float32))
            gradients.append(widened[-1])
    with torch.no_grad():
        if narrow:
            torch._foreach_copy_(widened, narrow)  # in few kernels
        if scale is not None and gradients:
            gradients = list(torch._foreach_div(gradients, scale))
    return dict(zip(parameters, gradients, strict=True))


def _detached(output: ModelOutput | Tensor) -> ModelOutput | Tensor:
    if isinstance(output, ModelOutput):
        return ModelOutput(output.features.detach(), output.head, output.signals)
    return output.detach()


@contextmanager
def _untouched(model: nn.Module, randomness: int, device: torch.device) -> Iterator[None]:
    """Inside, `model` is in eval mode and as written; then modes, generators and a foreign model's buffers are back."""
    with ExitStack() as stack:
        if isinstance(model, Outside):
            stack.enter_context(buffers_kept(model))
        if device.type == "cuda":
            stack.enter_context(torch.random.fork_rng(devices=[device]))
        stack.enter_context(seeded(randomness))
        stack.enter_context(uncompiled())
        stack.enter_context(evaluating(model))
        yield


def _fetched(*groups: Mapping[str, Tensor | float]) -> list[dict[str, float]]:
    """The values of all groups on the host, in one copy."""
    tensors = [value for group in groups for value in group.values() if isinstance(value, Tensor)]
    by_dtype: dict[torch.dtype, list[int]] = {}
    for index, tensor in enumerate(tensors):
        by_dtype.setdefault(tensor.dtype, []).append(index)
    found = [0.0] * len(tensors)
    if tensors:  # one conversion of many values, not one each
        parts = [torch.stack([tensors[index] for index in indices]).double() for indices in by_dtype.values()]
        places = (index for indices in by_dtype.values() for index in indices)
        for index, value in zip(places, torch.cat(parts).tolist(), strict=True):
            found[index] = value
    host = iter(found)
    return [
        {name: next(host) if isinstance(value, Tensor) else float(value) for name, value in group.items()}
        for group in groups
    ]
