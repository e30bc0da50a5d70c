"""Small real runs, half with one planted fault each, half sound: what the doctor says of them.

    python benchmarks/doctor/twenty_runs.py [--set 1|2] [--keep DIR] [--only NAME] [--json FILE] [--twins] [--list]

Each run trains in a process of its own, on one thread, for 10 to 30 seconds. With `--keep` the runs stay in DIR, with
a table of their losses in DIR/INDEX.md, and a run that is complete is not made again. A faulty run counts as named
when the first finding has its code and is a warning or worse; a sound one as a false alarm when any finding is.
`--twins` also makes every faulty run without its fault, to see what the fault costs. `--pack FILE` puts the logs,
without checkpoints and without traces of the machine, into one compressed file.

The rules may be tuned on set 1; set 2 has other text, tokens, sizes, rates, lengths and severities, and is for testing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from trimtab.config import Config, dump_config, load_config
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Diagnosis
from trimtab.doctor.load import open_case
from trimtab.errors import TrimtabError
from trimtab.events import Adjust, Controller, Event, RunStarted, StepsEnded
from trimtab.runs import RunDirectory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HEALTHY = "healthy"
WHOLE = ("finished", "stopped", "failed")


# What is planted: parts that go into a run in place of sound ones.


@final
class RateFactors:
    """Puts a factor on the learning rate from some steps on, as a controller gone wrong would."""

    name = "rate_factors"

    def __init__(self, factors: Mapping[int, float]) -> None:
        """`factors`: from which observed step on which factor holds; it acts a window later."""
        self.factors = dict(factors)
        self.done = 0

    def decide(self, event: Event) -> Adjust | None:
        """The factor that is due."""
        due = [step for step in sorted(self.factors) if isinstance(event, StepsEnded) and step <= event.last_step]
        if len(due) <= self.done:
            return None
        self.done = len(due)
        factor = self.factors[due[-1]]
        return Adjust(f"the rate is to be {factor:g} times that of the schedule", "learning_rate", factor)

    def state(self) -> dict[str, Any]:
        """How many factors were put."""
        return {"done": self.done}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self.done = state["done"]


@final
class KilledOnce:
    """Kills the process of the first attempt, without a warning, after some step."""

    def __init__(self, step: int) -> None:
        self.step, self.attempt = step, 0

    def observe(self, event: Event) -> None:
        """Kill, if it is time."""
        if isinstance(event, RunStarted):
            self.attempt = event.attempt
        if isinstance(event, StepsEnded) and self.attempt == 1 and event.last_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def tiny_gru(config: Config, vocabulary_size: int, *, width: int) -> nn.Module:
    """A recurrent language model of one layer, from elsewhere."""
    import torch
    from torch import nn

    class TinyGru(nn.Module):
        """Tokens [batch, time] to logits [batch, time, vocabulary]."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary_size, width)
            self.gru = nn.GRU(width, width, batch_first=True)
            self.head = nn.Linear(width, vocabulary_size)

        def forward(self, tokens: Tensor) -> Tensor:
            logits: Tensor = self.head(self.gru(self.embedding(tokens))[0])
            return logits

    torch.manual_seed(config.seed)
    return TinyGru()


def shrinking_span(config: Config, vocabulary_size: int, *, width: int, spans: Mapping[int, int]) -> nn.Module:
    """A decoder of one head and two layers whose attention looks back less and less far: at a span of 0, softmax of
    nothing."""
    import torch
    from torch import nn

    class ShrinkingSpan(nn.Module):
        """Tokens [batch, time] to logits [batch, time, vocabulary]; counts its training passes."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary_size, width)
            self.positions = nn.Embedding(config.data.sequence_length, width)
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
            self.attention = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
            self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(2))
            self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(2))
            self.head = nn.Linear(width, vocabulary_size)
            self.passes = 0

        def forward(self, tokens: Tensor) -> Tensor:
            self.passes += self.training
            span = [span for step, span in sorted(spans.items()) if step <= self.passes][-1]
            place = torch.arange(tokens.shape[1])
            back = place[:, None] - place[None, :]
            hidden = (back < 0) | (back >= span)
            x = self.embedding(tokens) + self.positions(place)
            for layer in range(2):
                query, key, value = self.attention[layer](self.norms[2 * layer](x)).chunk(3, dim=-1)
                scores = (query @ key.transpose(1, 2) / math.sqrt(width)).masked_fill(hidden, -math.inf)
                x = x + scores.softmax(dim=-1) @ value
                x = x + self.down[layer](self.up[layer](self.norms[2 * layer + 1](x)).relu())
            logits: Tensor = self.head(x)
            return logits

    torch.manual_seed(config.seed)
    return ShrinkingSpan()


def decoder(config: Config, vocabulary_size: int) -> Any:
    """The decoder that `config` describes."""
    from trimtab.model import build_model

    return build_model(
        config.model, vocabulary_size=vocabulary_size, sequence_length=config.data.sequence_length, seed=config.seed
    )


def cut_below(config: Config, vocabulary_size: int, *, block: int) -> Any:
    """The decoder with a forgotten `detach` after a block: what lies below gets no gradient, yet is trained."""
    model = decoder(config, vocabulary_size)
    model.blocks[block].register_forward_hook(lambda module, inputs, output: output.detach())
    return model


def left_out_below(config: Config, vocabulary_size: int, *, block: int) -> Any:
    """The decoder with the embedding and the blocks up to `block` not requiring a gradient."""
    model = decoder(config, vocabulary_size)
    for module in [model.embedding, *model.blocks[: block + 1]]:
        module.requires_grad_(False)
    return model


def division_by_nothing(config: Config, vocabulary_size: int, *, from_pass: int) -> Any:
    """The decoder with a normalization of one's own whose spread is 0 from some training pass on: 0 / 0."""
    model = decoder(config, vocabulary_size)
    passes = 0

    def scale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal passes
        passes += module.training
        spread = float(passes < from_pass)
        return output * spread / spread if spread else output * 0.0 / 0.0

    model.blocks[-1].register_forward_hook(scale)
    return model


