"""Readings that several rules ask for, and that are computed once for each thing that they are of."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np


class Keeps(Protocol):
    """What remembers what was read off it, as long as it does not change: a case, a curve."""

    @property
    def derived(self) -> dict[Any, Any]:
        """What was asked, with the arguments -> what it gave."""
        ...


Of = TypeVar("Of", bound=Keeps)
Given = ParamSpec("Given")
Read = TypeVar("Read")


def once(reading: Callable[Concatenate[Of, Given], Read]) -> Callable[Concatenate[Of, Given], Read]:
    """`reading`, a pure function whose first argument keeps what it gave; an array that it gives cannot be written."""

    @wraps(reading)
    def asked(of: Of, /, *given: Given.args, **named: Given.kwargs) -> Read:
        known, key = of.derived, (reading, *given, *named.items()) if given or named else reading
        try:
            answer: Read = known[key]
        except KeyError:
            answer = known[key] = reading(of, *given, **named)
            if isinstance(answer, np.ndarray):
                answer.flags.writeable = False
        return answer

    return asked
