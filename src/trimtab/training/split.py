"""Where the time of a step goes: its parts, taken by clock on a processor, by events on CUDA, in some steps alone.

A mark says which part begins. On CUDA nothing waits for it: the events are read when their window is told, by when the
device has passed them, and what they measure is the device's own time, waiting for the host included. A captured
program is one launch and cannot be looked into: its parts are `accumulate` and `update`, each with all that is in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import final

import torch
from torch.profiler import record_function

from trimtab.runs.trace import MARK
from trimtab.signals import Batch

Values = Callable[[], Mapping[str, float]]
"""Those of a window, to be read once the device has passed its end."""


@final
class StepTimer:
    """Marks set by the step, and what the window they fall in makes of them.

    Gives `time/<part>_seconds`, the mean over the steps of the window that were split; `time/logging_seconds`, the mean
    over all of its steps; and for each of `per_position` a rate: so much for each position of a batch, a second.
    """

    def __init__(self, device: torch.device, every: int = 0) -> None:
        """`every`: steps between those that are split; 0: none is."""
        self.every = every
        self.per_position: Mapping[str, float] = {}
        self.annotates = False
        """Whether every mark opens a range of the profiler, in place of being measured."""
        self._on_device = device.type == "cuda"
        self._device = device
        self._open = False
        self._range: record_function | None = None
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self._split: list[Sequence[tuple[str, float | torch.cuda.Event]]] = []
        self._spent: dict[str, float] = {}
        self._positions = self._steps = self._begun = 0

    def begin(self, step: int, batches: Sequence[Batch]) -> None:
        """Step number `step` begins, on `batches`."""
        self._begun = sum(batch.tokens_BT.numel() for batch in batches)
        self._open = self.annotates or (self.every > 0 and step % self.every == 0)
        self._marks = []

    def mark(self, part: str) -> None:
        """`part` begins, and what was under way ends; "" when nothing follows."""
        if not self._open:
            return
        if self.annotates:
            self._annotate(part)
        elif self._on_device:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append((part, event))
        else:
            self._marks.append((part, time.perf_counter()))

    def end(self) -> None:
        """The step is over."""
        self.mark("")
        self._positions += self._begun
        self._steps += 1
        if self._marks:
            self._split.append(self._marks)
        self._open, self._marks = False, []

    def abandon(self) -> None:
        """The step failed: nothing of it is told."""
        self._annotate("")
        self._open, self._marks = False, []

    def spend(self, part: str, seconds: float) -> None:
        """Book time of the host that lies between steps."""
        self._spent[part] = self._spent.get(part, 0.0) + seconds

    def close(self, num_steps: int, seconds: float, tokens: float) -> Values:
        """The values of a window that ends, of so many steps in so many seconds."""
        split, spent = self._split, self._spent
        # After a resume in mid-window some of its steps were run by another process.
        positions = self._positions if self._steps == num_steps else 0
        values = {f"time/{part}_seconds": total / max(1, num_steps) for part, total in spent.items()}
        if positions and seconds > 0:
            values |= {name: each * positions / seconds for name, each in self.per_position.items()}
        self._split, self._spent, self._positions, self._steps = [], {}, 0, 0
        return lambda: values | _means(split)

    def _annotate(self, part: str) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
        if part:
            self._range = record_function(f"{MARK}{part}")
            self._range.__enter__()  # type: ignore[no-untyped-call]


def _means(steps: Sequence[Sequence[tuple[str, float | torch.cuda.Event]]]) -> dict[str, float]:
    """Seconds of each part, of a mean step. Waits for events that the device has not passed."""
    totals: dict[str, float] = {}
    for marks in steps:
        for (part, begun), (_, ended) in pairwise(marks):
            totals[part] = totals.get(part, 0.0) + _between(begun, ended)
    return {f"time/{part}_seconds": total / len(steps) for part, total in totals.items()}


def _between(begun: float | torch.cuda.Event, ended: float | torch.cuda.Event) -> float:
    if isinstance(begun, float) and isinstance(ended, float):
        return ended - begun
    assert isinstance(begun, torch.cuda.Event)
    assert isinstance(ended, torch.cuda.Event)
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / 1e3
