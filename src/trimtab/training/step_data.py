"""Which samples a step was trained on, told afterwards: their order is a pure function, so that nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np

from trimtab.data import DataPlan, Order
from trimtab.events import Advise, Decision, Rollback
from trimtab.training.progress import Progress

MOST_SAMPLES: Final = 1_024
"""So many are named; `positions` stand for all."""


@final
class StepData:
    """The data behind steps of the branch that `progress` is on."""

    def __init__(self, progress: Progress, order: Order) -> None:
        self._progress, self._order = progress, order

    def of_steps(self, spans: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Positions of the data order that steps `first` to `last` of each span consumed, as ranges [start, end), and
        the samples there, as JSON values. More than `MOST_SAMPLES` are counted."""
        excluded = DataPlan.from_json(self._progress.plan).excluded
        ranges = [self._progress.positions_of(first, last) for first, last in spans]
        positions = np.concatenate([np.arange(start, end) for start, end in ranges])
        for start, end in excluded:
            positions = positions[(positions < start) | (positions >= end)]
        samples = self._order.sequences_at(positions[:MOST_SAMPLES]).tolist()
        more = {"more_samples": len(positions) - MOST_SAMPLES} if len(positions) > MOST_SAMPLES else {}
        return {"positions": [list(span) for span in ranges], "samples": samples} | more

    def of_decision(self, decision: Decision) -> dict[str, Any]:
        """The same of the steps that `decision` is about; {} where it is about none."""
        match decision:
            case Rollback() if spans := decision.left_out(self._progress.step):
                return self.of_steps(spans)
            case Advise(steps=spans) if spans:
                return self.of_steps(spans)
            case _:
                return {}
