"""Windows of steps on their way to the host.

Window w is delivered at the end of window w+1, and no earlier: by then its copy has arrived, nothing waited for
the device, and a decision falls on the same step in every rerun. Where an evaluation follows, which waits for the
device anyway, all are delivered before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from trimtab.events import StepsEnded
from trimtab.runs.metrics import METRICS
from trimtab.signals import Batch, PendingRows, Ring
from trimtab.training.contracts import Gauge
from trimtab.training.tokens_read import counts_of


@dataclass(slots=True)
class _Closed:
    """A window on its way, with the columns that the ring had when it was written."""

    first_step: int
    last_step: int
    host: dict[str, list[float]]
    memory_bytes: float
    rows: PendingRows
    columns: tuple[str, ...]
    whole: bool
    """False when it ended before its time: then what is read at a window's end alone was not read."""
    measured: Sequence[Callable[[], Mapping[str, float]]] = ()
    """By gauges; read when the window's rows have arrived."""

    def gauged(self) -> dict[str, float]:
        """What the gauges measured, by name. Waits for the device where it is late."""
        return {name: value for measured in self.measured for name, value in measured().items()}


@final
class Windows:
    """Joins what the step wrote on the device with what the loop measured on the host."""

    def __init__(self, ring: Ring, memory_bytes: Callable[[], float], *, tells_read: bool = False) -> None:
        """With `tells_read` the tokens that are read are told beside the targets that are counted."""
        self._ring, self._tells_read = ring, tells_read
        self._memory_bytes = memory_bytes
        self._host: dict[str, list[float]] = {}
        self._first_step = 1
        self._closed: list[_Closed] = []
        self.gauges: Sequence[Gauge] = ()
        """What else is measured of each window."""

    def counts_of(self, batches: Sequence[Batch]) -> dict[str, float]:
        """What `add` is to be told of a step's micro-batches."""
        return counts_of(batches, tells_read=self._tells_read)

    def add(self, values: Mapping[str, float]) -> None:
        """The host's values of a step whose row is in the ring."""
        for name, value in values.items():
            self._host.setdefault(name, []).append(value)

    def close(self, step: int, *, waits: bool = False) -> list[StepsEnded]:
        """End the window with `step`; gives those before it (one, or none, or two after accepted drift), and with
        `waits` this one, too."""
        before, self._closed = self._closed, []
        self._end(step, self._ring.take(), self._ring.columns, whole=True)
        if waits:
            before, self._closed = [*before, *self._closed], []
        return [self._event(window) for window in before]

    def drain(self, step: int) -> list[StepsEnded]:
        """All that is left, at the end of a run."""
        if self._first_step <= step:
            self._end(step, self._ring.take(), self._ring.columns, whole=False)
        left, self._closed = self._closed, []
        return [self._event(window) for window in left]

    def _end(self, step: int, rows: PendingRows, columns: tuple[str, ...], *, whole: bool) -> None:
        num_steps, host = step - self._first_step + 1, self._host
        seconds, tokens = (sum(host.get(name, ())) for name in ("step_seconds", "tokens"))
        measured = [gauge.close(num_steps, seconds, tokens) for gauge in self.gauges]
        window = _Closed(self._first_step, step, host, self._memory_bytes(), rows, columns, whole, measured)
        self._closed.append(window)
        self._host, self._first_step = {}, step + 1

    def _event(self, window: _Closed) -> StepsEnded:
        rows = window.rows.wait()
        steps = len(window.host.get("tokens", ()))
        per_step = {
            name: np.asarray(values)
            for name, values in window.host.items()
            # Shorter where an older version began the window, which did not measure it.
            if not _kept_last(name) and len(values) == steps
        }
        layers: dict[str, float] = {}
        reduced: dict[str, float] = {}
        for index, name in enumerate(window.columns):
            if name in METRICS and METRICS[name].window == "last":
                if window.whole and np.isfinite(rows[-1, index]):
                    reduced[name] = float(rows[-1, index])
            elif name in METRICS and METRICS[name].window == "mean":
                if (finite := np.isfinite(rows[:, index])).any():
                    reduced[name] = float(rows[finite, index].mean())
            elif not name.startswith("layer/"):
                per_step[name] = rows[:, index]
            elif METRICS[f"layer/<name>/{name.rsplit('/', 1)[-1]}"].window != "last":
                layers[name] = float(rows[:, index].mean())
            elif window.whole:
                layers[name] = float(rows[-1, index])
        seconds = float(per_step["step_seconds"].sum())
        read = per_step.get("tokens_read", per_step["tokens"])
        values = {
            "tokens_per_second": float(read.sum()) / seconds if seconds > 0 else 0.0,
            "memory_bytes": window.memory_bytes,
            **window.gauged(),
            **{name: values[-1] for name, values in window.host.items() if _kept_last(name)},
            **reduced,
        }
        return StepsEnded(window.first_step, window.last_step, per_step, values, layers)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """JSON values and host tensors: the open window and the undelivered ones. Waits for the device."""
        values: dict[str, Any] = {
            "first_step": self._first_step,
            "host": self._host,
            "columns": list(self._ring.columns),
            "capacity": self._ring.capacity,
            "closed": [
                {
                    "first_step": window.first_step,
                    "last_step": window.last_step,
                    "host": window.host,
                    "memory_bytes": window.memory_bytes,
                    "columns": list(window.columns),
                    "whole": window.whole,
                    "gauged": window.gauged(),
                }
                for window in self._closed
            ],
        }
        tensors = {f"closed-{index}": window.rows.tensor() for index, window in enumerate(self._closed)}
        return values, {"open": self._ring.state(), **tensors}

    def load_state(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Become what `state` gave.

        An open window of another shape, after accepted drift of what is logged, ends where it stands, and is
        delivered with its own columns.
        """
        self._closed = [
            _Closed(
                int(window["first_step"]),
                int(window["last_step"]),
                _floats(window["host"]),
                float(window["memory_bytes"]),
                PendingRows(tensors[f"closed-{index}"].clone(), None),
                tuple(window["columns"]),
                bool(window["whole"]),
                [partial(_numbers, window.get("gauged", {}))],
            )
            for index, window in enumerate(values["closed"])
        ]
        self._first_step, self._host = int(values["first_step"]), _floats(values["host"])
        rows, columns = tensors["open"], tuple(values["columns"])
        if (columns, values["capacity"]) == (self._ring.columns, self._ring.capacity):
            self._ring.load_state(rows)
            return
        self._ring.load_state(rows.new_empty(0, self._ring.rows.shape[1]))
        if len(rows):
            self._end(self._first_step + len(rows) - 1, PendingRows(rows.clone(), None), columns, whole=False)


def _floats(series: Mapping[str, Sequence[float | str]]) -> dict[str, list[float]]:
    return {name: [float(value) for value in values] for name, values in series.items()}


def _numbers(values: Mapping[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _kept_last(name: str) -> bool:
    """Whether the value of a window's last step stands for the window."""
    return name.startswith("group/")


def columns_of_step(
    term_names: Sequence[str], scaled: bool, score_names: Sequence[str] = ("accuracy",)
) -> tuple[str, ...]:
    """The ring's columns that every step writes, before those of the probes."""
    terms = tuple(f"train/loss/{name}" for name in term_names) if len(term_names) > 1 else ()
    return (
        "train/loss",
        *terms,
        *(f"train/{name}" for name in score_names),
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
