"""Which steps are profiled."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from trimtab.config.base import Section

MOST_STEPS: Final = 200
"""A trace of more is larger than its viewers take."""
_RANGE = r"[1-9]\d*(\.\.[1-9]\d*)?"


def _steps(value: Any) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(_RANGE, text):
        raise ValueError("must be a step, or a range of steps such as '100..110', both included")
    first, last = bounds(text)
    if last < first:
        raise ValueError(f"the last step lies before the first: {text}")
    if last - first >= MOST_STEPS:
        raise ValueError(f"at most {MOST_STEPS} steps, as viewers of traces take no more")
    return text


def bounds(steps: str) -> tuple[int, int]:
    """The first and the last step of a range such as '100..110', or of a single step."""
    first, _, last = steps.partition("..")
    return int(first), int(last or first)


Steps = Annotated[
    str,
    BeforeValidator(_steps),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": f"^{_RANGE}$", "examples": ["100..110"]},
            ]
        }
    ),
]
"""A range of steps, counted from 1, both ends included."""


class ProfileConfig(Section):
    """Profiles of some steps: the trace, the top operators, the memory, and what they are bound by."""

    steps: Steps | None = Field(
        None, description="steps that are profiled: 100..110; null: those that a file PROFILE in the run asks for"
    )
    memory: bool = Field(
        True, description="follow every allocation, for the peak by category; more to write, and slower steps"
    )
    operators: int = Field(30, ge=1, le=1_000, description="rows in the table of the top operators")
