"""A run's model, for whoever comes after training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from trimtab.config import Config, NoQuantization, load_config
from trimtab.data import Tokenizer, vocabulary_of
from trimtab.errors import UsageError
from trimtab.model import build_model
from trimtab.model.quantize import load_quantized, prepare_quantization
from trimtab.runs import RunDirectory
from trimtab.runs.checkpoints import CheckpointInfo, best, latest, list_checkpoints
from trimtab.runs.files import read_json
from trimtab.runs.metrics import selection_direction
from trimtab.signals import TargetFacts, outputs_of
from trimtab.training.checkpoint import load_model, read_judged, read_tensors
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


def open_trained(path: Path, which: str = "best", *, quantized: bool = False) -> TrainedRun:
    """The model of a run at its `best` or `latest` checkpoint, or at step number `which`.

    One that was trained for quantization rounds as it did in training. With `quantized` it is the one in `quantized/`
    instead, to be run in fp32.

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
    module: nn.Module = model
    if not isinstance(quantize := config.training.quantize, NoQuantization):
        prepare_quantization(model, quantize)
    if quantized:
        if which != "best":
            raise UsageError(f"a run has one quantized model, of its end. Received: checkpoint {which!r} besides")
        module = _read_quantized(run, config, model)
        step = int(read_json(run.quantized / "checkpoint.json")["step"])
        checkpoint = replace(checkpoint, step=step, path=run.quantized)
    else:
        load_model(model, read_judged(checkpoint.path))
    return TrainedRun(
        config, module.to(choose_device(config.training.device)).eval(), tokenizer, checkpoint, targets, fingerprint
    )


def _read_quantized(run: RunDirectory, config: Config, model: nn.Module) -> nn.Module:
    quantize = config.training.quantize
    if isinstance(quantize, NoQuantization):
        raise UsageError(
            f"{run.path} was not trained for a quantized model", hint="train with training.quantize.name=int8 or int4"
        )
    if not run.quantized.exists():
        raise UsageError(
            f"{run.path} has no quantized model yet: it is written at the end", hint=f"`trimtab resume {run.path}`"
        )
    return load_quantized(model, quantize, read_tensors(run.quantized, ""))


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
