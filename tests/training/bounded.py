"""Modules that memory runs out for, and short runs over them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_step import VOCABULARY
from torch import Tensor, nn

from trimtab import LanguageModelTrainer
from trimtab.events import DecisionTaken, Event, StepsEnded


class Bounded(nn.Module):
    """Takes no more than so many sequences in training, as a device does that is full: torch's own error."""

    def __init__(self, most: int, vocabulary: int = VOCABULARY, *, from_call: int = 0) -> None:
        super().__init__()
        self.most, self.from_call, self.calls = most, from_call, 0
        self.embedding = nn.Embedding(vocabulary, 8)
        self.head = nn.Linear(8, vocabulary)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        self.calls += self.training
        if self.training and self.calls > self.from_call and tokens_BT.shape[0] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.\nGPU 0 has more to say")
        logits: Tensor = self.head(torch.cumsum(self.embedding(tokens_BT), 1))
        return logits


class Hungry(Bounded):
    """Takes 24 MB for every sequence."""

    def __init__(self) -> None:
        super().__init__(10**9)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        ballast = torch.ones(tokens_BT.shape[0], 6_000_000)
        return super().forward(tokens_BT) + 0.0 * ballast.mean()


SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 16,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
    "training.steps": 6,
    "training.micro_batch_size": 8,
    "training.threads": 1,
    "training.compile": "off",
    "evaluation": {"every": 3, "max_tokens": 512, "gap_tokens": 0, "yardsticks": False},
    "stopping": {"name": "none"},
}


class Remembers:
    def __init__(self, stop_at: int = 0) -> None:
        self.events: list[Event] = []
        self.stop_at = stop_at

    def observe(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepsEnded) and event.last_step == self.stop_at:
            raise KeyboardInterrupt

    def losses(self) -> list[float]:
        told = {e.first_step: e.per_step["train/loss"] for e in self.events if isinstance(e, StepsEnded)}
        return np.concatenate([told[first] for first in sorted(told)]).tolist()

    def splits(self) -> list[DecisionTaken]:
        return [e for e in self.events if isinstance(e, DecisionTaken) and e.controller == "memory"]


def trainer_of(
    tmp_path: Path, run: str, changes: Mapping[str, Any], *, stop_at: int = 0, watch: tuple[Any, ...] = (), **rest: Any
) -> Any:
    source = tmp_path / "text.txt"
    if not source.exists():
        source.write_text((Path(os.__file__).parent / "heapq.py").read_text())
    remembers = Remembers(stop_at)
    trainer = LanguageModelTrainer(
        source,
        settings={**SETTINGS, **changes},
        run=tmp_path / run,
        progress=False,
        monitors=[*watch, remembers],
        **rest,
    )
    trainer.remembers = remembers
    return trainer


def plan_of(tmp_path: Path, run: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((tmp_path / run / "plan.json").read_text())["micro_batch"]
    return plan


def module_of(most: int, *, from_call: int = 0) -> Bounded:
    torch.manual_seed(0)
    return Bounded(most, 257, from_call=from_call)
