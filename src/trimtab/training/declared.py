"""A module that declares itself capturable, held to it: the step as a graph beside the step as written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.model import ForeignModel
from trimtab.signals import Batch
from trimtab.training.capture import held

if TYPE_CHECKING:
    from trimtab.training.step import Step

_TOLERANCE: Final = 0.01
"""Of the gradient's norm: kernels add up in an order that differs from call to call, in bf16 too."""
_HINT: Final = (
    "what is captured keeps nothing in Python between calls, draws from torch alone, and looks at no value on the "
    "host; leave out `capturable`, or set training.capture=off"
)


@contextmanager
def captured_as_declared(step: Step, captures: bool) -> Iterator[None]:
    """Within it a step is captured. Raises: ConfigError where the model, which says that it can be, cannot."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not (captures and isinstance(step.model, ForeignModel)):
            raise
        # A capture that failed leaves the generator waiting for its end, and nothing could be drawn any more.
        index = step.device.index or 0
        fresh = torch.Generator(step.device).graphsafe_get_state()
        torch.cuda.default_generators[index].graphsafe_set_state(fresh)
        told = str(error).splitlines()[0]
        raise ConfigError(
            f"model: {step.model.kind} declares itself capturable, and cannot be captured: {told}"[:400], hint=_HINT
        ) from error


def require_as_declared(step: Step, batch: Batch) -> None:
    """Compare micro-batches of the captured step with the same ones as written; all is left as it was.

    Nothing of models that are ours, or where nothing is captured. Waits for the device, and takes the memory of one
    more gradient.
    Raises: ConfigError where loss or gradients differ.
    """
    captured = step.captured
    if captured is None or not isinstance(step.model, ForeignModel):
        return
    other = batch.each(lambda tensor: tensor.flip(0))
    batches = [one.to(step.device) for one in (batch, other, batch)]
    kept = held(step)
    # As of a whole step, so that loss and gradient have the sizes of one.
    step.set(
        share=0.5 if captured.in_parts else 1.0,
        inverse_targets=1.0 / max(1, batch.count),
        inverse_sequences=1.0 / batch.tokens_BT.shape[0],
    )
    try:
        with torch.random.fork_rng(devices=[step.device]):
            for number, one in enumerate(batches):
                replayed = _found(step, one, number, captured.accumulate)
                replayed = {what: [value.clone() for value in values] for what, values in replayed.items()}
                _put_back(kept)
                written = _found(step, one, number, step.accumulate_program)
                _require_near(replayed, written, step.model, number + 1)
                _put_back(kept)
    finally:
        _put_back(kept)
        step.begin(in_parts=captured.in_parts)


def _found(step: Step, batch: Batch, number: int, run: Callable[[Batch], None]) -> dict[str, list[Tensor]]:
    """What one micro-batch leaves, under a randomness of its own: the step's own tensors."""
    assert step.captured is not None
    step.begin(in_parts=step.captured.in_parts)
    step.passes.at(0, number)
    run(batch)
    return {
        "the loss": [step.settings["loss"].detach()],
        "the gradient": list(step.optimizer.storage.gradients.values()),
        "what the buffers hold": list(step.model.buffers()),
    }


def _require_near(
    replayed: Mapping[str, list[Tensor]], written: Mapping[str, list[Tensor]], model: ForeignModel, number: int
) -> None:
    for what, expected in written.items():
        pairs = list(zip(replayed[what], expected, strict=True))
        # What is equal differs by nothing, the minus infinities of a mask, too, and these have no size.
        distance = _size([torch.where(one == other, 0.0, one.float() - other.float()) for one, other in pairs])
        size = _size([torch.where(other.isinf(), 0.0, other.float()) for _, other in pairs])
        if not distance <= _TOLERANCE * size:  # what is no number differs, too
            raise ConfigError(
                f"model: {model.kind} declares itself capturable, and its captured step is another than the one as "
                f"written: in micro-batch {number} {what} differs by {distance / max(size, 1e-30):.0%}",
                hint=_HINT,
            )


def _size(tensors: list[Tensor]) -> float:
    """Their norm, all together."""
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm()) if tensors else 0.0


def _put_back(kept: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for tensor, before in kept:
            tensor.copy_(before)