def sgd(groups: list[dict[str, Any]], *, momentum: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; above 1, its velocity grows by itself."""
    import torch

    return torch.optim.SGD(groups, lr=0.1, momentum=momentum)


def growing_adam(groups: list[dict[str, Any]], *, growth: float, from_step: int) -> torch.optim.Optimizer:
    """AdamW that makes weights grow from some step on, as a weight decay with the wrong sign does."""
    import torch

    class GrowingAdam(torch.optim.AdamW):
        """Makes every weight larger by `learning_rate * growth` of itself, then steps."""

        def step(self, closure: Any = None) -> Any:
            """One update."""
            with torch.no_grad():
                for group in self.param_groups:
                    first = self.state.get(group["params"][0])
                    if first and float(first["step"]) >= from_step - 1:
                        torch._foreach_mul_(group["params"], 1.0 + group["lr"] * growth)
            return super().step(closure)

    return GrowingAdam(groups, lr=1e-3, betas=(0.9, 0.95))


def waiting(sequences: Any, seconds: float, every: int = 1) -> Any:
    """Sequences whose every n-th batch takes so long to be read, as from a slow disk."""
    turn = itertools.count(1)

    class SlowSequences:
        """Waits, then gives what the sequences give."""

        def batch(self, indices: Any) -> Any:
            """The batch, late."""
            if next(turn) % every == 0:
                time.sleep(seconds)
            return sequences.batch(indices)

    return SlowSequences()


def uneven(sequences: Any, seconds: float) -> Any:
    """Sequences whose batches come over a busy network: each takes another time, most of them a short one."""
    latencies = np.random.default_rng(0).exponential(seconds, 4096)
    turn = itertools.count()

    class DistantSequences:
        """Waits, then gives what the sequences give."""

        def batch(self, indices: Any) -> Any:
            """The batch, when it has come."""
            time.sleep(float(latencies[next(turn) % len(latencies)]))
            return sequences.batch(indices)

    return DistantSequences()


# The texts: parts of packages that torch brings along.


def write_texts(folder: Path) -> None:
    """The texts that are files; the others are read where they lie."""
    import mpmath  # type: ignore[import-untyped]
    import networkx  # type: ignore[import-untyped]

    folder.mkdir(parents=True, exist_ok=True)
    graphs = "\n".join(path.read_text() for path in sorted(Path(networkx.__path__[0], "algorithms").glob("*.py")))
    numbers = "\n".join(path.read_text() for path in sorted(Path(mpmath.__path__[0]).rglob("*.py")))
    noise = np.random.default_rng(0).integers(33, 127, 6_144).astype(np.uint8).tobytes().decode()
    for name, text in {
        "tiny.txt": graphs[:14_000],
        "tiny2.txt": numbers[100_000:140_000],
        "short.txt": graphs[:120_000],
        "short2.txt": numbers[:200_000],
        "torn.txt": graphs[:160_000] + noise + graphs[160_000:480_000],
    }.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


# The table.


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row: what is trained, and what is wrong with it."""

    name: str
    truth: str
    """A code of the doctor, or `healthy`."""
    sentence: str
    settings: Mapping[str, Any]
    """On top of those that the set has in common."""
    onset: int | None = None
    """The first step that the fault acts on."""
    sound: Mapping[str, Any] | None = None
    """What the twin without the fault changes, besides leaving out the parts below."""
    model: Callable[[Config, int], nn.Module] | None = None
    make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None
    controllers: Callable[[], Sequence[Controller]] = tuple
    reading: Callable[[Any], Any] | None = None
    killed_at: int | None = None


COMMON: dict[int, dict[str, Any]] = {
    1: {
        "data.source": {"name": "embedded", "packages": ["networkx"]},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 64,
        "model": {"name": "decoder", "num_layers": 2, "hidden_size": 64, "num_heads": 2},
        "optimizer.learning_rate": 5e-3,
        "schedule": {"name": "cosine", "warmup": 0.05, "floor": 0.1},
        "training": {"steps": 400, "micro_batch_size": 8, "threads": 1, "compile": "off", "device": "cpu"},
        "evaluation": {"every": 40, "max_tokens": 8_192, "batch_size": 64, "gap_tokens": 4_096},
        "evaluation.samples.max_tokens": 0,
        "checkpoint": {"keep_latest": 1},
        "stopping": {"name": "none"},
        "seed": 1,
    },
    2: {
        "data.source": {"name": "embedded", "packages": ["mpmath"]},
        "data.tokenizer": {"name": "bpe", "vocabulary_size": 512},
        "data.sequence_length": 48,
        "model": {"name": "decoder", "num_layers": 3, "hidden_size": 48, "num_heads": 3, "activation": "swiglu"},
        "optimizer.learning_rate": 4e-3,
        "schedule": {"name": "cosine", "warmup": 30, "floor": 0.05},
        "training": {"steps": 480, "micro_batch_size": 10, "threads": 1, "compile": "off", "device": "cpu"},
        "evaluation": {"every": 60, "max_tokens": 6_144, "batch_size": 64, "gap_tokens": 6_144},
        "evaluation.samples.max_tokens": 0,
        "checkpoint": {"keep_latest": 1},
        "stopping": {"name": "none"},
        "seed": 22,
    },
}


def text_file(name: str) -> dict[str, Any]:
    """The settings for a text that is a file."""
    return {"data.source": {"name": "text", "path": f"texts/{name}"}, "data.validation_fraction": 0.15}


SET_1: tuple[Run, ...] = (
    Run(
        name="overfitting",
        truth="overfitting",
        sentence="14 kB of text, seen 26 times, no dropout, stopping off",
        settings={**text_file("tiny.txt"), "training.steps": 600, "evaluation.every": 30, "schedule.floor": 0.3},
        onset=210,
    ),
    Run(
        name="overfitting-mild",
        truth="overfitting",
        sentence="14 kB of text, seen 18 times, cosine to 0: the validation loss turns up by little, and then stands",
        settings={**text_file("tiny.txt"), "evaluation.every": 20, "schedule.floor": 0.0},
        onset=240,
    ),
    Run(
        name="underfitting",
        truth="underfitting",
        sentence="one layer of width 6 for text that a width of 64 learns: it has learned what it can",
        settings={
            "model": {"name": "decoder", "num_layers": 1, "hidden_size": 6, "num_heads": 1},
            "optimizer.learning_rate": 2e-2,
            "schedule.floor": 0.0,
            "training.steps": 1200,
            "evaluation.every": 100,
        },
        onset=1,
        sound={
            "model": {"name": "decoder", "num_layers": 2, "hidden_size": 64, "num_heads": 2},
            "optimizer.learning_rate": 5e-3,
        },
    ),
    Run(
        name="divergence",
        truth="divergence",
        sentence="weight decay gets the wrong sign at step 201: weights grow by 1.5 % a step, the loss leaves for good",
        settings={"schedule": {"name": "constant", "warmup": 0.05}},
        onset=201,
        make_optimizer=lambda groups: growing_adam(groups, growth=3.0, from_step=201),
    ),
    Run(
        name="nan-loss",
        truth="nan-loss",
        sentence="a normalization of one's own divides 0 by 0 from step 241 on",
        settings={},
        onset=241,
        model=lambda config, vocabulary: division_by_nothing(config, vocabulary, from_pass=241),
    ),
    Run(
        name="loss-spike",
        truth="loss-spike",
        sentence="a controller puts ten times the rate for 10 steps, then the rate of the schedule again",
        settings={"schedule": {"name": "wsd", "warmup": 0.05}},
        onset=201,
        controllers=lambda: [RateFactors({190: 10.0, 200: 1.0})],
    ),
    Run(
        name="loss-spike-mild",
        truth="loss-spike",
        sentence="a controller puts ten times the rate for 5 steps, when it is half decayed already",
        settings={"logging.every": 5},
        onset=206,
        controllers=lambda: [RateFactors({200: 10.0, 205: 1.0})],
    ),
    Run(
        name="learning-rate-too-high",
        truth="learning-rate-too-high",
        sentence="AdamW at 0.05, ten times what suits this model",
        settings={"optimizer.learning_rate": 5e-2},
        onset=1,
        sound={"optimizer.learning_rate": 5e-3},
    ),
    Run(
        name="learning-rate-too-high-mild",
        truth="learning-rate-too-high",
        sentence="AdamW at 0.02, four times what suits this model, with a floor of half of that",
        settings={"optimizer.learning_rate": 2e-2, "schedule.floor": 0.5},
        onset=1,
        sound={"optimizer.learning_rate": 5e-3},
    ),
    Run(
        name="learning-rate-too-low",
        truth="learning-rate-too-low",
        sentence="AdamW at 2e-5, two hundred times less than what suits this model",
        settings={"optimizer.learning_rate": 2e-5, "schedule": {"name": "constant", "warmup": 0.05}},
        onset=1,
        sound={"optimizer.learning_rate": 5e-3},
    ),
    Run(
        name="noisy-loss",
        truth="noisy-loss",
        sentence="one sequence of 16 tokens a step at a constant rate, of which a third does no better",
        settings={
            "training.micro_batch_size": 1,
            "data.sequence_length": 16,
            "training.steps": 1000,
            "evaluation.every": 100,
            "optimizer.learning_rate": 1e-3,
            "schedule": {"name": "constant", "warmup": 0.05},
        },
        onset=1,
        sound={"training.micro_batch_size": 64},
    ),
    Run(
        name="frozen-parameters",
        truth="frozen-parameters",
        sentence="a forgotten detach after block 3 of 4: embedding and three blocks get no gradient",
        settings={"model.num_layers": 4, "model.tied_embeddings": False},
        onset=1,
        model=lambda config, vocabulary: cut_below(config, vocabulary, block=2),
    ),
    Run(
        name="input-bound",
        truth="input-bound",
        sentence="every batch takes 0.6 s to be read, many times as long as a step",
        settings={"training.steps": 60, "evaluation.every": 20},
        onset=1,
        reading=lambda sequences: waiting(sequences, 0.6),
    ),
    Run(
        name="input-bound-bursts",
        truth="input-bound",
        sentence="every eighth batch takes 3 s, as when a new file is opened: most steps do not wait, the run does",
        settings={"training.steps": 100, "evaluation.every": 25, "seed": 14},
        onset=1,
        reading=lambda sequences: waiting(sequences, 3.0, every=8),
    ),
    Run(name="cosine", truth=HEALTHY, sentence="cosine schedule with warm-up, the plainest of runs", settings={}),
    Run(
        name="wsd",
        truth=HEALTHY,
        sentence="constant rate, then a fall over the last fifth, in which the loss drops fast",
        settings={"schedule": {"name": "wsd", "warmup": 0.05, "decay": 0.2}, "seed": 2},
    ),
    Run(
        name="linear",
        truth=HEALTHY,
        sentence="linear warm-up over a tenth of the run, linear decay to 0",
        settings={"schedule": {"name": "linear", "warmup": 0.1}, "seed": 3},
    ),
    Run(
        name="constant",
        truth=HEALTHY,
        sentence="a sound rate that never falls: the loss still creeps down at the end",
        settings={"schedule": {"name": "constant", "warmup": 0.05}, "optimizer.learning_rate": 2e-3, "seed": 4},
    ),
    Run(
        name="dropout",
        truth=HEALTHY,
        sentence="dropout 0.2 on 120 kB seen four times: the training loss lies above the validation loss",
        settings={**text_file("short.txt"), "model.dropout": {"residual": 0.2, "feed_forward": 0.2}, "seed": 5},
    ),
    Run(
        name="small-batch",
        truth=HEALTHY,
        sentence="two sequences a step at a rate to match: noisy, and it learns all the same",
        settings={
            "training.micro_batch_size": 2,
            "training.steps": 1200,
            "evaluation.every": 120,
            "optimizer.learning_rate": 2e-3,
            "seed": 6,
        },
    ),
    Run(
        name="patience",
        truth=HEALTHY,
        sentence="a small text, many epochs planned; patience stops in time and restores the best",
        settings={
            **text_file("short.txt"),
            "training.steps": 1500,
            "evaluation.every": 40,
            "schedule": {"name": "constant", "warmup": 0.02},
            "stopping": {"name": "patience", "patience": 3},
            "seed": 7,
        },
    ),
    Run(
        name="label-smoothing",
        truth=HEALTHY,
        sentence="label smoothing 0.1: the training loss has a floor of its own and lies above the validation loss",
        settings={"objective.label_smoothing": 0.1, "seed": 8},
    ),
    Run(
        name="post-norm",
        truth=HEALTHY,
        sentence="post-norm with a long warm-up: slow at first, and then as good as pre-norm",
        settings={"model.norm": {"name": "layer_norm", "placement": "post"}, "schedule.warmup": 0.2, "seed": 9},
    ),
    Run(
        name="resumed",
        truth=HEALTHY,
        sentence="killed without a warning at step 230, and resumed from the checkpoint of step 200",
        settings={"seed": 10},
        killed_at=230,
    ),
    Run(
        name="accumulation",
        truth=HEALTHY,
        sentence="four micro-batches of four in every update",
        settings={"training.micro_batch_size": 4, "training.accumulation": 4, "seed": 11},
    ),
    Run(
        name="sixty-steps",
        truth=HEALTHY,
        sentence="a trial of 60 steps, with three evaluations",
        settings={"training.steps": 60, "evaluation.every": 20, "schedule.warmup": 6, "seed": 12},
    ),
    Run(
        name="recurrent",
        truth=HEALTHY,
        sentence="a GRU from elsewhere as the model",
        settings={"optimizer.learning_rate": 1e-2, "optimizer.weight_decay": 0.01, "seed": 13},
        model=lambda config, vocabulary: tiny_gru(config, vocabulary, width=96),
    ),
)

SET_2: tuple[Run, ...] = (
    Run(
        name="overfitting",
        truth="overfitting",
        sentence="40 kB of text, seen some twenty times by a model without dropout, constant rate",
        settings={
            **text_file("tiny2.txt"),
            "model": {"name": "decoder", "num_layers": 2, "hidden_size": 96, "num_heads": 2},
            "training.steps": 500,
            "evaluation.every": 25,
            "schedule": {"name": "constant", "warmup": 20},
        },
        onset=175,
    ),
    Run(
        name="underfitting",
        truth="underfitting",
        sentence="a GRU of width 6 for text that one of width 96 learns better by far",
        settings={
            "optimizer.learning_rate": 2e-2,
            "training": {"steps": 900, "micro_batch_size": 12, "threads": 1, "compile": "off", "device": "cpu"},
            "evaluation.every": 60,
            "schedule.floor": 0.0,
        },
        onset=1,
        sound={"optimizer.learning_rate": 4e-3},
        model=lambda config, vocabulary: tiny_gru(config, vocabulary, width=6),
    ),
    Run(
        name="divergence",
        truth="divergence",
        sentence="a controller puts ten times the rate at step 350 and leaves it there: the loss leaves for good",
        settings={
            "optimizer.learning_rate": 8e-3,
            "schedule": {"name": "constant", "warmup": 30},
            "gradients.clip": {"name": "none"},
        },
        onset=361,
        controllers=lambda: [RateFactors({350: 10.0})],
    ),
    Run(
        name="nan-loss",
        truth="nan-loss",
        sentence="attention looks back less far every hundred steps; at a span of 0 it is a softmax of nothing",
        settings={"optimizer.learning_rate": 3e-3},
        onset=401,
        model=lambda config, vocabulary: shrinking_span(
            config, vocabulary, width=48, spans={0: 48, 101: 32, 201: 16, 301: 8, 401: 0}
        ),
    ),
    Run(
        name="loss-spike",
        truth="loss-spike",
        sentence="not shuffled, and 6 kB of the text are random characters: a dozen steps in the middle are garbage",
        settings={
            **text_file("torn.txt"),
            "data.tokenizer": {"name": "bytes"},
            "data.shuffle": False,
            "training.steps": 640,
            "evaluation.every": 80,
        },
        onset=334,
    ),
    Run(
        name="learning-rate-too-high",
        truth="learning-rate-too-high",
        sentence="AdamW at 0.06 and never less, fifteen times what suits this model",
        settings={"optimizer.learning_rate": 6e-2, "schedule": {"name": "constant", "warmup": 30}},
        onset=1,
        sound={"optimizer.learning_rate": 4e-3, "schedule": {"name": "cosine", "warmup": 30, "floor": 0.05}},
    ),
    Run(
        name="learning-rate-too-low",
        truth="learning-rate-too-low",
        sentence="AdamW at 5e-5, eighty times less than what suits this model",
        settings={"optimizer.learning_rate": 5e-5, "schedule": {"name": "linear", "warmup": 30}},
        onset=1,
        sound={"optimizer.learning_rate": 4e-3},
    ),
    Run(
        name="noisy-loss",
        truth="noisy-loss",
        sentence="one sequence of 12 tokens a step at a constant rate, of which half does no better",
        settings={
            "training.micro_batch_size": 1,
            "data.sequence_length": 12,
            "training.steps": 1400,
            "evaluation.every": 140,
            "optimizer.learning_rate": 2e-3,
            "schedule": {"name": "constant", "warmup": 30},
        },
        onset=1,
        sound={"training.micro_batch_size": 64},
    ),
    Run(
        name="frozen-parameters",
        truth="frozen-parameters",
        sentence="embedding and two blocks of three do not require a gradient, though nothing was trained before",
        settings={"model.tied_embeddings": False},
        onset=1,
        model=lambda config, vocabulary: left_out_below(config, vocabulary, block=1),
    ),
    Run(
        name="input-bound",
        truth="input-bound",
        sentence="batches come over a network: 0.5 s each on average, many at once and some after two seconds",
        settings={"training.micro_batch_size": 8, "training.steps": 80, "evaluation.every": 20},
        onset=1,
        reading=lambda sequences: uneven(sequences, 0.5),
    ),
    Run(
        name="cosine",
        truth=HEALTHY,
        sentence="cosine schedule, restless at a rate in the upper part of what is sound",
        settings={"optimizer.learning_rate": 8e-3},
    ),
    Run(
        name="wsd",
        truth=HEALTHY,
        sentence="warm-up, constant, a fall over the last 150 steps after the square root",
        settings={"schedule": {"name": "wsd", "warmup": 40, "decay": 150, "shape": "sqrt"}, "seed": 23},
    ),
    Run(
        name="linear",
        truth=HEALTHY,
        sentence="linear decay from the third step on, of an unhurried rate",
        settings={"schedule": {"name": "linear", "warmup": 2}, "optimizer.learning_rate": 2e-3, "seed": 24},
    ),
    Run(
        name="constant",
        truth=HEALTHY,
        sentence="constant rate, with a z-loss, RMSNorm and qk-norm",
        settings={
            "schedule": {"name": "constant", "warmup": 40},
            "optimizer.learning_rate": 2e-3,
            "objective.z_loss": 1e-4,
            "model.norm": {"name": "rms_norm"},
            "model.qk_norm": True,
            "seed": 25,
        },
    ),
    Run(
        name="dropout",
        truth=HEALTHY,
        sentence="dropout 0.2 everywhere, embedding and attention included, on 200 kB seen three times",
        settings={
            **text_file("short2.txt"),
            "model.dropout": {"embedding": 0.2, "attention": 0.2, "residual": 0.2, "feed_forward": 0.2},
            "lint.allow": ["attention-dropout", "high-dropout-small-model"],
            "seed": 26,
        },
    ),
    Run(
        name="small-batch",
        truth=HEALTHY,
        sentence="one sequence of 48 tokens a step at a low rate that decays",
        settings={
            "training.micro_batch_size": 1,
            "training.steps": 2000,
            "evaluation.every": 200,
            "optimizer.learning_rate": 2e-3,
            "seed": 27,
        },
    ),
    Run(
        name="patience",
        truth=HEALTHY,
        sentence="40 kB, a hundred epochs planned; patience stops in time and restores the best",
        settings={
            **text_file("tiny2.txt"),
            "model.dropout": {"residual": 0.1, "feed_forward": 0.1},
            "training.steps": 2000,
            "evaluation.every": 25,
            "schedule": {"name": "linear", "warmup": 20},
            "optimizer.learning_rate": 2e-3,
            "stopping": {"name": "patience", "patience": 4},
            "seed": 28,
        },
    ),
    Run(
        name="label-smoothing",
        truth=HEALTHY,
        sentence="label smoothing 0.2 over the other classes",
        settings={"objective": {"label_smoothing": 0.2, "spread": "others"}, "seed": 29},
    ),
    Run(
        name="post-norm",
        truth=HEALTHY,
        sentence="post-norm of four layers with learned positions, warmed up over a quarter of the run",
        settings={
            "model.num_layers": 4,
            "model.norm": {"name": "rms_norm", "placement": "post"},
            "model.positions": {"name": "learned"},
            "schedule.warmup": 0.25,
            "seed": 30,
        },
    ),
    Run(
        name="resumed",
        truth=HEALTHY,
        sentence="killed at step 75, soon after the first checkpoint, and resumed from step 60",
        settings={"seed": 31},
        killed_at=75,
    ),
    Run(
        name="accumulation",
        truth=HEALTHY,
        sentence="eight micro-batches of two in every update",
        settings={
            "training.micro_batch_size": 2,
            "training.accumulation": 8,
            "training.steps": 300,
            "evaluation.every": 50,
            "seed": 32,
        },
    ),
    Run(
        name="short",
        truth=HEALTHY,
        sentence="a trial of 100 steps that evaluates once, at its end",
        settings={"training.steps": 100, "schedule.warmup": 10, "lint.allow": ["evaluation-never"], "seed": 33},
    ),
    Run(
        name="sgd",
        truth=HEALTHY,
        sentence="a GRU from elsewhere, trained by SGD with momentum 0.9 from elsewhere",
        settings={"optimizer.learning_rate": 0.5, "optimizer.weight_decay": 0.0, "seed": 34},
        model=lambda config, vocabulary: tiny_gru(config, vocabulary, width=64),
        make_optimizer=lambda groups: sgd(groups, momentum=0.9),
    ),
)

SETS: dict[int, tuple[Run, ...]] = {1: SET_1, 2: SET_2}


# Making them.


def configuration(run: Run, number: int, *, twin: bool = False) -> Config:
    """The whole configuration of a run, or of the same without its fault."""
    values = {**COMMON[number], "name": run.name, **run.settings, **((run.sound or {}) if twin else {})}
    return load_config("gpt-1m", [f"{name}={json.dumps(value)}" for name, value in values.items()])


def train(run: Run, number: int, path: Path, *, twin: bool) -> None:
    """Train, in this process and this directory."""
    import trimtab.trainer
    from trimtab.data import Loader, prepare_data
    from trimtab.trainer import Trainer

    config = configuration(run, number, twin=twin)
    model = None
    if run.model is not None and not (twin and run.truth != HEALTHY):
        data = prepare_data(config.data, seed=config.seed, micro_batch_size=config.training.micro_batch_size)
        model = run.model(config, data.tokenizer.vocabulary_size)
    if run.reading is not None and not twin:
        reading = run.reading

        def slow(sequences: Any, *rest: Any, **named: Any) -> Loader:
            return Loader(reading(sequences), *rest, **named)

        trimtab.trainer.Loader = slow  # type: ignore[attr-defined, assignment]
    Trainer(
        config,
        run=path,
        model=model,
        make_optimizer=None if twin else run.make_optimizer,
        controllers=() if twin else run.controllers(),
        monitors=() if run.killed_at is None else [KilledOnce(run.killed_at)],
    ).fit()


def make(run: Run, number: int, folder: Path, *, twin: bool = False) -> Path:
    """The directory of the run, made now unless it is complete already. Raises: SystemExit when it cannot be made."""
    name = f"{run.name}.twin" if twin else run.name
    path = folder / name
    with contextlib.suppress(TrimtabError):
        wanted = dump_config(configuration(run, number, twin=twin))
        if RunDirectory.open(path).status() in WHOLE and (path / "config.yaml").read_text() == wanted:
            return path
    shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--set", str(number), "--make", run.name]
    command += ["--twins"] if twin else []
    for _ in range(1 if run.killed_at is None else 2):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=_environment())
        if done.returncode == 0:
            return path
    shutil.rmtree(path, ignore_errors=True)
    raise SystemExit(f"{name} could not be made (exit code {done.returncode}):\n{done.stderr[-4000:]}")


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


