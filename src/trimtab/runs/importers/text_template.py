"""Printed lines that differ in their numbers alone, read by where these stand: ten times as quick as by their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from trimtab.runs.importers.text_line import STEP, Record, Told

_TOKEN: Final = re.compile(r"([-+]?\d+(?:,\d{3})*(?:\.\d*)?(?:[eE][-+]?\d+)?)")
_MOST: Final = 512


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which of a line's numbers belong to which name."""

    numbers: tuple[tuple[str, int, float], ...]
    """Name, which number, what it is multiplied by."""
    words: tuple[tuple[str, float], ...]
    """Numbers that are no digits, such as nan, which are a part of the line's words."""


class Templates:
    """Lines that were seen, by what they are without their numbers."""

    def __init__(self) -> None:
        self._plans: dict[str, _Plan | None] = {}

    def read(self, line: str) -> tuple[str, Record | None, bool]:
        """What the line is without its numbers; its record; whether such a line was seen, None being one of none."""
        parts = _TOKEN.split(line)
        key = "\n".join(parts[::2])  # which no line holds
        plan = self._plans.get(key, self)
        if plan is None:
            return key, None, True
        if not isinstance(plan, _Plan):
            return key, None, False
        record: Record = {}
        try:
            for name, place, factor in plan.numbers:
                token = parts[place]
                value = float(token.replace(",", "") if "," in token else token)
                if name == STEP and value % 1:
                    return key, None, False
                record[name] = value * factor if factor != 1.0 else value
        except (ValueError, OverflowError):
            return key, None, False
        for name, value in plan.words:
            record[name] = value
        return key, record, True

    def keep(self, key: str, line: str, told: Told | None) -> None:
        """Remember what `told` was read from a line; None for nothing."""
        if len(self._plans) >= _MOST or len(key) > 1000:
            return
        if told is None:
            self._plans[key] = None
            return
        if not told.is_plain:
            return
        at = {(found.start(), found.end()): 2 * index + 1 for index, found in enumerate(_TOKEN.finditer(line))}
        numbers, spelled = [], []
        for name, (begin, end, factor) in told.places.items():
            if (begin, end) in at:
                numbers.append((name, at[begin, end], factor))
            elif any(sign.isdigit() for sign in line[begin:end]):
                return  # it is cut in another way
            else:
                spelled.append((name, told.record[name]))
        self._plans[key] = _Plan(tuple(numbers), tuple(spelled))
