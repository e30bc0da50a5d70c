"""Training runs whose results are kept: a benchmark that was stopped goes on where it was.

A trial is a dictionary of plain values; its result is a line of JSON in the store. Several processes may share a store.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Trial = Mapping[str, Any]


class Store:
    """Results by trial, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Take in what is written; a line that was cut in half is run again."""
        if not self._path.exists():
            return
        for line in self._path.read_text().splitlines():
            try:
                content = json.loads(line)
            except json.JSONDecodeError:
                continue
            self._results[_key(content["trial"])] = content["result"]

    def get(self, trial: Trial) -> dict[str, Any] | None:
        """What a trial gave, if it has run."""
        return self._results.get(_key(trial))

    def run(self, trials: Sequence[Trial], run: Callable[[Trial], dict[str, Any]]) -> None:
        """Run those of `trials` that have no result yet."""
        for trial in trials:
            if self.get(trial) is not None:
                continue
            result = run(trial)
            self._results[_key(trial)] = result
            with self._path.open("a") as file:
                file.write(json.dumps({"trial": trial, "result": result}) + "\n")
            print(json.dumps(trial), "->", json.dumps(result), flush=True)


def _key(trial: Trial) -> str:
    return json.dumps(trial, sort_keys=True)


def loss_of(result: Mapping[str, Any] | None) -> float:
    """The validation loss; infinite where the trial diverged or has not run."""
    loss = math.inf if result is None else result["loss"]
    return loss if isinstance(loss, float) and math.isfinite(loss) else math.inf


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by Student's t."""
    student = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
    if len(values) < 2:
        return values[0], math.nan
    return statistics.fmean(values), student[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def arguments(description: str | None, store: str) -> argparse.ArgumentParser:
    """What every such benchmark understands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path(store), help="where results are kept")
    parser.add_argument("--part", default="0/1", help="INDEX/OF: this process's part of the work")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    return parser
