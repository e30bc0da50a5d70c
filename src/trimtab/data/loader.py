"""Micro-batches, prepared ahead of time in a thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from trimtab.data.order import DataPlan, Order, Positions
from trimtab.data.sequences import Sequences
from trimtab.data.workers import Workers
from trimtab.errors import ResourceError, TrimtabError
from trimtab.signals import Batch

Augment = Callable[[Batch, Positions], Batch]
"""A micro-batch and the places of its rows in the stream -> the micro-batch as it is trained on."""


@dataclass(frozen=True, slots=True)
class Window:
    """The micro-batches of one update."""

    batches: list[Batch]
    next_position: int
    """Where the stream goes on: what is prepared ahead does not count."""
    seconds_waited: float
    """Time that `take` stood still because a batch was not ready."""


@final
class Loader:
    """Takes sequences in their order and makes micro-batches of them.

    What it gives depends on nothing but the order, the plan and the position it was started at.
    """

    def __init__(
        self,
        sequences: Sequences,
        order: Order,
        micro_batch_size: int,
        *,
        prefetch: int,
        pin_memory: bool = False,
        augment: Augment | None = None,
        workers: int = 0,
    ) -> None:
        """Keeps up to `prefetch` micro-batches ready, each changed by `augment`; with `workers` so many processes make
        them, else the thread does."""
        self._sequences = sequences
        self._order = order
        self._micro_batch_size = micro_batch_size
        self._prefetch = max(1, prefetch)
        self._pin_memory, self._augment, self._workers = pin_memory, augment, workers
        self._producer: _Producer | None = None

    def start(self, position: int, plan: DataPlan) -> None:
        """Begin at `position` of the stream, without what `plan` leaves out; what was prepared is dropped."""
        self.close()
        self._producer = _Producer(
            self._sequences,
            self._order,
            plan,
            position,
            self._micro_batch_size,
            self._prefetch,
            self._pin_memory,
            self._augment,
            self._workers,
        )

    def resize(self, micro_batch_size: int) -> None:
        """Make micro-batches of another size, from the next `start` on."""
        self._micro_batch_size = micro_batch_size

    def take(self, num_micro_batches: int) -> Window:
        """The next micro-batches; waits until they are ready.

        Raises:
            ResourceError: the thread failed, for the reason in its cause, or memory ran out in it (a TrimtabError is
                raised as it is).
        """
        if self._producer is None:
            raise RuntimeError("start the loader before taking from it")
        began = time.perf_counter()
        prepared = [self._producer.take() for _ in range(num_micro_batches)]
        waited = time.perf_counter() - began
        return Window([batch for batch, _ in prepared], prepared[-1][1], waited)

    def close(self) -> None:
        """End the thread; may be called at any time, and again."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None


@final
class _Producer:
    """One thread that goes through the stream once, from one position on."""

    def __init__(
        self,
        sequences: Sequences,
        order: Order,
        plan: DataPlan,
        position: int,
        micro_batch_size: int,
        capacity: int,
        pin_memory: bool,
        augment: Augment | None,
        workers: int,
    ) -> None:
        self._sequences = sequences
        self._order = order
        self._plan = plan
        self._position = position
        self._micro_batch_size = micro_batch_size
        self._capacity = capacity
        self._pin_memory, self._augment = pin_memory, augment
        self._workers = Workers(workers, sequences, augment) if workers else None
        self._ahead: deque[int] = deque()
        """Where the stream goes on after each batch that workers were asked for."""
        self._ready: deque[tuple[Batch, int]] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="trimtab-data", daemon=True)
        self._thread.start()

    def take(self) -> tuple[Batch, int]:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error is not None or self._closed)
            if self._closed:
                raise RuntimeError("the loader was closed while a batch was waited for")
            if self._ready:
                prepared = self._ready.popleft()
                self._changed.notify_all()
                return prepared
            error = self._error
        if isinstance(error, TrimtabError):
            raise error
        if isinstance(error, MemoryError):
            raise ResourceError(
                f"out of memory while a micro-batch of {self._micro_batch_size} sequences was prepared, up to position "
                f"{self._position:,}",
                hint=f"lower data.prefetch (up to {self._capacity} micro-batches are kept ready), "
                "training.micro_batch_size or data.sequence_length",
            ) from error
        raise ResourceError(f"the thread that prepares data failed: {error!r}") from error

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._workers is not None:
            self._workers.close()  # so that the thread waits for none
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or len(self._ready) < self._capacity)
                    if self._closed:
                        return
                prepared = self._next()
                with self._changed:
                    self._ready.append(prepared)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> tuple[Batch, int]:
        if self._workers is not None:
            return self._of_workers(self._workers)
        positions, self._position = self._order.advance(self._position, self._micro_batch_size, self._plan)
        batch = self._sequences.batch(self._order.sequences_at(positions), None, positions)
        if self._augment is not None:
            batch = self._augment(batch, positions)
        return (batch.pin_memory() if self._pin_memory else batch), self._position

    def _of_workers(self, workers: Workers) -> tuple[Batch, int]:
        while not workers.is_full:
            positions, self._position = self._order.advance(self._position, self._micro_batch_size, self._plan)
            self._ahead.append(self._position)
            workers.ask(self._order.sequences_at(positions), positions)
        batch = workers.take()
        return (batch.pin_memory() if self._pin_memory else batch), self._ahead.popleft()
