"""Small real runs in which the steps go wrong, and sound ones that look like them: what the doctor says of each.

    python benchmarks/doctor/steps_runs.py [--keep DIR] [--only NAME …] [--pack FILE]

Each is made in a process of its own, on one thread, in a few seconds: by trimtab's own trainer, or by a bare loop that
writes a CSV. A faulty run is named when the first finding has its code and is a warning or worse; a sound one is a
false alarm when any finding is. `--pack` puts the logs, without traces of the machine, into one compressed file, which
is what `tests/doctor/test_steps.py` reads.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from bank.patches import KilledOnce

from trimtab.config import Config, load_config
from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_case, open_foreign_case
from trimtab.events import Event, StepsEnded
from trimtab.runs import RunDirectory
from trimtab.runs.record import decode_line, encode_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HEALTHY = "healthy"
SET = "steps"
COMMON: dict[str, Any] = {
    "data.source": {"name": "embedded", "packages": ["mpmath"]},
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 2, "hidden_size": 48, "num_heads": 2},
    "optimizer.learning_rate": 3e-3,
    "schedule": {"name": "cosine", "warmup": 0.05, "floor": 0.1},
    "training": {"steps": 240, "micro_batch_size": 12, "threads": 1, "compile": "off", "device": "cpu"},
    "evaluation": {"every": 40, "max_tokens": 4_096, "batch_size": 64, "gap_tokens": 4_096},
    "evaluation.samples.max_tokens": 0,
    "logging.every": 20,
    "checkpoint": {"keep_latest": 1},
    "stopping": {"name": "none"},
}


# What is planted in runs of trimtab.


@final
class Hoarder:
    """Keeps a copy of something for each step that it hears of, as a list of losses with their graphs does."""

    def __init__(self, bytes_a_step: int) -> None:
        self.bytes_a_step = bytes_a_step
        self.kept: list[bytearray] = []

    def observe(self, event: Event) -> None:
        """Keep more."""
        if isinstance(event, StepsEnded):
            steps = event.last_step - event.first_step + 1
            self.kept.append(bytearray(os.urandom(1)) * (self.bytes_a_step * steps))


def slower_and_slower(sequences: Any, seconds: float) -> Any:
    """Sequences each of whose batches takes `seconds` longer than the one before, as if read from a file's start."""
    turn = itertools.count()

    class Sequences:
        """Waits, then gives what the sequences give."""

        def batch(self, indices: Any, *rest: Any) -> Any:
            """The batch, late."""
            time.sleep(seconds * next(turn))
            return sequences.batch(indices, *rest)

        def __getattr__(self, name: str) -> Any:
            return getattr(sequences, name)

    return Sequences()


def sigmoid_stack(config: Config, vocabulary_size: int, *, layers: int, width: int = 48) -> nn.Module:
    """What follows a token, by a deep stack of sigmoids without residual connections."""
    import torch
    from torch import nn

    class SigmoidStack(nn.Module):
        """Tokens [B, T] to logits [B, T, V]."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary_size, width)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
            self.head = nn.Linear(width, vocabulary_size)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            for layer in self.layers:
                x = layer(x).sigmoid()
            logits: Tensor = self.head(x)
            return logits

    torch.manual_seed(config.seed)
    return SigmoidStack()


def below_zero(config: Config, vocabulary_size: int) -> nn.Module:
    """What follows two tokens, by residual blocks of ReLUs most of which hear nothing above zero."""
    import torch
    from torch import nn

    class Block(nn.Module):
        """Up, ReLU, down."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(48)
            self.up = nn.Linear(48, 192)
            self.activation = nn.ReLU()
            self.down = nn.Linear(192, 48)
            nn.init.normal_(self.up.bias, -2.5, 1.0)

        def forward(self, x: Tensor) -> Tensor:
            moved: Tensor = x + self.down(self.activation(self.up(self.norm(x))))
            return moved

    class Blocks(nn.Module):
        """Tokens [B, T] to logits [B, T, V]."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary_size, 48)
            self.before = nn.Embedding(vocabulary_size, 48)
            self.blocks = nn.ModuleList(Block() for _ in range(3))
            self.head = nn.Linear(48, vocabulary_size)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens) + self.before(tokens.roll(1, 1))
            for block in self.blocks:
                x = block(x)
            logits: Tensor = self.head(x)
            return logits

    torch.manual_seed(config.seed)
    return Blocks()


def growing_recurrence(config: Config, vocabulary_size: int, *, from_pass: int, growth: float) -> nn.Module:
    """A recurrent model of ReLUs whose step from one state to the next is multiplied by more and more from some
    training pass on: each position passes on more of the gradient than it gets."""
    import torch
    from torch import nn

    class Recurrence(nn.Module):
        """Tokens [B, T] to logits [B, T, V]."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary_size, 48)
            self.transition = nn.Linear(48, 48, bias=False)
            self.head = nn.Linear(48, vocabulary_size)
            self.passes = 0
            nn.init.orthogonal_(self.transition.weight, 0.7)

        def forward(self, tokens: Tensor) -> Tensor:
            self.passes += self.training
            gain = 1.0 + growth * max(0, self.passes - from_pass)
            state = torch.zeros(tokens.shape[0], 48)
            states = []
            for x in self.embedding(tokens).unbind(1):
                moved = gain * self.transition(state)
                # The value stays within bounds; the gradient does not.
                state = (x + moved + (moved / gain - moved).detach()).relu()
                states.append(state)
            logits: Tensor = self.head(torch.stack(states, 1))
            return logits

    torch.manual_seed(config.seed)
    return Recurrence()


