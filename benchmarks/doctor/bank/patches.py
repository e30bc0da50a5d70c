"""Faults that no setting can plant: bugs put into trimtab's own parts, in a process that ends with the run."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from bank import clock
from trimtab.events import Event, RunStarted, StepsEnded

if TYPE_CHECKING:
    from torch import Tensor, nn

Patch = Callable[[], None]
"""Changes trimtab in this process."""


@final
class KilledOnce:
    """Kills the process of the first attempt, without a warning, after some step."""

    def __init__(self, step: int) -> None:
        self.step, self.attempt = step, 0

    def observe(self, event: Event) -> None:
        """Kill, if it is time."""
        if isinstance(event, RunStarted):
            self.attempt = event.attempt
        if isinstance(event, StepsEnded) and self.attempt == 1 and event.last_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def model_changed(change: Callable[[nn.Module], None]) -> Patch:
    """The model of the configuration, changed before it is trained."""

    def patch() -> None:
        import trimtab.assembly as assembly

        build: Any = assembly.build_model

        def changed(*arguments: Any, **named: Any) -> nn.Module:
            model: nn.Module = build(*arguments, **named)
            change(model)
            return model

        assembly.build_model = changed  # type: ignore[assignment]

    return patch


def before_step(act: Callable[[Any, list[Any], int], list[Any]]) -> Patch:
    """`act` is given the step, its micro-batches and its number before it runs, and gives the micro-batches back."""

    def patch() -> None:
        from trimtab.training import Step

        run = Step.run

        def running(self: Any, batches: Sequence[Any], step: int, **named: Any) -> None:
            run(self, act(self, list(batches), step), step, **named)

        Step.run = running  # type: ignore[method-assign, assignment]

    return patch


def around_update(
    before: Callable[[Any, int], Any] = lambda step, number: None,
    after: Callable[[Any, int, Any], None] = lambda step, number, kept: None,
) -> Patch:
    """`before` may change the gradients of a step, and `after`, given what `before` gave, its weights."""

    def patch() -> None:
        from trimtab.training import Step

        run, update = Step.run, Step.update_program

        def running(self: Any, batches: Any, step: int, **named: Any) -> None:
            self.number_of_bank = step
            run(self, batches, step, **named)

        def updating(self: Any, ends_window: bool) -> None:
            kept = before(self, self.number_of_bank)
            update(self, ends_window)
            after(self, self.number_of_bank, kept)

        Step.run, Step.update_program = running, updating  # type: ignore[method-assign, assignment]

    return patch


def weights_of(step: Any) -> list[Tensor]:
    """The tensors that an update changes."""
    return [weight.detach() for weight in step.optimizer.storage.weights.values()]


def gradients_of(step: Any) -> list[Tensor]:
    """What the backward passes of a step left."""
    return list(step.optimizer.storage.gradients.values())


def gradients_kept(every: int) -> Patch:
    """Gradients are cleared before each `every`-th step alone; 0: never."""

    def patch() -> None:
        from trimtab.optimizer.storage import FlatStorage

        clear, turn = FlatStorage.zero_gradients, itertools.count()

        def cleared(self: Any, *, in_parts: bool = False) -> None:
            number = next(turn)
            if number == 0 or (every and number % every == 0):
                clear(self, in_parts=in_parts)

        FlatStorage.zero_gradients = cleared  # type: ignore[method-assign]

    return patch


def losses_summed(parts: int) -> Patch:
    """The loss of each micro-batch is a mean of its own, and `parts` of them are summed."""

    def patch() -> None:
        from trimtab.training import Step

        put = Step.set

        def putting(self: Any, **settings: float) -> None:
            for name in ("inverse_targets", "inverse_sequences"):
                if name in settings:
                    settings[name] *= parts
            put(self, **settings)

        Step.set = putting  # type: ignore[method-assign]

    return patch


def evaluates_in_training_mode() -> None:
    """Dropout stays on in evaluations."""
    import torch

    import trimtab.evaluation.language as language
    import trimtab.evaluation.perplexity as perplexity

    @contextlib.contextmanager
    def training(model: nn.Module) -> Iterator[None]:
        with torch.no_grad():
            yield

    perplexity.evaluating = language.evaluating = training  # type: ignore[assignment]


def schedule_runs(factor: float) -> Patch:
    """The schedule counts `factor` steps for each, as one does that is moved on in every micro-batch."""

    def patch() -> None:
        import trimtab.assembly as assembly

        build: Any = assembly.build_schedule

        def built(*arguments: Any, **named: Any) -> Any:
            return _Hurried(build(*arguments, **named), factor)

        assembly.build_schedule = built

    return patch


@final
class _Hurried:
    """A schedule at `factor` times the step."""

    def __init__(self, schedule: Any, factor: float) -> None:
        self.schedule, self.times = schedule, factor

    def factor(self, step: int) -> float:
        """Of the learning rate."""
        found: float = self.schedule.factor(max(1, round(step * self.times)))
        return found


def reading_waits(seconds: Callable[[int], float]) -> Patch:
    """The loop waits `seconds(n)` for window number n, however busy the machine is that the bank is made on."""

    def patch() -> None:
        from trimtab.data import Loader

        take, turn = Loader.take, itertools.count(1)

        def late(self: Any, num_micro_batches: int) -> Any:
            duration = seconds(next(turn))
            clock.wait(duration)
            window = take(self, num_micro_batches)
            return replace(window, seconds_waited=window.seconds_waited + duration)

        Loader.take = late  # type: ignore[method-assign]

    return patch


def after_resuming(act: Callable[[Any], None]) -> Patch:
    """`act` is given the step when a checkpoint was restored."""

    def patch() -> None:
        from trimtab.training import Keeper

        resume = Keeper.resume

        def resuming(self: Any) -> int | None:
            found = resume(self)
            if found is not None:
                act(self._step)
            return found

        Keeper.resume = resuming  # type: ignore[method-assign]

    return patch


def memory_kept(num_bytes: int) -> Patch:
    """So many bytes are kept in every step, and never given back."""
    kept: list[np.ndarray[Any, Any]] = []

    def keep(step: Any, batches: list[Any], number: int) -> list[Any]:
        kept.append(np.ones(num_bytes, dtype=np.uint8))
        return batches

    return before_step(keep)


def batch_replaced(at: int, draw: Callable[[Any], Any]) -> Patch:
    """The micro-batches of step `at` are put through `draw`."""
    return before_step(lambda step, batches, number: [draw(one) for one in batches] if number == at else batches)
