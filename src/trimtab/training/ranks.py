"""What every rank measured, brought together on rank 0 without any rank waiting for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from trimtab.runs.ranks import OverRanks, over_ranks

MOST_PENDING: Final = 1_000
"""Rows on their way, beyond which a rank sends no more: another one stands still."""


@dataclass(slots=True)
class _Under:
    """A gathering that is under way."""

    step: int
    sent: Tensor
    received: list[Tensor]
    work: Any


@final
class RankStatistics:
    """Gathers a row of host values from each rank, and reduces them to minimum, mean, maximum and whose they are.

    Every rank calls `begin` for the same steps in the same order, as for any collective. It runs over gloo, in threads
    of its own, and holds no device: rank 0 sees what has arrived when it asks, the others only send. Where a rank is
    gone or stands still, the rows end and nothing is raised: the training's own collectives tell of it.
    """

    def __init__(self, columns: Sequence[str], ranks: Sequence[int] | None = None) -> None:
        """`columns`: names, the same on every rank; `ranks`: those that take part, all where None.

        Needs torch.distributed to be initialized; every rank of the default group calls it, as for any new group.
        """
        self.columns = tuple(columns)
        self._group = dist.new_group(None if ranks is None else list(ranks), backend="gloo")
        self._members = list(range(dist.get_world_size())) if ranks is None else list(ranks)
        self._is_first = dist.get_rank() == self._members[0]
        self._sends = dist.get_rank() in self._members
        self._under: deque[_Under] = deque()

    def begin(self, step: int, values: Mapping[str, float]) -> None:
        """Send the row of the window that ended at `step`; names that are not there are NaN. It never waits; a rank
        that takes no part sends nothing."""
        if len(self._under) >= MOST_PENDING:  # leaving out some rows would pair later ones with others' wrongly
            self._sends = False
        if not self._sends:
            return
        sent = torch.tensor([values.get(name, float("nan")) for name in self.columns], dtype=torch.float64)
        received = [torch.full_like(sent, float("nan")) for _ in self._members] if self._is_first else []
        try:
            work = dist.gather(
                sent, received if self._is_first else None, dst=self._members[0], group=self._group, async_op=True
            )
        except RuntimeError:  # the connection is closed
            self._sends = False
            return
        self._under.append(_Under(step, sent, received, work))

    @property
    def pending(self) -> int:
        """How many rows are on their way."""
        return len(self._under)

    def arrived(self) -> list[tuple[int, OverRanks]]:
        """What has come from every rank since this was last asked, by step, in order; on other ranks than the first
        always nothing. It never waits."""
        found: list[tuple[int, OverRanks]] = []
        while self._under and self._under[0].work.is_completed():
            one = self._under.popleft()
            try:
                one.work.wait()  # it is over: this raises where it has failed
            except RuntimeError:
                self._sends = False
                continue
            found += self._reduced(one)
        return found

    def drain(self, timeout_seconds: float) -> list[tuple[int, OverRanks]]:
        """All that is under way, at the end of a run; what has not come by then, from a rank that is gone, is left."""
        found: list[tuple[int, OverRanks]] = []
        while self._under:
            try:
                self._under[0].work.wait(timedelta(seconds=timeout_seconds))
            except RuntimeError:  # too late, or the connection is closed
                self._sends = False
                break
            found += self._reduced(self._under.popleft())
        self._under.clear()
        return found

    def _reduced(self, one: _Under) -> list[tuple[int, OverRanks]]:
        if not self._is_first:
            return []
        reduced = over_ranks(np.stack([row.numpy() for row in one.received]))
        members = np.array([*self._members, -1])  # -1: nobody has measured it
        return [
            (
                one.step,
                reduced._replace(lowest_rank=members[reduced.lowest_rank], highest_rank=members[reduced.highest_rank]),
            )
        ]
