"""When and on how much a model is judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Section, Texts
from trimtab.config.data import FolderSource, PlainSource
from trimtab.config.task import Contrastive, Regression, TaskConfig

if TYPE_CHECKING:
    from trimtab.config.run import Config

SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]


class SamplesConfig(Section):
    """Text written by the model at every evaluation, from fixed prompts and seeds, the same in every round."""

    prompts: Texts = Field(("",), description="beginnings to go on from; '' starts a document")
    seeds: Count = Field(1, description="samples of each prompt, each with a seed of its own")
    max_tokens: int = Field(96, ge=0, description="tokens in a sample; 0 writes none")
    temperature: NonNegative = Field(0.8, description="0 takes the most probable token")
    top_k: int = Field(50, ge=0, description="choose among so many tokens; 0: among all")


class NoBaseline(Section):
    """Each evaluation for itself."""

    name: Literal["none"] = "none"


class BestBaseline(Section):
    """Beside the run's own best evaluation so far, by its validation loss."""

    name: Literal["best"] = "best"


class RunBaseline(Section):
    """Beside another run, judged on the same texts."""

    name: Literal["run"] = "run"
    path: str = Field(
        min_length=1, description="that run: it had a baseline, or was judged by `trimtab evaluate RUN --details`"
    )


BaselineConfig = Annotated[NoBaseline | BestBaseline | RunBaseline, Field(discriminator="name")]


class EvaluationConfig(Section):
    """Exact over the counted tokens, in eval mode."""

    every: Count = Field(100, description="steps between evaluations; one more at the last step")
    max_tokens: Count | None = Field(None, description="tokens of the validation set; all of them if not given")
    batch_size: Count | None = Field(
        None,
        description="sequences at once; training.micro_batch_size if not given, at most 16 where that is auto; of task "
        "contrastive those that a text is told from, the batch of a step if not given",
    )
    stride: Count | None = Field(
        None,
        description="tokens from one sequence to the next, of which the last so many are judged: each has at least "
        "data.sequence_length - stride before it; null: sequences do not overlap",
    )
    gap_tokens: int = Field(
        65_536,
        ge=0,
        description="tokens of a fixed training slice, for generalization_gap, at most as many as are judged of the "
        "validation set; 0: no gap",
    )
    yardsticks: bool = Field(
        True,
        description="what counting tells: bits per byte of pairs, zlib, lzma; classes of rows; whether the sets differ",
    )
    samples: SamplesConfig = Field(default_factory=SamplesConfig)
    decoded: int = Field(
        0, ge=0, description="validation texts that are answered at every evaluation, for ROUGE, BLEU and chrF; 0: none"
    )
    sets: dict[SetName, PlainSource] = Field(
        default_factory=dict, description="further sets by name, judged as the main one: validation/NAME/METRIC"
    )
    baseline: BaselineConfig = Field(default_factory=NoBaseline)
    calibration: Literal["none", "temperature"] = Field(
        "none",
        description="a temperature for the answers, of several labels one for each, fitted at the end on one half of "
        "the validation set",
    )
    entropy: bool = Field(
        False, description="how sure answers of one class of several, or tokens, are: validation/entropy, in nats"
    )
    details: bool = Field(
        False, description="at the end: confusion, slices and reliability on the validation set, for the report"
    )


def misjudged(config: Config) -> Iterator[str]:
    """What of the evaluation does not go with the rest of `config`, in words."""
    stride, length = config.evaluation.stride, config.data.sequence_length
    if stride is not None and stride > length:
        yield f"evaluation.stride {stride} is longer than data.sequence_length {length}: targets would be left out"
    if config.evaluation.entropy and config.objective.name not in ("cross_entropy", "focal"):
        name = config.objective.name
        yield f"evaluation.entropy is of answers that are one of several, and objective.name {name} has others"


def is_calibrated(task: TaskConfig) -> bool:
    """Whether answers of `task` are classes, tokens or labels, so that a temperature speaks of them."""
    return not isinstance(task, Regression | Contrastive)


def calibrates(config: Config) -> bool:
    """Whether a temperature is fitted at the end."""
    return config.evaluation.calibration != "none" and is_calibrated(config.task)


def only_folders(config: Config) -> bool:
    """Whether every source of `config` names classes by folders."""
    sources = [*config.data.plain_sources.values(), *config.evaluation.sets.values()]
    return all(isinstance(source, FolderSource) for source in sources)
