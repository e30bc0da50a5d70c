"""A run's model, for whoever comes after training."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trimtab.config import Config, NoQuantization, load_config
from trimtab.data import Tokenizer, vocabulary_of
from trimtab.errors import UsageError
from trimtab.model import build_model
from trimtab.model.quantize import load_quantized, prepare_quantization
from trimtab.planning.reached import as_chosen, choices_of
from trimtab.runs import RunDirectory
from trimtab.runs.calibration import read_calibration, temperature_in
from trimtab.runs.checkpoints import CheckpointInfo, list_checkpoints, ranked, verify
from trimtab.runs.files import read_json
from trimtab.runs.metrics import selection_direction
from trimtab.signals import TargetFacts, key, outputs_of
from trimtab.training.checkpoint import kinds_held, load_model, read_judged, read_tensors
from trimtab.training.checkpoint.snapshot import OWN_AVERAGE
from trimtab.training.execution import choose_device


@dataclass(frozen=True, slots=True)
class Chosen:
    """Weights of one checkpoint of a run, found and not yet read."""

    run: RunDirectory
    config: Config
    checkpoint: CheckpointInfo
    weights: str
    """`plain`, or the kind of an average."""
    facts: Mapping[str, Any]
    tokenizer: Tokenizer

    @property
    def fingerprint(self) -> str:
        """Of the data that the run was trained and judged on."""
        return str(self.facts["identity"]["data.fingerprint"])

    @property
    def targets(self) -> TargetFacts:
        """Names of its classes, or mean and deviation of what it was taught to say."""
        return TargetFacts.from_json(self.facts.get("targets", {}))

    def tensors(self) -> dict[str, Tensor]:
        """As `model/<name>`. Raises: CheckpointError."""
        return read_judged(self.checkpoint.path, self.weights)

    def build(self) -> nn.Module:
        """A model of their shape, where it is to compute, in eval mode; its weights are not these yet."""
        model = model_of(self.config, self.tokenizer, self.targets)
        return model.to(choose_device(self.config.training.device)).eval()


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
    temperature: float | tuple[float, ...] | None = None
    """By which logits are divided so that answers are as sure as they are right, where one was fitted for these;
    of several labels one for each."""


def choose(path: Path, which: str = "best", weights: str | None = None) -> Chosen:
    """The weights of a run at its `best` or `latest` checkpoint, or at step number `which`.

    `weights` is `plain` or the kind of an average that the checkpoint holds; without it those by which the run chooses
    checkpoints, or plain ones in a checkpoint that was saved before there was an average.

    Raises: UsageError for a run that holds no such checkpoint, or whose model was a Python object.
    """
    run = RunDirectory.open(path)
    run.refuse_foreign()
    if not run.environment.exists():
        raise UsageError(f"{path} has no model yet: it did not come to its first step", hint=f"`trimtab resume {path}`")
    config = as_chosen(load_config(run.config, environment={}), choices_of(run))
    if read_json(run.environment).get("source") == "python":
        raise UsageError(f"the model of {path} was given as a Python object, so the command line cannot build it")
    return choose_of(run, config, which, weights)


def choose_of(run: RunDirectory, config: Config, which: str, weights: str | None = None) -> Chosen:
    """As `choose`, in a run that was opened, with the configuration of its model."""
    checkpoint = _choose_checkpoint(run, config, which)
    return Chosen(
        run,
        config,
        checkpoint,
        _choose_weights(checkpoint, config, weights),
        read_json(run.facts),
        Tokenizer.load(run.artifacts / "tokenizer.json"),
    )


def model_of(config: Config, tokenizer: Tokenizer, targets: TargetFacts) -> nn.Module:
    """A model of the shape that `config` describes, for weights that are still to be put into it."""
    vocabulary_size = vocabulary_of(config.task, tokenizer, config.data.augmentation)
    model = build_model(
        config.model,
        vocabulary_size=vocabulary_size,
        sequence_length=config.longest_sequence,
        outputs=outputs_of(config.task, targets, vocabulary_size, config.objective),
        seed=key(config.seed, 0, 0, "model"),  # what a checkpoint leaves out must be as in training
        special=tokenizer.special,
    )
    if not isinstance(quantize := config.training.quantize, NoQuantization):
        prepare_quantization(model, quantize)
    return model


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is named as a checkpoint in a run."""
    return path.parent.name == "checkpoints" and re.fullmatch(r"step-\d+", path.name) is not None


