"""A quick active examination: what a few minutes of trying tell of a configuration, its data and its model."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.assembly import Parts
from trimtab.config import CausalLanguageModeling, Config, Contrastive, SequenceToSequence
from trimtab.data import DataPlan, PreparedData
from trimtab.errors import TrimtabError
from trimtab.events import Adjust
from trimtab.experiments.checks import (
    Check,
    in_agreement,
    judge_future,
    judge_gradients,
    judge_modes,
    judge_one_batch,
    judge_rate,
)
from trimtab.experiments.learning_rate import find_learning_rate
from trimtab.experiments.short_training import LEAST_STEPS, READ_EVERY, train
from trimtab.experiments.shuffling import try_shuffled
from trimtab.model import evaluating, set_dropout_factor
from trimtab.runs.checkpoints import list_checkpoints
from trimtab.signals import IGNORED, Batch, ModelOutput, Task, seeded, set_randomness
from trimtab.trainer import Trainer
from trimtab.training import Progress, build_adjustments
from trimtab.training.execution import garbage_rests, keep_freed_memory, set_threads
from trimtab.training.facts import planned_tokens
from trimtab.training.memory import out_of_memory_explained
from trimtab.training.trained import open_trained

STEPS: Final = 100
"""Of each short training; of one batch twice as many."""
ROWS: Final = 2
"""Samples that are to be learned by heart."""
_JUDGED: Final = 8
_DRAWS: Final = 4
_POSITIONS: Final = 4

Told = Callable[[str, float], None]


def examine(
    config: Config,
    run: Path | None = None,
    *,
    steps: int = STEPS,
    report: Told | None = None,
) -> list[Check]:
    """Six questions to what `config` describes, each with its answer: minutes, as every training is short.

    A learning-rate range test; one batch learned by heart, without regularization; targets shuffled among samples;
    training and eval mode; which parameters get no gradient; whether a position sees only the past. The last three are
    put to the newest checkpoint of `run` where it has one, else to the model that learned one batch. A check that does
    not apply, or cannot be made, is left out and says why. Nothing is written but the cache of prepared data, and the
    global randomness is put back.

    Raises: what preparing the data and building the model raise.
    """
    told = report or (lambda what, fraction: None)
    config = config.model_copy(
        update={"logging": config.logging.model_copy(update={"every": READ_EVERY, "layers": False})}
    )
    checks: list[Check] = []
    with seeded(config.seed), out_of_memory_explained(), garbage_rests():
        data, parts = Trainer(config, report=report).assemble()
        set_threads(config.training.threads)
        if parts.device.type == "cpu":
            keep_freed_memory()
        rate = config.full_rate
        with _timed(checks, "learning rate", told):
            test = find_learning_rate(config, steps=max(steps, LEAST_STEPS), report=report)
            checks.append(judge_rate(test, rate))
            if test.suggestion is not None:  # as sound as can be: between what is set and where the loss falls fastest
                rate = (
                    math.sqrt(rate * test.suggestion * test.scale)
                    if checks[-1].verdict == "passed"
                    else (test.suggestion * test.scale)
                )
        with _timed(checks, "one batch", told):
            checks.append(_one_batch(config, data, parts, rate, 2 * steps, told))
        with _timed(checks, "shuffled targets", told):
            rows = config.evaluation_batch_size if config.split is None else config.split.micro_batch_size
            checks.append(try_shuffled(config, data, rows, rate, steps, told))
        model = _trained(run) or parts.model
        batch = _training_batch(data, _JUDGED).to(parts.device)
        with _timed(checks, "modes", told):
            checks.append(_modes(config, model, parts.task, batch))
        with _timed(checks, "gradients", told):
            checks.append(_gradients(config, model, parts.task, batch))
        with _timed(checks, "future", told):
            checks.append(_future(config, model, parts.task, batch))
    return in_agreement(checks)


@contextmanager
def _timed(checks: list[Check], name: str, told: Told) -> Iterator[None]:
    """Add how long it took to the check that is made inside; one that fails by an error of ours is left out."""
    begun, num = time.perf_counter(), len(checks)
    told(name, 0.0)
    try:
        yield
    except TrimtabError as error:
        checks[num:] = [Check(name, "left out", f"it could not be made: {error}")]
    checks[num:] = [replace(one, seconds=round(time.perf_counter() - begun, 3)) for one in checks[num:]]


def _one_batch(config: Config, data: PreparedData, parts: Parts, rate: float, steps: int, told: Told) -> Check:
    rows = 2 * ROWS if isinstance(config.task, Contrastive) else ROWS
    budget = config.budget(data.facts | planned_tokens(config, data))
    adjustments = build_adjustments(config, parts.model, parts.objective, Progress(), budget, lambda index: None)
    present = [name for name in ("dropout", "label_smoothing", "z_loss") if not adjustments.why_not(name)]
    for name in present:
        adjustments.take("examination", Adjust("a batch is to be learned by heart", name, 0.0))
    batch = _training_batch(data, rows)
    first: list[float] = []

    def is_learned(loss: float) -> bool:
        first.append(loss)
        return loss <= 0.05 * first[0]

    losses = train(
        config, parts, lambda step: [batch], rate, steps, lambda part: told("one batch", part), is_learned, decay=0.0
    )
    for name in present:  # what else is asked of this model, is asked with them
        adjustments.take("examination", Adjust("the batch is learned", name, 1.0))
    return judge_one_batch(losses, rows)


def _trained(run: Path | None) -> nn.Module | None:
    """The model of the newest checkpoint; None where there is none."""
    if run is None or not list_checkpoints(run):
        return None
    return open_trained(run, "latest").model


def _training_batch(data: PreparedData, rows: int) -> Batch:
    """The first samples of the training data in their order."""
    loader = data.loader(min(rows, max(1, len(data.training))), prefetch=1, pin_memory=False)
    try:
        loader.start(0, DataPlan())
        return loader.take(1).batches[0]
    finally:
        loader.close()


def _loss(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """Mean of the plain losses of counted targets."""
    losses = task.terms(model(**task.inputs(batch)), batch).losses
    return losses.double().sum() / max(1, batch.count)


def _modes(config: Config, model: nn.Module, task: Task, batch: Batch) -> Check:
    device = batch.tokens_BT.device
    found: list[float] = []
    with evaluating(model):
        for draw in (1, 2):
            set_randomness(config.seed, draw, 0, "probe", device)
            found.append(float(_loss(model, task, batch)))
    training = copy.deepcopy(model).train()
    set_dropout_factor(training, 0.0)  # on a few samples it may lower the loss by chance, and says nothing of eval mode
    drawn: list[float] = []
    with torch.no_grad():
        for draw in range(_DRAWS):
            set_randomness(config.seed, draw, 1, "probe", device)
            drawn.append(float(_loss(training, task, batch)))
    error = float(np.std(drawn, ddof=1)) / math.sqrt(_DRAWS)
    return judge_modes(found[0], found[1], float(np.mean(drawn)), error)


def _gradients(config: Config, model: nn.Module, task: Task, batch: Batch) -> Check:
    model = copy.deepcopy(model).train()
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    frozen = [name for name, one in model.named_parameters() if not one.requires_grad]
    set_randomness(config.seed, 0, 2, "probe", batch.tokens_BT.device)
    counts = {"target": max(1, batch.count), "sequence": batch.tokens_BT.shape[0]}
    with torch.enable_grad():
        terms = task.terms(model(**task.inputs(batch)), batch).terms
        loss = sum((term.sum / counts[term.unit] * term.weight for term in terms), torch.zeros(()))
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    outside = [name for name, one in zip(named, found, strict=True) if one is None]
    norms = {name: float(one.double().norm()) for name, one in zip(named, found, strict=True) if one is not None}
    return judge_gradients(
        outside,
        [name for name, norm in norms.items() if norm == 0.0],
        [name for name, norm in norms.items() if not np.isfinite(norm)],
        frozen,
        len(named),
    )


def _future(config: Config, model: nn.Module, task: Task, batch: Batch) -> Check:
    """Change one token of what a decoder reads at a time, and look at the answers before it."""
    reads: str
    match config.task:
        case CausalLanguageModeling():
            reads = "tokens_BT"
        case SequenceToSequence():
            reads = "second_BS"
        case _:
            return Check("future", "left out", f"with task {config.task.name} every position may see all others")
    tokens: Tensor = getattr(batch, reads)
    length = int(tokens.shape[1])
    places = sorted({int(place) for place in np.linspace(1, length - 1, min(_POSITIONS, length - 1))})
    if not places:
        return Check("future", "left out", "a sequence of one position has no past")
    changed = size = 0.0
    with evaluating(model):
        before = _logits(model(**task.inputs(batch)))
        size = float(before.abs().max())
        for place in places:
            other = tokens.clone()
            other[:, place] = _others(tokens)[:, place]
            asked = replace(batch, tokens_BT=other) if reads == "tokens_BT" else replace(batch, second_BS=other)
            after = _logits(model(**task.inputs(asked)))
            changed = max(changed, float((after[:, :place] - before[:, :place]).abs().max()))
    counted = batch.targets != IGNORED
    copies = float((batch.targets == tokens)[counted].double().mean()) if counted.any() else 0.0
    return judge_future(changed, size, copies, len(places))


def _others(tokens: Tensor) -> Tensor:
    """At each place a token that stands elsewhere in the batch, and is another one where there is any."""
    known: Sequence[int] = sorted({int(one) for one in tokens.flatten().tolist() if one >= 0})
    successors = {one: known[(index + 1) % len(known)] for index, one in enumerate(known)}
    changed = [[successors.get(int(one), int(one)) for one in row] for row in tokens.tolist()]
    return torch.tensor(changed, dtype=tokens.dtype, device=tokens.device)


def _logits(output: ModelOutput | Tensor) -> Tensor:
    return (output.logits if isinstance(output, ModelOutput) else output).float()
