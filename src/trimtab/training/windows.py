"""Windows of steps on their way to the host.

Window w is delivered at the end of window w+1, never earlier: by then its copy has arrived, nothing waited for
the device, and a decision falls on the same step in every rerun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from trimtab.events import StepsEnded
from trimtab.runs.metrics import METRICS
from trimtab.signals import PendingRows, Ring


@dataclass(slots=True)
class _Pending:
    first_step: int
    last_step: int
    host: dict[str, list[float]]
    memory_bytes: float
    rows: PendingRows


@final
class Windows:
    """Joins what the step wrote on the device with what the loop measured on the host."""

    def __init__(self, ring: Ring, memory_bytes: Callable[[], float]) -> None:
        self._ring = ring
        self._memory_bytes = memory_bytes
        self._host: dict[str, list[float]] = {}
        self._first_step = 1
        self._pending: _Pending | None = None

    def add(self, values: Mapping[str, float]) -> None:
        """The host's values of a step whose row is in the ring."""
        for name, value in values.items():
            self._host.setdefault(name, []).append(value)

    def close(self, step: int) -> StepsEnded | None:
        """End the window with `step`; gives the window before it."""
        closed = _Pending(self._first_step, step, self._host, self._memory_bytes(), self._ring.take())
        delivered, self._pending = self._pending, closed
        self._host, self._first_step = {}, step + 1
        return None if delivered is None else self._event(delivered)

    def drain(self, step: int) -> list[StepsEnded]:
        """All that is left, at the end of a run."""
        events = []
        if self._first_step <= step and (event := self.close(step)) is not None:
            events.append(event)
        if self._pending is not None:
            events.append(self._event(self._pending))
            self._pending = None
        return events

    def _event(self, window: _Pending) -> StepsEnded:
        rows = window.rows.wait()
        per_step = {name: np.asarray(values) for name, values in window.host.items()}
        layers: dict[str, float] = {}
        for index, name in enumerate(self._ring.columns):
            if name.startswith("layer/"):
                reduction = METRICS[f"layer/<name>/{name.rsplit('/', 1)[-1]}"].window
                layers[name] = float(rows[-1, index] if reduction == "last" else rows[:, index].mean())
            else:
                per_step[name] = rows[:, index]
        seconds = float(per_step["step_seconds"].sum())
        values = {
            "tokens_per_second": float(per_step["tokens"].sum()) / seconds if seconds > 0 else 0.0,
            "memory_bytes": window.memory_bytes,
        }
        return StepsEnded(window.first_step, window.last_step, per_step, values, layers)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """JSON values and host tensors: the open window and the undelivered one. Waits for the device."""
        values: dict[str, Any] = {"first_step": self._first_step, "host": self._host, "pending": None}
        tensors = {"open": self._ring.state()}
        if self._pending is not None:
            values["pending"] = {
                "first_step": self._pending.first_step,
                "last_step": self._pending.last_step,
                "host": self._pending.host,
                "memory_bytes": self._pending.memory_bytes,
            }
            tensors["pending"] = self._pending.rows.tensor()
        return values, tensors

    def load_state(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Become what `state` gave."""
        self._ring.load_state(tensors["open"])
        self._first_step = int(values["first_step"])
        self._host = _floats(values["host"])
        pending = values["pending"]
        self._pending = None
        if pending is not None:
            self._pending = _Pending(
                int(pending["first_step"]),
                int(pending["last_step"]),
                _floats(pending["host"]),
                float(pending["memory_bytes"]),
                PendingRows(tensors["pending"].clone(), None),
            )


def _floats(series: Mapping[str, Sequence[float | str]]) -> dict[str, list[float]]:
    return {name: [float(value) for value in values] for name, values in series.items()}


def columns_of_step(term_names: Sequence[str], scaled: bool) -> tuple[str, ...]:
    """The ring's columns that every step writes, before those of the probes."""
    terms = tuple(f"train/loss/{name}" for name in term_names) if len(term_names) > 1 else ()
    return (
        "train/loss",
        *terms,
        "train/accuracy",
        "grad_norm",
        "skipped",
        *(("loss_scale",) if scaled else ()),
    )


def peak_memory_bytes(device: torch.device) -> Callable[[], float]:
    """Reads the peak allocated on CUDA, or the resident set of this process."""
    if device.type == "cuda":
        return lambda: float(torch.cuda.max_memory_allocated(device))
    import psutil

    process = psutil.Process()
    return lambda: float(process.memory_info().rss)
