"""The order of a run's samples with its curriculum: how hard each is, and how long harder ones wait."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.config import Config, Curriculum, LengthCurriculum, LossCurriculum, RarityCurriculum, steps_of
from trimtab.data import LabelledTexts, MaskedSequences, PackedSequences, PreparedData, Sequences, prepare_data
from trimtab.data.augmentation import build_augmentation
from trimtab.data.curriculum import CurriculumOrder, rarity
from trimtab.errors import ConfigError
from trimtab.model import evaluating
from trimtab.objective import build_objective, build_task
from trimtab.schedules import build_stairs
from trimtab.signals import IGNORED
from trimtab.training.facts import planned_tokens
from trimtab.training.trained import TrainedRun, open_trained

Report = Callable[[str, float], None]


def prepared(config: Config, report: Report | None = None) -> PreparedData:
    """The data of a run, in the order in which it is trained on. Raises: as `prepare_data`, and `paced`."""
    data = prepare_data(
        config.data,
        config.task,
        seed=config.seed,
        micro_batch_size=1 if config.split is None else config.split.micro_batch_size,
        block=config.sequences_per_step if config.split is None else None,
        progress=report,
    )
    return build_augmentation(config, paced(config, data, report))


def paced(config: Config, data: PreparedData, report: Report | None = None) -> PreparedData:
    """`data` whose order begins with the curriculum of `config`, if it has one; `facts` tell of it.

    Raises: ConfigError for a reference model of another task or tokenizer; UsageError, CheckpointError for one that
    cannot be read.
    """
    chosen = config.data.curriculum
    if not isinstance(chosen, Curriculum):
        return data
    steps = steps_of(chosen.span, config.budget(data.facts | planned_tokens(config, data)))
    multiple = build_stairs(config.training.accumulation_schedule, config.training.steps).mean(steps)
    curriculum = CurriculumOrder(
        _difficulty(chosen, config, data, report or (lambda stage, fraction: None)),
        length=max(1, round(steps * config.sequences_per_step * multiple)),
        pacing=chosen.pacing,
        start=chosen.start,
        hardest_first=chosen.hardest_first,
        seed=config.seed,
    )
    facts = data.facts | {"curriculum": curriculum.facts() | {"steps": steps}}
    return replace(data, order=data.order.after(curriculum), facts=facts)


def _difficulty(chosen: Curriculum, config: Config, data: PreparedData, report: Report) -> NDArray[Any]:
    training = data.training
    plain = training.packed if isinstance(training, MaskedSequences) else training
    match chosen:
        case LengthCurriculum():
            assert isinstance(training, LabelledTexts)
            return training.lengths
        case RarityCurriculum():
            assert isinstance(plain, PackedSequences | LabelledTexts)
            return rarity(plain)
        case LossCurriculum():
            return _reference_losses(chosen.run, config, data, report)
        case _:
            raise ValueError(f"a curriculum of another kind: {chosen.name}")


def _reference_losses(path: str, config: Config, data: PreparedData, report: Report) -> NDArray[np.float32]:
    """The mean loss of the reference model over the targets of each sample, [N]; kept beside the tokens."""
    reference = open_trained(Path(path))
    if reference.config.task.name != config.task.name:
        raise ConfigError(
            f"data.curriculum.run: its task is {reference.config.task.name}, and task.name is {config.task.name}"
        )
    if (
        reference.tokenizer.fingerprint != data.tokenizer.fingerprint
        or reference.targets.classes != data.targets.classes
    ):
        raise ConfigError(
            "data.curriculum.run: its tokenizer, or its classes, are others than those of this run. "
            f"Received: {path!r}",
            hint="train the reference on the same data, or with data.tokenizer={name: file, path: RUN/artifacts}",
        )
    whose = hashlib.sha256((reference.checkpoint.path / "manifest.json").read_bytes() + reference.weights.encode())
    name = f"losses-{whose.hexdigest()[:16]}-{config.seed}-{data.fingerprint[:16]}.npy"
    kept = data.cache / "derived" / name
    if kept.exists():
        found: NDArray[np.float32] = np.load(kept)
        if len(found) == len(data.training):
            return found
    losses = sample_losses(reference, config, data, report)
    kept.parent.mkdir(exist_ok=True)
    aside = kept.with_name(f".{os.getpid()}-{kept.name}")
    np.save(aside, losses)
    aside.replace(kept)
    return losses


def sample_losses(reference: TrainedRun, config: Config, data: PreparedData, report: Report) -> NDArray[np.float32]:
    """The mean plain loss over the counted targets of each training sample, [N], in eval mode; 0 without any."""
    device = next(reference.model.parameters()).device
    task = build_task(config.task, build_objective(config.objective).to(device), data.targets)
    training: Sequences = data.training
    size, losses = config.evaluation_batch_size, np.zeros(len(training), dtype=np.float32)
    order = np.arange(len(training))
    if isinstance(training, LabelledTexts):  # of similar length together, so that little is padded
        order = np.argsort(training.lengths, kind="stable")
    with evaluating(reference.model), torch.no_grad():
        for begin in range(0, len(order), size):
            report("asking the reference model", begin / len(order))
            indices = order[begin : begin + size]
            batch = training.batch(indices).to(device)
            terms = task.terms(reference.model(**task.inputs(batch)), batch)
            each = terms.losses.reshape(len(indices), -1).sum(dim=1).float()
            counted = (batch.targets != IGNORED).reshape(len(indices), -1).sum(dim=1).clamp(min=1)
            losses[indices] = (each / counted).cpu().numpy()
    return losses
