"""Steps that were not finite, or skipped: told with loss, gradient norm and samples, and never averaged away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, final

import numpy as np

from trimtab.events import AlertRaised, StepsEnded
from trimtab.signals.telling import most_telling

MOST_A_WINDOW: Final = 20
"""So many steps of a window are told one by one: the most telling."""


@final
class StepAlerts:
    """Says of the steps in a window which went wrong.

    `data_of` names the data behind ranges of steps. With fp16 a gradient that overflowed at a loss scale above
    `lowest_scale` is how that scale is found, and nothing to tell; a loss that is not finite is.
    """

    def __init__(
        self, data_of: Callable[[Sequence[tuple[int, int]]], Mapping[str, Any]], lowest_scale: float = 1.0
    ) -> None:
        self._data_of, self._lowest_scale = data_of, lowest_scale

    def of(self, window: StepsEnded, step: int) -> Iterator[AlertRaised]:
        """An alert for each such step of `window`, which is told at the boundary `step`; the last one may stand for
        several."""
        if not {"train/loss", "grad_norm", "skipped"} <= set(window.per_step):
            return
        loss, norm, skipped = (window.per_step[name] for name in ("train/loss", "grad_norm", "skipped"))
        finite = np.isfinite(loss) & np.isfinite(norm)
        wrong = ~finite | (skipped > 0)
        if (scale := window.per_step.get("loss_scale")) is not None:
            wrong &= finite | ~np.isfinite(loss) | (scale <= self._lowest_scale)
        if not wrong.any():
            return
        places = np.flatnonzero(wrong)
        before = np.append(np.nan, loss[:-1])[places]
        told = sorted(places[most_telling(loss[places], before, MOST_A_WINDOW)].tolist())
        for place in told:
            number = window.first_step + place
            kind: Literal["non_finite_step", "outlying_step"] = "outlying_step" if finite[place] else "non_finite_step"
            what = "lies far above those before" if finite[place] else "not finite"
            data = self._data_of([(number, number)])
            start, end = data["positions"][0]
            yield AlertRaised(
                step,
                kind,
                f"step {number:,}: loss {loss[place]:.4g}, gradient norm {norm[place]:.4g}, {what}; "
                f"{'skipped, nothing was changed' if skipped[place] else 'the update was made'}; "
                f"data positions {start:,} to {end - 1:,}",
                {"step": number, "loss": float(loss[place]), "grad_norm": float(norm[place]), **data},
            )
        if (more := len(places) - MOST_A_WINDOW) > 0:
            last = window.first_step + max(set(places.tolist()) - set(told))
            yield AlertRaised(
                step, "non_finite_step", f"{more:,} more such steps, up to step {last:,}", {"steps": more, "step": last}
            )
