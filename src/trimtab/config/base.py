"""What all sections share: frozen, strict about keys, and spans of a run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema


class Section(BaseModel):
    """A part of a configuration: values only, frozen; an unknown key or another type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


def _span(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of steps (an integer) or a part of the run (between 0.0 and 1.0)")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        if value.is_integer():
            return int(value)
        raise ValueError("a part of the run must lie between 0.0 and 1.0; a number of steps is an integer")
    if value < 0:
        raise ValueError("must not be negative")
    return value


Span = Annotated[
    int | float,
    BeforeValidator(_span),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "description": "steps"},
                {"type": "number", "minimum": 0.0, "maximum": 1.0, "description": "a part of the run"},
            ]
        }
    ),
]
"""A stretch of a run: an integer counts steps, a float between 0.0 and 1.0 is a part of all steps."""


def steps_of(span: int | float, total_steps: int) -> int:
    """The number of steps that `span` means in a run of `total_steps` (rounded, never beyond the run)."""
    steps = span if isinstance(span, int) else round(span * total_steps)
    return min(int(steps), total_steps)


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A probability of dropping, as torch counts it: 0 drops nothing."""

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""Several texts, given as any sequence."""


class Custom(Section):
    """A third party's part: imported from `target` and called with `arguments`."""

    target: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$",
        description="where it is imported from, as 'package.module:name'",
    )
    arguments: dict[str, JsonValue] = Field(default_factory=dict, description="keyword arguments for the call")