def choose_at(path: Path, which: str = "best", weights: str | None = None) -> Chosen:
    """As `choose`, where `path` may also be a checkpoint in a run; then `which` does not count."""
    if is_checkpoint(path):
        return choose(path.parent.parent, str(int(path.name.removeprefix("step-"))), weights)
    return choose(path, which, weights)


def open_trained(path: Path, which: str = "best", weights: str | None = None, *, quantized: bool = False) -> TrainedRun:
    """The model with the weights that `choose_at` gives.

    One that was trained for quantization rounds as it did in training. With `quantized` it is the one in `quantized/`
    instead, to be run in fp32.

    Raises: as `choose`, CheckpointError.
    """
    chosen = choose_at(path, which, weights)
    model = chosen.build()
    if quantized:
        return _open_quantized(chosen, model, which, weights)
    load_model(model, chosen.tensors())
    calibration = read_calibration(chosen.run, chosen.checkpoint.step, chosen.weights)
    return TrainedRun(
        chosen.config,
        model,
        chosen.tokenizer,
        chosen.checkpoint,
        chosen.targets,
        chosen.fingerprint,
        chosen.weights,
        None if calibration is None else temperature_in(calibration),
    )


def _open_quantized(chosen: Chosen, model: nn.Module, which: str, weights: str | None) -> TrainedRun:
    run, quantize = chosen.run, chosen.config.training.quantize
    if which != "best" or weights is not None:
        raise UsageError(
            "a run has one quantized model, of its end. Received: "
            + (f"weights {weights!r}" if weights is not None else f"checkpoint {which!r}")
            + " besides"
        )
    if isinstance(quantize, NoQuantization):
        raise UsageError(
            f"{run.path} was not trained for a quantized model", hint="train with training.quantize.name=int8 or int4"
        )
    if not run.quantized.exists() and "soup" in chosen.facts:
        raise UsageError(
            f"{run.path} is a soup, which has no quantized model of its own",
            hint=f"`trimtab evaluate {run.path}` judges it as it was trained: rounded to {quantize.name}",
        )
    if not run.quantized.exists():
        raise UsageError(
            f"{run.path} has no quantized model yet: it is written at the end",
            hint=f"`trimtab resume {run.path}` goes on to the end, or does what was left of it",
        )
    module = load_quantized(model, quantize, read_tensors(run.quantized, ""))
    found = read_json(run.quantized / "checkpoint.json")
    return TrainedRun(
        chosen.config,
        module.to(choose_device(chosen.config.training.device)).eval(),
        chosen.tokenizer,
        replace(chosen.checkpoint, step=int(found["step"]), path=run.quantized),
        chosen.targets,
        chosen.fingerprint,
        str(found.get("weights", "plain")),  # the first did not say
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
    metric, there = config.checkpoint.metric, list_checkpoints(run.path)
    before: list[CheckpointInfo] = []
    if which in ("best", "latest"):
        before = there[::-1]
        if which == "best":
            before = ranked(there, metric, selection_direction(metric)) + before
        found = next((info for info in before if not verify(info.path)), None)
    else:
        found = next((info for info in there if str(info.step) == which), None)
    if found is None:
        steps = [str(info.step) for info in there]
        named = ", ".join(["best", "latest", *steps]) if steps else "none yet"
        raise UsageError(f"{run.path} has no checkpoint {which!r}; it has: {named}")
    damaged = list(
        dict.fromkeys(info.path.name for info in itertools.takewhile(lambda info: info is not found, before))
    )
    if damaged:
        one = "is damaged and was" if len(damaged) == 1 else "are damaged and were"
        warnings.warn(f"{', '.join(damaged)} {one} passed over: {found.path.name} is taken", stacklevel=4)
    return found
