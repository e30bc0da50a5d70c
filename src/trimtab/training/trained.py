"""A run's model, for whoever comes after training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from trimtab.config import Config, load_config
from trimtab.data import Tokenizer, vocabulary_of
from trimtab.errors import UsageError
from trimtab.model import build_model
from trimtab.runs import RunDirectory
from trimtab.runs.checkpoints import CheckpointInfo, best, latest, list_checkpoints
from trimtab.runs.files import read_json
from trimtab.runs.metrics import selection_direction
from trimtab.signals import TargetFacts, outputs_of
from trimtab.training.checkpoint import kinds_held, load_model, read_judged
from trimtab.training.checkpoint.snapshot import OWN_AVERAGE
from trimtab.training.execution import choose_device


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run's model, in eval mode, as one of its checkpoints left it."""

    config: Config
    model: nn.Module
    tokenizer: Tokenizer
    checkpoint: CheckpointInfo
    targets: TargetFacts
    """Names of its classes, or mean and deviation of what it was taught to say."""
    fingerprint: str
    """Of the data it was trained and judged on."""
    weights: str
    """Which of the checkpoint's weights these are: `plain`, or the kind of an average."""


def open_trained(path: Path, which: str = "best", weights: str | None = None) -> TrainedRun:
    """The model of a run at its `best` or `latest` checkpoint, or at step number `which`.

    `weights` is `plain` or the kind of an average that the checkpoint holds; without it those by which the run chooses
    checkpoints, or plain ones in a checkpoint that was saved before there was an average.

    Raises: UsageError for a run that holds no such checkpoint, or whose model was a Python object.
    """
    run = RunDirectory.open(path)
    run.refuse_foreign()
    if not run.environment.exists():
        raise UsageError(f"{path} has no model yet: it did not come to its first step", hint=f"`trimtab resume {path}`")
    config = load_config(run.config, environment={})
    if read_json(run.environment).get("source") == "python":
        raise UsageError(f"the model of {path} was given as a Python object, so the command line cannot build it")
    checkpoint = _choose_checkpoint(run, config, which)
    facts = read_json(run.facts)
    fingerprint = str(facts["identity"]["data.fingerprint"])
    targets = TargetFacts.from_json(facts.get("targets", {}))
    tokenizer = Tokenizer.load(run.artifacts / "tokenizer.json")
    vocabulary_size = vocabulary_of(config.task, tokenizer)
    model = build_model(
        config.model,
        vocabulary_size=vocabulary_size,
        sequence_length=config.longest_sequence,
        outputs=outputs_of(config.task, targets, vocabulary_size),
        seed=0,
    )
    chosen = _choose_weights(checkpoint, config, weights)
    load_model(model, read_judged(checkpoint.path, chosen))
    return TrainedRun(
        config,
        model.to(choose_device(config.training.device)).eval(),
        tokenizer,
        checkpoint,
        targets,
        fingerprint,
        chosen,
    )


def _choose_weights(checkpoint: CheckpointInfo, config: Config, asked: str | None) -> str:
    held = kinds_held(checkpoint.path)
    if asked is not None and asked not in held:
        raise UsageError(
            f"--weights: the checkpoint of step {checkpoint.step} has no such weights. Received: {asked!r}; it has: "
            f"{', '.join(held)}"
        )
    usual = config.selected or OWN_AVERAGE
    return asked or (usual if usual in held else "plain")


def _choose_checkpoint(run: RunDirectory, config: Config, which: str) -> CheckpointInfo:
    metric = config.checkpoint.metric
    if which == "best":
        found = best(run.path, metric, selection_direction(metric)) or latest(run.path)
    elif which == "latest":
        found = latest(run.path)
    else:
        found = next((info for info in list_checkpoints(run.path) if str(info.step) == which), None)
    if found is None:
        steps = [str(info.step) for info in list_checkpoints(run.path)]
        there = ", ".join(["best", "latest", *steps]) if steps else "none yet"
        raise UsageError(f"{run.path} has no checkpoint {which!r}; it has: {there}")
    return found