def with_uncleared_gradients(config: Config, vocabulary_size: int) -> nn.Module:
    """The decoder, each of whose parameters adds its gradient to all that it had before."""
    import torch

    model = decoder(config, vocabulary_size)
    for parameter in model.parameters():
        total = torch.zeros_like(parameter)

        def added(gradient: Tensor, total: Tensor = total) -> Tensor:
            total.add_(gradient.detach())
            return total.clone()

        parameter.register_hook(added)
    return model


def decoder(config: Config, vocabulary_size: int) -> Any:
    """The decoder that `config` describes."""
    from trimtab.model import build_model

    return build_model(
        config.model, vocabulary_size=vocabulary_size, sequence_length=config.data.sequence_length, seed=config.seed
    )


def counting(config: Config, vocabulary_size: int) -> nn.Module:
    """What follows two tokens, beside how often each pair came so far, which is kept in no checkpoint."""
    import torch
    from torch import nn

    class Counting(nn.Module):
        """Tokens [B, T] to logits [B, T, V]."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary_size, 48)
            self.before = nn.Embedding(vocabulary_size, 48)
            self.inner = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, vocabulary_size))
            self.counts = torch.full((vocabulary_size * vocabulary_size,), 0.01)  # no buffer: nobody saves it

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens) + self.before(tokens.roll(1, 1))
            logits: Tensor = self.inner(x) + self.counts.view(vocabulary_size, -1)[tokens].log()
            if self.training:
                pairs = (tokens[:, :-1] * vocabulary_size + tokens[:, 1:]).flatten()
                self.counts = self.counts + torch.bincount(pairs, minlength=len(self.counts))
            return logits

    torch.manual_seed(config.seed)
    return Counting()


# A bare loop.


def bare_loop(path: Path, *, steps: int = 240, **planted: Any) -> None:
    """A small classifier of digits, trained as in a tutorial, with a CSV of what it logs."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(planted.get("seed", 0))
    torch.set_num_threads(1)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = torch.tensor(digits.data[order] / 16.0, dtype=torch.float32)
    y = torch.tensor(digits.target[order])
    x, y, x_val, y_val = x[:1400], y[:1400], x[1400:], y[1400:]
    width = planted.get("width", 32)
    hidden = [layer for _ in range(planted.get("layers", 1)) for layer in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), *hidden, nn.Linear(width, 10))
    if gain := planted.get("gain"):
        for parameter in model.parameters():
            parameter.data.mul_(gain)
    rate = planted.get("rate", 0.05)
    make = {"sgd": lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9), "adam": lambda p: torch.optim.AdamW(p, lr=rate)}
    optimizer = make[planted.get("optimizer", "sgd")](model.parameters())
    accumulation, horizon = planted.get("accumulation", 1), planted.get("horizon", steps)
    shape: Callable[[float], float] = planted.get("shape", lambda part: 0.5 * (1 + math.cos(math.pi * min(part, 1.0))))
    kept: list[Any] = []
    rows: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(len(x), (32,), generator=generator) for _ in range(steps * accumulation)]
    step, attempts = 0, 0
    while step < steps:
        begun = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * shape(step / horizon)
        if not planted.get("uncleared"):
            optimizer.zero_grad()
        logged, right = 0.0, 0
        for part in range(accumulation):
            batch = batches[step * accumulation + part]
            logits = model(x[batch])
            loss = F.cross_entropy(logits, y[batch])
            loss = loss if planted.get("summed") else loss / accumulation
            if planted.get("hoards"):
                kept += [torch.randn(int(planted["hoards"]))]
                for one in kept:
                    one.mean()
            loss.backward()
            logged += float(loss)
            right += int((logits.argmax(1) == y[batch]).sum())
        if (boosts := planted.get("boosts")) and step >= boosts[0]:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad.mul_(boosts[1] ** (step - boosts[0]))
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), planted.get("clip", math.inf)))
        optimizer.step()
        step += 1
        row: dict[str, Any] = {
            "step": step,
            "train_loss": f"{logged:.5g}",
            "lr": f"{optimizer.param_groups[0]['lr']:.5g}",
            "grad_norm": f"{norm:.5g}",
            "train_accuracy": f"{right / 32 / accumulation:.4f}",
        }
        if planted.get("times"):
            row["step_time"] = f"{time.perf_counter() - begun:.6f}"
        if step % 20 == 0:
            with torch.no_grad():
                judged = model(x_val)
                row["val_loss"] = f"{float(F.cross_entropy(judged, y_val)):.5g}"
                row["val_accuracy"] = f"{float((judged.argmax(1) == y_val).float().mean()):.4f}"
        rows.append(row)
        if (resumes := planted.get("resumes")) and step == resumes[0] and not attempts:
            attempts, step = 1, resumes[1]
            with torch.no_grad():  # the last layers were not in the checkpoint
                for parameter in list(model.parameters())[-planted.get("lost", 0) :] if planted.get("lost") else []:
                    parameter.normal_(0.0, 0.2)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


