"""The state of a run, as named host tensors and JSON values."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from trimtab.errors import CheckpointError
from trimtab.events import Controller
from trimtab.model import ForeignModel
from trimtab.runs.files import python_value
from trimtab.training.checkpoint.dtypes import require_known
from trimtab.training.checkpoint.host import HostCopies
from trimtab.training.checkpoint.model_state import load_model, model_tensors
from trimtab.training.progress import Progress
from trimtab.training.step import Step
from trimtab.training.windows import Windows

OWN_AVERAGE: Final = "schedule_free"
"""The kind of the average that an optimizer itself keeps: a schedule-free one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Names: `model/<name>`, `optimizer/<name>/<slot>`, `scaler/<name>`, `scaling/<layer>`, `transform/<name>/<slot>`,
    `probe/<name>/<slot>`, `examination/<name>/<slot>`, `window/<name>`; `average/<kind>/<name>` where
    other weights are judged than are trained, `averaging/<kind>/<name>` for its counts.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    events: Sequence[torch.cuda.Event] = ()
    sources: Sequence[Tensor] = ()
    """What is copied from: temporary ones among them must not be freed before that is done."""

    def wait(self) -> None:
        """Until the tensors are there."""
        for event in self.events:
            event.synchronize()


def take(
    step: Step, windows: Windows, progress: Progress, controllers: Sequence[Controller], copies: HostCopies
) -> Snapshot:
    """The state at this boundary on the host, once `wait` has returned, until `copies` is used again.

    From a GPU it is copied while the next micro-batches are computed; the step's next update waits for it.
    """
    tensors = large_tensors(step)
    if step.optimizer.averages:
        with step.optimizer.evaluation_weights():
            weights = step.optimizer.storage.weights
            tensors.update({f"average/{OWN_AVERAGE}/{name}": t.clone() for name, t in weights.items()})
    if step.average is not None:
        tensors.update({f"average/{step.average.kind}/{name}": t for name, t in step.average.tensors().items()})
        tensors.update({f"averaging/{step.average.kind}/{name}": t for name, t in step.average.counts().items()})
    if step.precision.scaler is not None:
        tensors.update({f"scaler/{name}": t for name, t in step.precision.scaler.state().items()})
    if step.scaling is not None:
        tensors.update({f"scaling/{name}": t for name, t in step.scaling.state().items()})
    for transform in step.transforms:
        state = transform.state_by_name()
        tensors.update({f"transform/{transform.name}/{slot}": tensor for slot, tensor in state.items()})
    for probe in step.remembering:
        tensors.update({f"probe/{probe.name}/{slot}": tensor for slot, tensor in probe.state_by_name().items()})
    for one in step.examinations:
        tensors.update({f"examination/{one.name}/{slot}": tensor for slot, tensor in one.state_by_name().items()})
    window_values, window_tensors = windows.state()
    tensors.update({f"window/{name}": tensor for name, tensor in window_tensors.items()})
    values = {
        "progress": progress.state(),
        "controllers": {controller.name: controller.state() for controller in controllers},
        "windows": window_values,
    }
    require_known(tensors)
    host, events = copies.take(tensors)
    step.updates_after(events)
    snapshot = Snapshot(host, copy.deepcopy(values), events, tuple(tensors.values()) if events else ())
    if isinstance(step.model, ForeignModel) or step.statistics.are_any:
        snapshot.wait()  # buffers may change in a forward pass
    return snapshot


def large_tensors(step: Step) -> dict[str, Tensor]:
    """Weights and the optimizer's state, by their names in a snapshot: nearly all of it."""
    tensors = {f"model/{name}": tensor for name, tensor in _masters(step).items()}
    for name, slots in step.optimizer.state_by_name().items():
        tensors.update({f"optimizer/{name}/{slot}": tensor for slot, tensor in slots.items()})
    return tensors


def restore(
    snapshot: Snapshot,
    step: Step,
    windows: Windows,
    progress: Progress,
    controllers: Sequence[Controller] = (),
) -> None:
    """Put `snapshot` back. Controllers that it does not name keep their state. Raises: CheckpointError."""
    tensors = snapshot.tensors
    step.use_optimizer(int(snapshot.values["progress"].get("optimizer", 0)))
    load_weights(step, tensors)
    optimizer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer").items():
        parameter, _, slot = name.rpartition("/")
        optimizer.setdefault(parameter, {})[slot] = tensor
    try:
        step.optimizer.load_state_by_name(optimizer)
        if step.precision.scaler is not None and (scaler := _under(tensors, "scaler")):
            step.precision.scaler.load_state(scaler)  # none is there after accepted drift to fp16: it begins anew
        if step.scaling is not None:
            step.scaling.load_state(_under(tensors, "scaling"))  # after drift to fp8 it begins anew
        for transform in step.transforms:
            transform.load_state_by_name(_under(tensors, f"transform/{transform.name}"))
        for probe in step.remembering:  # after accepted drift to measuring it, it begins anew
            probe.load_state_by_name(_under(tensors, f"probe/{probe.name}"))
        for one in step.examinations:
            one.load_state_by_name(_under(tensors, f"examination/{one.name}"))
        if step.average is not None:
            # None of this kind is there after accepted drift: it begins anew.
            kind = step.average.kind
            step.average.load(_under(tensors, f"average/{kind}"), _under(tensors, f"averaging/{kind}"))
        windows.load_state(snapshot.values["windows"], _under(tensors, "window"))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not hold what this configuration needs: {error}") from error
    progress.load_state(snapshot.values["progress"])
    for controller in controllers:
        if controller.name in snapshot.values["controllers"]:
            controller.load_state(python_value(snapshot.values["controllers"][controller.name]))


def _masters(step: Step) -> dict[str, Tensor]:
    """What `model_tensors` gives, in fp32 also where the model computes on a narrower copy."""
    return {**model_tensors(step.model), **step.optimizer.storage.weights}


def load_weights(step: Step, tensors: Mapping[str, Tensor]) -> None:
    """Copy `model/<name>` into a run's masters, and these into the model's narrower copy. Raises: CheckpointError."""
    storage = step.optimizer.storage
    load_model(step.model, tensors, storage.weights)
    storage.refresh()
    if step.scaling is not None:
        step.scaling.cast_weights()


def _under(tensors: Mapping[str, Tensor], room: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{room}/"): t for name, t in tensors.items() if name.startswith(f"{room}/")}
