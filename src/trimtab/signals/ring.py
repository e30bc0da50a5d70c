"""The device ring: rows of named fp32 values, one row a step, copied to the host a window at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from trimtab.events import FloatArray


@dataclass(slots=True)
class PendingRows:
    """Rows on their way to the host."""

    _host: Tensor
    _arrived: torch.cuda.Event | None

    def wait(self) -> FloatArray:
        """The rows, [steps, columns]; waits for the copy if it is late."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._host.numpy().astype(np.float64)

    def tensor(self) -> Tensor:
        """The rows as a host tensor; waits for the copy if it is late."""
        self.wait()
        return self._host


@final
class Ring:
    """As many rows as a window has steps. Writing and taking never wait for the device."""

    def __init__(self, columns: Sequence[str], capacity: int, device: torch.device) -> None:
        if len(set(columns)) != len(columns):
            raise ValueError("columns of the ring must be distinct")
        self.columns = tuple(columns)
        self.capacity = capacity
        self.rows = torch.zeros(capacity, max(1, len(columns)), dtype=torch.float32, device=device)
        # The cursor lives on the device, so that a captured program can be replayed for every row.
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self._written = 0

    def write(self, values: Sequence[Tensor]) -> None:
        """Add a row on the device; the concatenation of `values` has one value for each column.

        The host does not see it: whoever runs, or replays, the program that writes calls `count_row` for each row.
        """
        row = torch.cat([value.detach().reshape(-1).float() for value in values])
        self.rows.index_copy_(0, self.cursor, row[None])
        self.cursor.add_(1)

    def count_row(self) -> None:
        """Note on the host that a row was written."""
        self._written += 1

    def take(self) -> PendingRows:
        """Start copying the rows written since the last call, and begin anew."""
        rows = self.rows[: self._written]
        self.cursor.zero_()
        self._written = 0
        if rows.device.type != "cuda":
            return PendingRows(rows.clone(), None)
        host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        host.copy_(rows, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        return PendingRows(host, arrived)

    def state(self) -> Tensor:
        """The rows of the window that is not yet complete, on the host."""
        return self.rows[: self._written].to("cpu", copy=True)

    def load_state(self, rows: Tensor) -> None:
        """Go on with a window whose first rows are `rows`."""
        self._written = rows.shape[0]
        self.rows[: self._written].copy_(rows)
        self.cursor.fill_(self._written)