# The table.


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row: what is trained, and what is wrong with it."""

    name: str
    truth: str
    """A code of the doctor, or `healthy`."""
    sentence: str
    onset: int | None = None
    """The first step that the fault acts on."""
    settings: Mapping[str, Any] | None = None
    """Of a run of trimtab, on top of COMMON; None: a bare loop."""
    loop: Mapping[str, Any] | None = None
    model: Callable[[Config, int], nn.Module] | None = None
    make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None
    monitors: Callable[[], Sequence[Any]] = tuple
    reading: Callable[[Any], Any] | None = None
    rate_factor: Callable[[float], float] | None = None
    """Put in place of the schedule's factor."""
    killed_at: int | None = None


def text_file(name: str) -> dict[str, Any]:
    """The settings for a text that is a file."""
    return {"data.source": {"name": "text", "path": f"texts/{name}"}, "data.validation_fraction": 0.15}


RELU = {"model.activation": "relu_squared", "logging.examine": {"every": 40, "which": ["activations"]}}

RUNS: tuple[Run, ...] = (
    Run(
        name="missing-warmup",
        truth="missing-warmup",
        sentence="a constant rate from the first step on, at the height of one that a warm-up makes bearable",
        onset=1,
        settings={
            "schedule": {"name": "constant"},
            "optimizer": {"name": "sgd", "learning_rate": 0.5},
            "gradients.clip": {"name": "none"},
        },
    ),
    Run(
        name="missing-warmup-post-norm",
        truth="missing-warmup",
        sentence="four layers that normalize behind their sums, at a constant rate from the first step on",
        onset=1,
        settings={
            "model": {
                "name": "decoder",
                "num_layers": 4,
                "hidden_size": 48,
                "num_heads": 2,
                "norm": {"name": "layer_norm", "placement": "post"},
            },
            "schedule": {"name": "constant"},
            "optimizer.learning_rate": 6e-3,
            "gradients.clip": {"name": "none"},
            "lint.allow": ["post-norm-without-warmup"],
            "training.steps": 200,
        },
    ),
    Run(
        name="exploding-gradients",
        truth="exploding-gradients",
        sentence="a recurrence that passes on more and more of the gradient from step 120 on, without clipping",
        onset=121,
        settings={
            "optimizer": {"name": "sgd", "learning_rate": 0.1},
            "schedule": {"name": "constant", "warmup": 10},
            "gradients.clip": {"name": "none"},
        },
        model=lambda config, vocabulary: growing_recurrence(config, vocabulary, from_pass=120, growth=0.02),
    ),
    Run(
        name="exploding-gradients-loop",
        truth="exploding-gradients",
        sentence="a gradient that a layer of one's own multiplies by a fifth more in each step from 150 on",
        onset=151,
        loop={"boosts": (150, 1.2)},
    ),
    Run(
        name="vanishing-gradients",
        truth="vanishing-gradients",
        sentence="eight layers of sigmoids without residual connections",
        onset=1,
        settings={},
        model=lambda config, vocabulary: sigmoid_stack(config, vocabulary, layers=8),
    ),
    Run(
        name="dead-units",
        truth="dead-units",
        sentence="ReLUs whose biases were drawn far below zero",
        onset=1,
        settings={"logging.examine": RELU["logging.examine"]},
        model=below_zero,
    ),
    Run(
        name="bad-initialization",
        truth="bad-initialization",
        sentence="weights and tied embeddings drawn with a deviation of 1, as torch's Embedding is by default",
        onset=1,
        settings={"model.initialization.standard_deviation": 1.0},
    ),
    Run(
        name="bad-initialization-mild",
        truth="bad-initialization",
        sentence="weights drawn with a deviation of 0.3",
        onset=1,
        settings={"model.initialization.standard_deviation": 0.3, "model.tied_embeddings": False},
    ),
    Run(
        name="bad-initialization-loop",
        truth="bad-initialization",
        sentence="a classifier whose weights are six times as large as they should be",
        onset=1,
        loop={"gain": 6.0, "rate": 1e-3},
    ),
    Run(
        name="decayed-too-early",
        truth="decayed-too-early",
        sentence="an exponential decay to a millionth, which is a fiftieth after a quarter of the run",
        onset=80,
        settings={"schedule": {"name": "exponential", "warmup": 0.05, "floor": 1e-6}, "training.steps": 400},
    ),
    Run(
        name="decayed-too-early-loop",
        truth="decayed-too-early",
        sentence="a cosine that is stepped four times for each update",
        onset=30,
        loop={"horizon": 60, "rate": 0.03},
    ),
    Run(
        name="schedule-mismatch",
        truth="schedule-mismatch",
        sentence="something else steps the schedule, too: it goes twice as fast as was set",
        onset=13,
        settings={"schedule": {"name": "linear", "warmup": 0.1}},
        rate_factor=lambda part: min(2 * part / 0.1, max(0.0, (1 - 2 * part) / 0.9)),
    ),
    Run(
        name="schedule-mismatch-height",
        truth="schedule-mismatch",
        sentence="something else divides the rate by 8",
        onset=1,
        settings={"schedule": {"name": "linear", "warmup": 0.1}},
        rate_factor=lambda part: min(part / 0.1, (1 - part) / 0.9) / 8,
    ),
    Run(
        name="gradients-not-cleared",
        truth="gradients-not-cleared",
        sentence="every parameter adds its gradient to all that it had before",
        onset=2,
        settings={"optimizer": {"name": "sgd", "learning_rate": 0.02}},
        model=with_uncleared_gradients,
    ),
    Run(
        name="gradients-not-cleared-loop",
        truth="gradients-not-cleared",
        sentence="a loop without zero_grad, with plain gradient descent",
        onset=2,
        loop={"uncleared": True, "rate": 1e-3},
    ),
    Run(
        name="gradients-not-cleared-adam-loop",
        truth="gradients-not-cleared",
        sentence="a loop without zero_grad, with AdamW",
        onset=2,
        loop={"uncleared": True, "rate": 1e-3, "optimizer": "adam"},
    ),
    Run(
        name="accumulation-not-normalised-loop",
        truth="accumulation-not-normalised",
        sentence="four micro-batches whose losses are added up",
        onset=1,
        loop={"summed": True, "accumulation": 4, "rate": 0.005},
    ),
    Run(
        name="over-regularised-dropout",
        truth="over-regularised",
        sentence="dropout of 0.7 everywhere in a small model that sees nothing twice",
        onset=1,
        settings={"model.dropout": {"residual": 0.7, "feed_forward": 0.7, "embedding": 0.5}, "training.steps": 300},
    ),
    Run(
        name="over-regularised-decay",
        truth="over-regularised",
        sentence="a weight decay of 20",
        onset=1,
        settings={"optimizer.weight_decay": 20.0, "training.steps": 300},
    ),
    Run(
        name="resume-discontinuity",
        truth="resume-discontinuity",
        sentence="killed at step 150, and resumed from step 120 without what the model had counted",
        onset=121,
        settings={},
        model=counting,
        killed_at=150,
    ),
    Run(
        name="resume-discontinuity-loop",
        truth="resume-discontinuity",
        sentence="a loop that goes on from step 120 with a last layer that was in no checkpoint",
        onset=121,
        loop={"resumes": (140, 120), "lost": 2, "rate": 0.01},
    ),
    Run(
        name="throughput-decay",
        truth="throughput-decay",
        sentence="each batch takes half a millisecond longer to be read than the one before",
        onset=50,  # until then a step takes longer, and the next batch is read meanwhile
        settings={"data.prefetch": 1, "training.steps": 150},
        reading=lambda sequences: slower_and_slower(sequences, 6e-4),
    ),
    Run(
        name="throughput-decay-loop",
        truth="throughput-decay",
        sentence="a list that is kept and gone through in each step",
        onset=1,
        loop={"hoards": 1000, "times": True, "steps": 600},
    ),
    Run(
        name="memory-leak",
        truth="memory-leak",
        sentence="a monitor that keeps a mebibyte for each step",
        onset=1,
        settings={},
        monitors=lambda: [Hoarder(2**20)],
    ),
    Run(
        name="thread-oversubscription",
        truth="thread-oversubscription",
        sentence="sixteen threads on two cores",
        onset=1,
        settings={"training.threads": 16, "training.steps": 60, "evaluation.every": 20},
    ),
    Run(name="plain", truth=HEALTHY, sentence="a cosine with a warm-up", settings={}),
    Run(
        name="no-warmup",
        truth=HEALTHY,
        sentence="a constant rate from the first step on that the model bears",
        settings={"schedule": {"name": "constant"}, "optimizer.learning_rate": 2e-3},
    ),
    Run(
        name="stairs",
        truth=HEALTHY,
        sentence="a rate that falls to a tenth and to a hundredth in stairs",
        settings={"schedule": {"name": "step", "warmup": 0.05, "every": 0.33}, "evaluation.yardsticks": False},
    ),
    Run(
        name="one-cycle",
        truth=HEALTHY,
        sentence="one rise and one long fall to four millionths",
        settings={"schedule": {"name": "one_cycle"}},
    ),
    Run(
        name="wsd",
        truth=HEALTHY,
        sentence="full rate, and a fall to nothing in the last three tenths",
        settings={"schedule": {"name": "wsd", "warmup": 0.05, "decay": 0.3}},
    ),
    Run(
        name="squared-relu",
        truth=HEALTHY,
        sentence="squared ReLUs, examined, at a sound rate",
        settings=RELU,
    ),
    Run(
        name="deep",
        truth=HEALTHY,
        sentence="eight narrow layers with a norm before each",
        settings={
            "model": {"name": "decoder", "num_layers": 8, "hidden_size": 32, "num_heads": 2},
            "training.steps": 160,
            "evaluation.yardsticks": False,
        },
    ),
    Run(
        name="wide-start",
        truth=HEALTHY,
        sentence="weights drawn with a deviation of 0.06",
        settings={"model.initialization.standard_deviation": 0.06},
    ),
    Run(
        name="growing-batch",
        truth=HEALTHY,
        sentence="twice and four times the micro-batches by plan: longer steps, more memory, less noise",
        settings={
            "training.accumulation_schedule": {"factors": [1, 2, 4], "lengths": [0.4, 0.3]},
            "training.steps": 160,
        },
    ),
    Run(
        name="by-and-by",
        truth=HEALTHY,
        sentence="layers that are unfrozen by and by, so that steps take longer",
        settings={
            "model.num_layers": 4,
            "model.freeze": ["blocks.0.*", "blocks.1.*"],
            "model.unfreeze": {"blocks.1.*": 0.3, "blocks.0.*": 0.6},
            "averaging": {"name": "none"},
        },
    ),
    Run(
        name="strong-dropout-small-data",
        truth=HEALTHY,
        sentence="dropout of 0.4 on 14 kB of text seen many times, which needs it",
        settings={
            **text_file("tiny.txt"),
            "model.dropout": {"residual": 0.4, "feed_forward": 0.4},
            "lint.allow": ["high-dropout-small-model"],
            "training.steps": 300,
        },
    ),
    Run(
        name="strong-decay",
        truth=HEALTHY,
        sentence="a weight decay of 0.3",
        settings={"optimizer.weight_decay": 0.3},
    ),
    Run(
        name="resumed",
        truth=HEALTHY,
        sentence="killed at step 150, and resumed from step 120 to the same bits",
        settings={},
        killed_at=150,
    ),
    Run(
        name="accumulation",
        truth=HEALTHY,
        sentence="four micro-batches in every update",
        settings={
            "training.micro_batch_size": 4,
            "training.accumulation": 4,
            "training.steps": 160,
            "evaluation.yardsticks": False,
        },
    ),
    Run(name="loop", truth=HEALTHY, sentence="the bare loop, sound", loop={"rate": 0.02, "times": True}),
    Run(
        name="loop-accumulation",
        truth=HEALTHY,
        sentence="the bare loop with four micro-batches, whose losses are divided",
        loop={"accumulation": 4, "rate": 0.02},
    ),
    Run(
        name="loop-stairs",
        truth=HEALTHY,
        sentence="a rate that falls to a tenth and a hundredth in stairs, and no warm-up",
        loop={"rate": 0.02, "shape": lambda part: 0.1 ** int(3 * part)},
    ),
    Run(
        name="loop-late",
        truth=HEALTHY,
        sentence="a constant rate, long after all is learned: the gradient is small, and now and then large",
        loop={"rate": 0.02, "steps": 600, "shape": lambda part: 1.0},
    ),
    Run(
        name="loop-resumed",
        truth=HEALTHY,
        sentence="a loop that went back to its checkpoint and lost nothing",
        loop={"resumes": (140, 120), "rate": 0.01},
    ),
    Run(
        name="loop-clipped",
        truth=HEALTHY,
        sentence="the bare loop, clipped, with large batches by accumulation",
        loop={"accumulation": 16, "rate": 0.02, "clip": 1.0},
    ),
)


