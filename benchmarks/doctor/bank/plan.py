"""In which order runs are made: every round has each fault and each oddity once for each kind of logger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from random import Random
from typing import Final

from bank.catalogue import BARE, FAULTS, ODDITIES, Kind
from bank.scenario import HEALTHY, Logger, Part, Scenario, Severity, Task

GROUPS: Final[tuple[str, ...]] = ("trimtab", "bare", "huggingface", "lightning")
"""Loggers that are one stratum: a bare loop writes CSV and JSON Lines in turn."""

NOT_SPREAD: Final = ("missing-warmup",)
"""Of most drawn models, post-norm or trained by SGD without clipping, the run is no better with a warm-up (tried with
0.7 and 1.5 times the rate, and with SGD at 0.1 to 0.4): nothing would be planted."""


def plan(part: Part, groups: Sequence[str] = GROUPS, rounds: int = 2, first: int = 0) -> tuple[Scenario, ...]:
    """All runs of `rounds` rounds, in an order of which every beginning holds the groups about evenly.

    Rounds from another `first` on are a fresh draw: nothing that is drawn for them was drawn for the others.
    """
    found: list[Scenario] = []
    for number in range(first, first + rounds):
        rows = [_alternating(part, group, number) for group in groups]
        found += [one for row in zip_longest(*rows) for one in row if one is not None]
    return tuple(found)


def _alternating(part: Part, group: str, number: int) -> list[Scenario]:
    """Two faults, a healthy run, two faults …, until both are used up."""
    faults, sound = _of(part, group, number, FAULTS), _of(part, group, number, ODDITIES)
    found: list[Scenario] = []
    while True:
        more = [*islice(faults, 2), *islice(sound, 1)]
        if not more:
            return found
        found += more


def _of(part: Part, group: str, number: int, kinds: dict[str, Kind]) -> Iterator[Scenario]:
    """Those of a table in an order that is drawn: what is made when time is up is a sample of all."""
    found = list(_in_order(part, group, number, kinds))
    Random(f"{part}/{group}/{number}").shuffle(found)
    return iter(found)


def _in_order(part: Part, group: str, number: int, kinds: dict[str, Kind]) -> Iterator[Scenario]:
    for place, (name, kind) in enumerate(kinds.items()):
        turn = number + place + (part == "test")
        loggers = BARE if group == "bare" else (group,)
        able = [logger for logger in loggers if logger in kind.loggers]
        if not able or (part == "spread" and name in NOT_SPREAD):
            continue
        tasks = kind.ours if group == "trimtab" and kind.ours is not None else kind.tasks
        logger: Logger = able[turn % len(able)]  # type: ignore[assignment]
        task: Task = tasks[(number + place * 3 + GROUPS.index(group)) % len(tasks)]  # type: ignore[assignment]
        is_fault = kinds is FAULTS
        severity: Severity = "none" if not is_fault else "strong" if turn % 2 == 0 else "mild"
        yield Scenario(
            part=part,
            logger=logger,
            task=task,
            code=name if is_fault else HEALTHY,
            variant=name,
            severity=severity,
            round=number,
        )
