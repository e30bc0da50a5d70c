"""What all sections share: frozen, strict about keys, and spans of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema


class Section(BaseModel):
    """A part of a configuration: values only, frozen; an unknown key or another type is an error."""

    # Deferred, because the schema of the whole holds those of its parts; defaults are constructed for the same reason.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False, defer_build=True
    )


_IN_UNITS = r"[0-9][0-9_]*(\.[0-9]+)?([eE][0-9]+)? (steps|tokens|epochs)"


def _span(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(_IN_UNITS, value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(
            "must be a number of steps (an integer), a part of the run (between 0.0 and 1.0), or text with a unit: "
            "steps, tokens or epochs"
        )
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        if value.is_integer():
            return int(value)
        raise ValueError("a part of the run must lie between 0.0 and 1.0; a number of steps is an integer")
    if value < 0:
        raise ValueError("must not be negative")
    return value


Span = Annotated[
    int | float | str,
    BeforeValidator(_span),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "description": "steps"},
                {"type": "number", "minimum": 0.0, "maximum": 1.0, "description": "a part of the run"},
                {"type": "string", "pattern": f"^{_IN_UNITS}$", "examples": ["2e6 tokens", "0.5 epochs"]},
            ]
        }
    ),
]
"""A stretch of a run: an integer counts steps, a float between 0.0 and 1.0 is a part of all steps, and text has a unit:
"500 steps", "2e6 tokens", "0.5 epochs"."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a run is, in every unit that a span may have."""

    steps: int
    tokens_per_step: int | None = None
    tokens_per_epoch: int | None = None
    """Known once the data is prepared."""


class UnknownLengthError(ValueError):
    """A span is in a unit of which the budget does not say how long it is."""


def steps_of(span: int | float | str, budget: Budget | int) -> int:
    """The number of steps that `span` means in a run of that budget, or of so many steps; never beyond the run.

    Rounded to the nearest step; nothing but 0 is rounded to none. Raises: UnknownLengthError.
    """
    if isinstance(budget, int):
        budget = Budget(budget)
    return min(steps_asked(span, budget), budget.steps)


def steps_asked(span: int | float | str, budget: Budget) -> int:
    """As `steps_of`, but also beyond the run."""
    if isinstance(span, int):
        return span
    number, unit = (span * budget.steps, "steps") if isinstance(span, float) else _parsed(span)
    if unit != "steps":
        tokens = 1 if unit == "tokens" else budget.tokens_per_epoch
        if tokens is None or budget.tokens_per_step is None:
            raise UnknownLengthError(f"how many steps {span!r} are is not known yet")
        number *= tokens / budget.tokens_per_step
    # What a float cannot hold is beyond any run.
    return max(round(min(number, 1e18)), 1 if isinstance(span, str) and number > 0 else 0)


def is_nothing(span: int | float | str) -> bool:
    """Whether `span` is 0, in whatever unit."""
    return (_parsed(span)[0] if isinstance(span, str) else span) == 0


def _parsed(span: str) -> tuple[float, str]:
    number, _, unit = span.partition(" ")
    return float(number), unit


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
