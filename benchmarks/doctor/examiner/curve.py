"""What can be seen in the rows of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from examiner.learner import Row


class Curve:
    """Series of a run, and what is asked of them."""

    def __init__(self, rows: list[Row]) -> None:
        train = [one for one in rows if one["kind"] == "train"]
        self.rows, self.evals = train, [one for one in rows if one["kind"] == "eval"]
        self.step = np.array([one["step"] for one in train])
        self.loss, self.lr, self.norm = self.of("loss"), self.of("lr"), self.of("gnorm")
        ends = [one["took"] for one in rows if one["kind"] == "end"]
        self.whole = ends[0] if ends else max((one.get("clock", 0.0) for one in rows if "clock" in one), default=0.0)
        self.vstep = np.array([one["step"] for one in self.evals])
        self.val = np.array([one["loss"] for one in self.evals])
        self.acc = np.array([one.get("acc", np.nan) for one in self.evals])

    def of(self, name: str) -> np.ndarray:
        """A column of training."""
        return np.array([one.get(name, np.nan) for one in self.rows], float)

    @property
    def last(self) -> float:
        """Training loss of the last tenth."""
        return float(np.mean(self.loss[-max(3, len(self.loss) // 10) :]))

    @property
    def first(self) -> float:
        """The first training losses."""
        return float(np.mean(self.loss[:2]))

    @property
    def end(self) -> float:
        """The last validation losses."""
        return float(np.mean(self.val[-2:])) if len(self.val) else self.last

    @property
    def best(self) -> float:
        """The lowest validation loss."""
        return float(np.nanmin(self.val)) if len(self.val) else float(np.nanmin(self.smooth))

    @property
    def smooth(self) -> np.ndarray:
        """Medians of the training loss over a thirtieth of the run."""
        half = max(1, len(self.loss) // 60)
        return np.array([np.median(self.loss[max(0, i - half) : i + half + 1]) for i in range(len(self.loss))])

    @property
    def slope(self) -> float:
        """How far the training loss falls in the last third, as a part of what it has fallen in all."""
        third = len(self.smooth) // 3
        now, before = self.smooth[-third // 3 :].mean(), self.smooth[-third : -2 * third // 3].mean()
        return float((before - now) / max(1e-9, abs(self.first - now)))

    @property
    def finite(self) -> bool:
        """Whether all losses are numbers."""
        return bool(np.isfinite(self.loss).all() and np.isfinite(self.val).all())

    def leaves(self) -> int | None:
        """The step from which the loss stays above what it had come down to."""
        smooth = np.nan_to_num(self.smooth, nan=1e30, posinf=1e30)
        low = np.minimum.accumulate(smooth)
        noise = np.median(np.abs(np.diff(self.loss[np.isfinite(self.loss)]))) if len(self.loss) > 3 else 0.0
        bound = low[int(np.argmin(smooth))] + max(0.1 * abs(self.first - low[-1]), 3 * noise)
        below = np.flatnonzero(smooth <= bound)
        return None if below[-1] >= len(smooth) - max(3, len(smooth) // 20) else int(self.step[below[-1] + 1])

    def figures(self) -> dict[str, Any]:
        """For truth.json."""
        found = {"train": self.last, "validation": self.end, "best": self.best}
        return {name: float(f"{value:.4g}") if np.isfinite(value) else None for name, value in found.items()}