# Making them.


def configuration(run: Run) -> Config:
    """The whole configuration of a run of trimtab."""
    values = {**COMMON, "name": run.name, **(run.settings or {})}
    return load_config("gpt-1m", [f"{name}={json.dumps(value)}" for name, value in values.items()])


def train(run: Run, path: Path) -> None:
    """Train, in this process."""
    import trimtab.assembly
    import trimtab.data.prepare
    from trimtab.data import Loader, prepare_data
    from trimtab.schedules import build_schedule
    from trimtab.trainer import Trainer

    config = configuration(run)
    model = None
    if run.model is not None:
        data = prepare_data(config.data, seed=config.seed, micro_batch_size=config.training.micro_batch_size)
        model = run.model(config, data.tokenizer.vocabulary_size)
    if run.reading is not None:
        reading = run.reading

        def slow(sequences: Any, *rest: Any, **named: Any) -> Loader:
            return Loader(reading(sequences), *rest, **named)

        trimtab.data.prepare.Loader = slow  # type: ignore[attr-defined, assignment]
    if run.rate_factor is not None:
        factor = run.rate_factor

        class Other:
            """A schedule that nobody set."""

            def factor(self, step: int) -> float:
                """The part of the full rate."""
                return factor((step + 1) / config.training.steps)

        def built(schedule: Any, budget: Any) -> Any:
            return Other() if schedule == config.schedule else build_schedule(schedule, budget)

        trimtab.assembly.build_schedule = built  # type: ignore[attr-defined, assignment]
    monitors = [*run.monitors(), *([] if run.killed_at is None else [KilledOnce(run.killed_at)])]
    Trainer(config, run=path, model=model, make_optimizer=run.make_optimizer, monitors=monitors).fit()


