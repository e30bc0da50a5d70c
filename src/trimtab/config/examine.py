"""How often a model is examined, and how closely."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, WithJsonSchema, field_validator

from trimtab.config.base import Count, Section
from trimtab.config.registry.examinations import EXAMINATIONS

SHORTEST: Final = 0.2
"""Of `apart`: a run of so many steps has an examination at its end, which costs as much as some steps do."""
Names = Annotated[
    tuple[str, ...],
    Field(strict=False),
    WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(EXAMINATIONS)}}),
]
"""Some of the examinations, in any order."""


class ExamineConfig(Section):
    """A forward and backward pass of its own on a fixed probe batch, and all that is read of it."""

    every: int = Field(0, ge=0, le=10_000_000, description="steps between examinations; 0: only at evaluations")
    at_evaluations: bool = Field(True, description="one just before an evaluation, where `apart` allows it")
    apart: Count = Field(
        500,
        description="an evaluation examines when it is the first since another so many steps are over; a run of fewer "
        "is examined at its end, if it has a fifth of them",
    )
    which: Literal["all"] | Names = Field("all", description=f"all, or names among {', '.join(EXAMINATIONS)}")
    sequences: Count | None = Field(
        None, description="sequences of the probe batch; as in a micro-batch if not given, and at most 8"
    )

    @field_validator("which")
    @classmethod
    def _known(cls, which: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(which, str):
            return which
        if unknown := [name for name in which if name not in EXAMINATIONS]:
            raise ValueError(f"no examination is called {', '.join(unknown)}; there are {', '.join(EXAMINATIONS)}")
        if not which or len(set(which)) < len(which):
            raise ValueError("must name examinations, each once; every=0 and at_evaluations=false leave all out")
        return which

    def is_due_within(self, steps: int) -> bool:
        """Whether a run of so many steps has an examination."""
        return 0 < self.every <= steps or (self.at_evaluations and self.apart * SHORTEST <= steps)

    @property
    def names(self) -> tuple[str, ...]:
        """The examinations that are made, in the order of the registry."""
        return tuple(name for name in EXAMINATIONS if self.which == "all" or name in self.which)
