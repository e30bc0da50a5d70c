"""Turns: a trainer that keeps its own loop stands still after so many steps, until the driver says go.

The driver starts every trainer as a process and lets them train in turn, so that all share one GPU, one temperature
and one neighbour. A trainer calls `Gate.step` after each of its updates.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch


class Gate:
    """Reads `go N` or `end` from standard input, and answers each with one line of JSON."""

    def __init__(self, warmup: int) -> None:
        # What a trainer prints goes to standard error.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._born = time.perf_counter()
        self._left, self._ready = warmup, False
        self._begun = self._spent = 0.0
        self._steps = 0

    def step(self) -> None:
        """Note that an update was asked for."""
        self._left -= 1
        if self._left > 0:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._ready:
            spent = 1e3 * (time.process_time() - self._spent) / self._steps
            self._say({"ms": 1e3 * (now - self._begun) / self._steps, "cpu_ms": spent, **_memory()})
        else:
            self._ready = True
            self._say({"ready_seconds": now - self._born, **_memory()})
        line = sys.stdin.readline().split()
        if len(line) != 2:
            os._exit(0)
        self._steps = self._left = int(line[1])
        self._begun, self._spent = time.perf_counter(), time.process_time()

    def _say(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def _memory() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {
        "allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


CASES: dict[str, dict[str, int]] = {
    "124m": {"layers": 12, "heads": 12, "width": 768, "vocabulary": 50257, "length": 1024, "batch": 32, "turn": 20},
    "124m-64": {"layers": 12, "heads": 12, "width": 768, "vocabulary": 50257, "length": 1024, "batch": 64, "turn": 10},
    "350m": {"layers": 24, "heads": 16, "width": 1024, "vocabulary": 50257, "length": 1024, "batch": 16, "turn": 12},
    "10m": {"layers": 6, "heads": 6, "width": 384, "vocabulary": 65, "length": 256, "batch": 32, "turn": 200},
    "small": {"layers": 4, "heads": 4, "width": 256, "vocabulary": 8192, "length": 128, "batch": 8, "turn": 4},
    "tiny": {"layers": 2, "heads": 2, "width": 32, "vocabulary": 65, "length": 32, "batch": 4, "turn": 5},
}
"""Shapes without biases, tied heads; `turn` is how many steps one turn takes."""