def make(run: Run, folder: Path) -> Path:
    """The run's directory, or the bare loop's log; made now unless it is there. Raises: RuntimeError."""
    path = folder / name_of(run)
    if path.is_file() or (path / "diagnosis.json").exists():
        return path
    command = [sys.executable, str(Path(__file__).resolve()), "--make", run.name]
    for _ in range(1 if run.killed_at is None else 2):
        threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **threads}
        )
        if done.returncode == 0:
            return path
    raise RuntimeError(f"{run.name} could not be made (exit code {done.returncode}):\n{done.stderr[-4000:]}")


def write_texts(folder: Path) -> None:
    """The texts that are files."""
    import networkx  # type: ignore[import-untyped]

    folder.mkdir(parents=True, exist_ok=True)
    graphs = "\n".join(path.read_text() for path in sorted(Path(networkx.__path__[0], "algorithms").glob("*.py")))
    (folder / "tiny.txt").write_text(graphs[:14_000])


def case_of(run: Run, path: Path) -> Case:
    """What the doctor looks at."""
    return open_case(RunDirectory.open(path)) if run.loop is None else open_foreign_case(path)[0]


def pack(runs: Sequence[Run], folder: Path, file: Path) -> None:
    """Put the logs into a .tar.xz; `runs.json` in it is the table."""
    table, contents = [], {}
    for run in runs:
        path = folder / name_of(run)
        row = {"set": SET, "name": path.name, "truth": run.truth, "sentence": run.sentence, "onset": run.onset}
        table.append(row | {"steps": case_of(run, path).history.last_step})
        contents |= {f"{SET}/{path.name}{name}": content for name, content in logs(path)}
    with tarfile.open(file, "w:xz", preset=9) as archive:
        _add(archive, "runs.json", json.dumps({"runs": table}, indent=1).encode())
        for name in sorted(contents, key=lambda name: (Path(name).suffix, name)):  # what is alike lies together
            _add(archive, name, contents[name])