# Looking at them.


def losses(path: Path) -> dict[str, Any]:
    """Where the losses of a run begin, are best, and end, and how much they scatter."""
    case = open_case(RunDirectory.open(path))
    loss, validation = case.loss(), case.validation_loss()
    values = loss.finite()[1] if loss else np.empty(0)
    few = max(1, len(values) // 20)
    tail = values[-len(values) // 4 :]
    trend = np.polyval(np.polyfit(np.arange(len(tail)), tail, 1), np.arange(len(tail))) if len(tail) > 2 else tail
    smooth = np.convolve(values, np.ones(few) / few, "valid") if len(values) else values
    steps, held_out = validation.finite() if validation else (np.empty(0, np.int64), np.empty(0))
    best = int(np.argmin(held_out)) if len(held_out) else None
    rate = case.history.get("learning_rate")
    slice_loss = case.history.get("training_slice/loss")
    return {
        "start": _value(values[:1]),
        "lowest": _value(smooth.min(keepdims=True) if len(smooth) else smooth),
        "final": _value(values[-few:]),
        "noise": float((tail - trend).std()) if len(tail) else None,
        "validation_first": _value(held_out[:1]),
        "validation_best": None if best is None else float(held_out[best]),
        "validation_best_step": None if best is None else int(steps[best]),
        "validation_final": _value(held_out[-1:]),
        "slice_final": None if slice_loss is None else _value(slice_loss.finite()[1][-1:]),
        "rate": float(np.nanmax(rate.maximum)) if rate else None,
        "steps": case.history.last_step,
        "bad": loss.num_bad if loss else 0,
        "bigrams": _bigrams(case.facts),
        "ended": case.history.ended.status if case.history.ended else None,
        "parameters": case.facts.get("parameters"),
    }


def _value(values: np.ndarray[Any, Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _bigrams(facts: Mapping[str, Any]) -> float | None:
    """What counting pairs of tokens reaches, in nats a token."""
    yardsticks, held_out = facts.get("yardsticks") or {}, facts.get("validation") or {}
    if "bigram" not in yardsticks or "bytes_per_token" not in held_out:
        return None
    return float(yardsticks["bigram"]) * float(held_out["bytes_per_token"]) * math.log(2)


def index_line(run: Run, path: Path) -> str:
    """A row of INDEX.md."""
    seen = losses(path)
    cells = [path.name, run.truth, run.sentence, _number(run.onset)]
    cells += [_number(seen[key]) for key in ("start", "lowest", "final", "noise", "validation_first")]
    cells.append(f"{_number(seen['validation_best'])} at {_number(seen['validation_best_step'])}")
    last = ("validation_final", "slice_final", "bigrams", "rate", "steps", "bad", "ended")
    cells += [_number(seen[key]) for key in last]
    return "| " + " | ".join(cells) + " |"


INDEX_HEAD = (
    "| run | truth | sentence | onset | start | lowest | final | noise | val first | val best | val final "
    "| slice final | bigrams | rate | steps | bad | ended |\n" + "|---" * 17 + "|\n"
)


def write_index(runs: Sequence[Run], folder: Path) -> None:
    """DIR/INDEX.md: every run that is complete, and its twin."""
    lines = []
    for run in runs:
        for path in (folder / run.name, folder / f"{run.name}.twin"):
            with contextlib.suppress(TrimtabError):
                if RunDirectory.open(path).status() in WHOLE:
                    lines.append(index_line(run, path))
    aside = folder / f".INDEX.{os.getpid()}.md"
    aside.write_text(INDEX_HEAD + "\n".join(lines) + "\n")
    aside.replace(folder / "INDEX.md")


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


# Judging them.


@final
@dataclass(frozen=True, slots=True)
class Judgement:
    """What the doctor said of a run, and whether that is right."""

    run: str
    truth: str
    planted_onset: int | None
    first: str | None
    severity: str | None
    confidence: float | None
    onset: int | None
    right: bool
    others: tuple[str, ...]


def judge(run: Run, diagnosis: Diagnosis) -> Judgement:
    """The first finding against the truth."""
    loud = [finding for finding in diagnosis.findings if finding.severity != "info"]
    first = next(iter(diagnosis.findings), None)
    if run.truth == HEALTHY:
        right = not loud
    else:
        right = first is not None and first.code == run.truth and first.severity != "info"
    return Judgement(
        run.name,
        run.truth,
        run.onset,
        None if first is None else first.code,
        None if first is None else first.severity,
        None if first is None else round(first.confidence, 2),
        None if first is None else first.onset_step,
        right,
        tuple(f"{finding.code} ({finding.severity})" for finding in diagnosis.findings[1:]),
    )


def judgements(runs: Sequence[Run], folder: Path) -> Iterator[Judgement]:
    """One for each run in `folder`."""
    for run in runs:
        yield judge(run, diagnose(open_case(RunDirectory.open(folder / run.name)), run.name))


COLUMNS = f"{'run':<30}{'truth':<24}{'first finding':<26}{'severity':<10}{'sure':>5}{'onset':>7}{'planted':>9}  "


def row(one: Judgement) -> str:
    """A line of the table."""
    said = f"{one.first or 'nothing':<26}{one.severity or '':<10}{_number(one.confidence):>5}{_number(one.onset):>7}"
    verdict = "right" if one.right else "wrong"
    also = f"  also {', '.join(one.others)}" if one.others else ""
    return f"{one.run:<30}{one.truth:<24}{said}{_number(one.planted_onset):>9}  {verdict}{also}"


def totals(judged: Sequence[Judgement]) -> str:
    """The two figures."""
    faulty = [one for one in judged if one.truth != HEALTHY]
    sound = [one for one in judged if one.truth == HEALTHY]
    named, alarms = sum(one.right for one in faulty), sum(not one.right for one in sound)
    return f"faults named first {named}/{len(faulty)}, false alarms {alarms}/{len(sound)}"


# Packing them.


def pack(runs: Sequence[Run], number: int, folder: Path, file: Path) -> None:
    """Put the logs of a set into a .tar.xz, in place of those of the same set; `runs.json` in it is the table."""
    table: dict[str, Any] = {"generator": "benchmarks/doctor/twenty_runs.py", "sha256": {}, "runs": []}
    contents: dict[str, bytes] = {}
    if file.exists():
        with tarfile.open(file) as archive:
            for member in archive.getmembers():
                if (stream := archive.extractfile(member)) is not None:
                    contents[member.name] = stream.read()
        table = json.loads(contents.pop("runs.json"))
    contents = {name: content for name, content in contents.items() if not name.startswith(f"{number}/")}
    table["sha256"][str(number)] = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    table["runs"] = [row for row in table["runs"] if row["set"] != number]
    for run in runs:
        row = {"name": run.name, "truth": run.truth, "onset": run.onset, "sentence": run.sentence}
        table["runs"].append({"set": number, **row})
        contents |= {f"{number}/{run.name}/{name}": content for name, content in logs(folder / run.name)}
    with tarfile.open(file, "w:xz", preset=9) as archive:
        _add(archive, "runs.json", json.dumps(table, indent=1).encode())
        for name in sorted(contents, key=lambda name: (Path(name).suffix, name)):  # what is alike lies together
            _add(archive, name, contents[name])


def logs(path: Path) -> Iterator[tuple[str, bytes]]:
    """What the doctor reads of a run, without traces of the machine that it was made on."""
    for name in ("config.yaml", "facts.json", "record.jsonl"):
        yield name, (path / name).read_bytes()
    surroundings = json.loads((path / "environment.json").read_bytes())
    kept = {name: surroundings[name] for name in ("schema", "versions", "seed", "source")}
    yield "environment.json", json.dumps(kept).encode()
    for part in sorted((path / "statistics").iterdir()):
        yield f"statistics/{part.name}", part.read_bytes()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=int, choices=sorted(SETS), default=1, dest="number")
    parser.add_argument("--only", action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--twins", action="store_true", help="make the faulty runs without their fault, too")
    parser.add_argument("--list", action="store_true", help="the table of runs; nothing is made")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="put the logs into a file (.tar.xz)")
    parser.add_argument("--make", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    runs = SETS[arguments.number]
    if arguments.make is not None:
        run = next(run for run in runs if run.name == arguments.make)
        path = Path(f"{run.name}.twin" if arguments.twins else run.name)
        train(run, arguments.number, path, twin=arguments.twins)
        return
    if arguments.only:
        unknown = set(arguments.only) - {run.name for run in runs}
        if unknown:
            parser.error(f"no such run: {', '.join(sorted(unknown))}")
        chosen = tuple(run for run in runs if run.name in arguments.only)
    else:
        chosen = runs
    if arguments.list:
        for run in chosen:
            print(f"{run.name:<30}{run.truth:<24}{run.sentence}")
        return
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        write_texts(folder / "texts")
        print(COLUMNS)
        judged: list[Judgement] = []
        for run in chosen:
            make(run, arguments.number, folder)
            write_index(runs, folder)
            if arguments.twins and run.truth != HEALTHY:
                make(run, arguments.number, folder, twin=True)
                write_index(runs, folder)
            judged += judgements([run], folder)
            print(row(judged[-1]), flush=True)
        print(totals(judged))
        if arguments.twins:
            for run in chosen:
                if run.truth != HEALTHY:
                    with_fault, without = (losses(folder / name) for name in (run.name, f"{run.name}.twin"))
                    print(
                        f"{run.name:<30} final validation loss {_number(with_fault['validation_final'])}, "
                        f"without the fault {_number(without['validation_final'])}"
                    )
        if arguments.json:
            arguments.json.write_text(json.dumps([dataclasses.asdict(one) for one in judged], indent=1))
        if arguments.pack:
            pack(chosen, arguments.number, folder, arguments.pack)


if __name__ == "__main__":
    main()
