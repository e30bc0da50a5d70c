"""What is asked of a model: facts of the training targets, and the outputs that they call for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

from trimtab.config import (
    Classification,
    Contrastive,
    InfoNceConfig,
    ObjectiveConfig,
    Regression,
    TaskConfig,
    TokenClassification,
)


@final
@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What a head and a score are built from; empty where the targets are tokens."""

    classes: tuple[str, ...] = ()
    """Names, in the order of the outputs."""
    counts: tuple[int, ...] = ()
    """How many training targets each class has."""
    total: int = 0
    """Training targets: of several labels at once, the texts."""
    mean: float = 0.0
    deviation: float = 1.0
    """Of training targets that are numbers."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for a run's facts."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> TargetFacts:
        """What `to_json` wrote."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in state.items()
        }
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Vectors:
    """What is made of a text's features, where a task asks for vectors."""

    size: int | None = None
    """Numbers of one, by a matrix; None: the features themselves."""
    normalize: bool = True
    temperature: float | None = None
    """Where a temperature that is learned begins; None where none is."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a head gives."""

    size: int
    """Numbers for each text or token: V."""
    pooled: bool = False
    """Whether it speaks of a whole text, not of each token."""
    of_tokens: bool = False
    """Whether it says which token stands there: then it has something in common with the embedding."""
    task: str = "causal_lm"
    """What it is for: transformers has a class of models for each."""
    classes: tuple[str, ...] = ()
    """Their names, where it says classes."""
    is_binary: bool = False
    """Whether they are two that exclude each other."""
    vectors: Vectors | None = None
    """Where it gives vectors; `size` is 0 where these are as long as the model's features."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Tokens that a model from outside is told of, by number."""

    end_of_text: int
    padding: int
    second: int
    """What a decoder has read when it says the first token of a second text."""


def outputs_of(
    task: TaskConfig, targets: TargetFacts, vocabulary_size: int, objective: ObjectiveConfig | None = None
) -> Outputs:
    """The outputs that `task` calls for: the vocabulary, one for each class, one number, or a vector.

    `objective` says whether the temperature of its similarities is learned, which is then a parameter of the model.
    """
    match task:
        case Contrastive():
            learned = isinstance(objective, InfoNceConfig) and objective.learn_temperature
            temperature = objective.temperature if learned and isinstance(objective, InfoNceConfig) else None
            vectors = Vectors(task.projection, task.normalize, temperature)
            return Outputs(task.projection or 0, pooled=True, task=task.name, vectors=vectors)
        case Classification():
            is_binary = len(targets.classes) == 2 and not task.multi_label
            return Outputs(len(targets.classes), True, task=task.name, classes=targets.classes, is_binary=is_binary)
        case TokenClassification():
            return Outputs(len(targets.classes), task=task.name, classes=targets.classes)
        case Regression():
            return Outputs(1, pooled=True, task=task.name)
        case _:
            return Outputs(vocabulary_size, of_tokens=True, task=task.name)