def name_of(run: Run) -> str:
    """Of its directory, or of the bare loop's log."""
    return run.name if run.loop is None else f"{run.name}.csv"


def logs(path: Path) -> Iterator[tuple[str, bytes]]:
    """What the doctor reads of a run, without traces of the machine that it was made on."""
    if path.is_file():
        yield "", path.read_bytes()
        return
    for name in ("config.yaml", "facts.json"):
        yield f"/{name}", _without_places((path / name).read_text()).encode()
    yield "/record.jsonl", b"".join(map(_line_without_places, (path / "record.jsonl").open("rb")))
    surroundings = json.loads((path / "environment.json").read_bytes())
    kept = {name: surroundings[name] for name in ("schema", "versions", "seed", "source")}
    yield "/environment.json", json.dumps(kept).encode()
    for part in sorted((path / "statistics").rglob("*")):
        if part.is_file():
            yield f"/{part.relative_to(path).as_posix()}", part.read_bytes()


def _without_places(text: str) -> str:
    """Of files elsewhere their names alone."""
    return re.sub(r"(?<![\w.:/])/(?:[\w.+-]+/)+([\w.+-]+)", r"\1", text)


def _line_without_places(raw: bytes) -> bytes:
    """The same of a line of the record, whose checksum is of what is left."""
    line = decode_line(raw)
    if line is None or _without_places(raw.decode()) == raw.decode():
        return raw
    return encode_line(json.loads(_without_places(json.dumps(line))))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="put the logs into a file (.tar.xz)")
    parser.add_argument("--make", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make is not None:
        run = next(run for run in RUNS if run.name == arguments.make)
        if run.loop is None:
            train(run, Path(run.name))
        else:
            bare_loop(Path(f"{run.name}.csv"), **run.loop)
        return
    chosen = [run for run in RUNS if not arguments.only or run.name in arguments.only]
    right = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        write_texts(folder / "texts")
        for run in chosen:
            findings = diagnose(case_of(run, make(run, folder))).findings
            told = [f"{one.code} ({one.severity} {one.confidence:.2f} @{one.onset_step})" for one in findings]
            loud = [one for one in findings if one.severity != "info"]
            good = not loud if run.truth == HEALTHY else bool(loud) and findings[0].code == run.truth
            right += good
            also = " <- " + ", ".join(findings[0].consequences) if findings and findings[0].consequences else ""
            print(f"{'right' if good else 'WRONG'}  {run.name:<34}{'; '.join(told)}{also}", flush=True)
        print(f"{right} of {len(chosen)} right")
        if arguments.pack:
            pack(chosen, folder, arguments.pack)


if __name__ == "__main__":
    main()
