"""What a task is made of, and the table of tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Kind = Literal["lm", "cls", "tag", "s2s", "reg"]
Inputs = Literal["tokens", "vector", "series", "image"]


@dataclass
class Data:
    """Samples for training and for validation; `voc` counts tokens or features, `num_labels` what is predicted."""

    kind: Kind
    inputs: Inputs
    x: torch.Tensor
    y: torch.Tensor
    vx: torch.Tensor
    vy: torch.Tensor
    voc: int
    num_labels: int


Maker = Callable[[np.random.RandomState, int, int], Data]
"""Randomness, samples for training and for validation -> the data."""


@dataclass(frozen=True)
class Task:
    """One row of the table: what it asks, what it is made of, and the most samples that there are."""

    kind: Kind
    inputs: Inputs
    make: Maker
    many: int = 4000


def split(kind: Kind, inputs: Inputs, x: torch.Tensor, y: torch.Tensor, valid: int, voc: int, num_labels: int) -> Data:
    """The first samples validate, so that they are the same however many are trained on."""
    return Data(kind, inputs, x[valid:], y[valid:], x[:valid], y[:valid], voc, num_labels)


def tasks() -> dict[str, Task]:
    """All tasks by name."""
    from . import data_numbers, data_sequences, data_text

    return {**data_text.TASKS, **data_sequences.TASKS, **data_numbers.TASKS}
