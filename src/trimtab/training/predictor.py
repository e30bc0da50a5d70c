"""A trained model that is asked about texts: from a run, or from what was exported of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trimtab.config import Config
from trimtab.data import PreparedData, Tokenizer
from trimtab.errors import UsageError
from trimtab.evaluation import predict, predict_probabilities
from trimtab.evaluation.uncertainty import Uncertainty, estimate_uncertainty
from trimtab.objective import build_objective, build_task
from trimtab.runs import RunDirectory
from trimtab.runs.calibration import newest_calibration, temperature_in
from trimtab.signals import TargetFacts, Task
from trimtab.training.consolidated import WEIGHTS, read_consolidated
from trimtab.training.trained import open_trained


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model in eval mode, and what its answers mean."""

    config: Config
    model: nn.Module
    tokenizer: Tokenizer
    targets: TargetFacts
    temperature: float | tuple[float, ...] | None
    """As fitted for these weights, of several labels one for each; None where it was not."""
    step: int
    weights: str

    @property
    def task(self) -> Task:
        """What it is asked."""
        return build_task(self.config.task, build_objective(self.config.objective), self.targets)

    def answers(self, texts: Sequence[str]) -> list[Tensor]:
        """As `predict` gives them."""
        return predict(
            self.model,
            self.task,
            self.tokenizer,
            texts,
            sequence_length=self.config.data.sequence_length,
            device=self.device,
        )

    def probabilities(self, texts: Sequence[str]) -> list[Tensor]:
        """How probable each class of each text is, with the temperature if there is one."""
        return predict_probabilities(
            self.model,
            self.task,
            self.tokenizer,
            texts,
            sequence_length=self.config.data.sequence_length,
            temperature=self.temperature or 1.0,
            device=self.device,
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def uncertainty_of(
    predictors: Sequence[Predictor], texts: Sequence[str], passes: int = 0, seed: int = 0
) -> Uncertainty:
    """As `estimate_uncertainty` gives it, of predictors that read alike and know the same classes.

    Raises: UsageError.
    """
    first = predictors[0]
    for other in predictors[1:]:
        alike = (
            other.tokenizer.fingerprint == first.tokenizer.fingerprint
            and other.targets.classes == first.targets.classes
            and other.config.task.name == first.config.task.name
        )
        if not alike or (first.config.task.name == "regression" and other.targets != first.targets):
            raise UsageError(
                "an ensemble is of models with the same task, tokenizer and classes, trained on the same data",
                hint="train them with other values of seed",
            )
    return estimate_uncertainty(
        [one.model for one in predictors],
        first.task,
        first.tokenizer,
        texts,
        sequence_length=first.config.data.sequence_length,
        passes=passes,
        temperatures=[one.temperature or 1.0 for one in predictors],
        seed=seed,
    )


def predictor_of(config: Config, model: nn.Module, data: PreparedData, run: RunDirectory | None) -> Predictor:
    """That of a model as training in `run` left it."""
    kept = None if run is None else newest_calibration(run)
    temperature = None if kept is None else temperature_in(kept)
    step, weights = (0, "plain") if kept is None else (int(kept["step"]), str(kept["weights"]))
    return Predictor(config, model, data.tokenizer, data.targets, temperature, step, weights)


def open_predictor(path: Path, which: str = "best", weights: str | None = None) -> Predictor:
    """That of a run, by `which` checkpoint and `weights`; of a checkpoint; or of an export to safetensors.

    Raises: as `open_trained` and `read_consolidated`.
    """
    if path.suffix == ".safetensors" or (path / WEIGHTS).is_file():
        read = read_consolidated(path)
        return Predictor(
            read.config, read.model, read.tokenizer, read.targets, read.temperature, read.step, read.weights
        )
    one = open_trained(path, which, weights)
    return Predictor(
        one.config, one.model, one.tokenizer, one.targets, one.temperature, one.checkpoint.step, one.weights
    )
