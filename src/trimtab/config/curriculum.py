"""From easy samples to hard ones: by what they are ordered, and how fast harder ones come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trimtab.config.base import Section, Span, is_nothing
from trimtab.config.task import RowTask

if TYPE_CHECKING:
    from trimtab.config.run import Config


class LinearPacing(Section):
    """As many samples come in with every step."""

    name: Literal["linear"] = "linear"


class CompetencePacing(Section):
    """The square root of time: what is new comes in at a rate that falls as more is in (Platanios et al. 2019)."""

    name: Literal["competence"] = "competence"


class RootPacing(Section):
    """Another root of time: the higher its degree, the sooner hard samples come in."""

    name: Literal["root"] = "root"
    degree: float = Field(3.0, ge=1.0, le=20.0, description="1 is linear, 2 is competence")


class StepPacing(Section):
    """In a few stages of equal length, each with as many new samples (baby steps, Spitkovsky et al. 2010)."""

    name: Literal["step"] = "step"
    stages: int = Field(4, ge=2, le=1_000, description="the first has the easiest samples, the last one all")


PacingConfig = Annotated[LinearPacing | CompetencePacing | RootPacing | StepPacing, Field(discriminator="name")]


class NoCurriculum(Section):
    """All samples from the first step on."""

    name: Literal["none"] = "none"


class Curriculum(Section):
    """What the kinds of curriculum share."""

    name: str
    start: float = Field(
        0.1, gt=0.0, lt=1.0, description="part of the samples, the easiest, that the first step draws from"
    )
    span: Span = Field(0.3, description="until all samples are in; from there on epochs are as without a curriculum")
    pacing: PacingConfig = Field(default_factory=CompetencePacing)
    hardest_first: bool = Field(False, description="the other way round, to compare")


class LengthCurriculum(Curriculum):
    """Short texts first: for tasks whose samples are rows."""

    name: Literal["length"] = "length"


class RarityCurriculum(Curriculum):
    """Texts of frequent tokens first: the sum of -log of each token's frequency (Platanios et al. 2019, equation 5)."""

    name: Literal["rarity"] = "rarity"


class LossCurriculum(Curriculum):
    """What a reference model finds easy first: its loss for each sample, in eval mode (Hacohen and Weinshall 2019)."""

    name: Literal["loss"] = "loss"
    run: str = Field(min_length=1, description="a run, or one of its checkpoints, of the same task and tokenizer")


CurriculumConfig = Annotated[
    NoCurriculum | LengthCurriculum | RarityCurriculum | LossCurriculum, Field(discriminator="name")
]


def beside_curriculum(config: Config) -> str:
    """Why `config` cannot have its curriculum; "" where it can."""
    chosen = config.data.curriculum
    if not isinstance(chosen, Curriculum):
        return ""
    if is_nothing(chosen.span):
        return "data.curriculum.span is 0: all samples are in from the first step on"
    if isinstance(chosen, LengthCurriculum) and not isinstance(config.task, RowTask):
        return (
            f"data.curriculum.name length is for texts of many lengths, and task {config.task.name} cuts them to one. "
            "Fitting: rarity, loss"
        )
    if not config.data.shuffle:
        return "data.curriculum draws samples at random from the easiest, and data.shuffle is false"
    if config.data.source.name == "mixture":
        return "data.curriculum and data.source.name mixture both say which samples come when"
    return ""
