"""The settings that a trainer prints above its log: how many steps are planned, and by which schedule.

`max_steps: 685` in lines, `Namespace(max_steps=251, lr_scheduler_type='cosine')`, `{"config": {"warmup_steps": 0}}`. A
name that comes again with another value is no setting, and says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from trimtab.runs.importers.names import words

LINES: Final = 400
PLANNED: Final = (
    *("max_steps", "max_iters", "max_iterations", "max_train_steps", "max_updates", "max_update", "total_steps"),
    *("num_training_steps", "total_training_steps", "training_steps", "train_iters", "total_iters", "lr_decay_iters"),
)
"""The first that is told goes before the others."""
WARMUP: Final = (
    *("warmup_steps", "num_warmup_steps", "lr_warmup_steps", "warmup_iters", "lr_warmup_iters", "warmup_updates"),
)
SCHEDULE: Final = (
    *("lr_scheduler_type", "lr_scheduler", "lr_schedule", "lr_scheduler_name", "lr_decay_style", "scheduler_type"),
    *("scheduler", "schedule"),
)
KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("constant", "constant_with_warmup", "get_constant_schedule_with_warmup"), "constant"),
    **dict.fromkeys(("linear", "linear_with_warmup", "linear_decay", "get_linear_schedule_with_warmup"), "linear"),
    **dict.fromkeys(("cosine", "cosine_with_warmup", "cosine_decay", "warmup_cosine", "cosine_annealing"), "cosine"),
    **dict.fromkeys(("cosine_annealing_lr", "get_cosine_schedule_with_warmup"), "cosine"),
}
"""Schedules whose course follows from their name, as trainers call them. Others have settings of their own."""
_SETTING: Final = re.compile(
    rf"(?<![\w./])(?P<name>{'|'.join((*PLANNED, *WARMUP, *SCHEDULE))})['\"]?\s*[:=]\s*"
    r"['\"]?(?:[A-Za-z_]+\.)?(?P<value>[A-Za-z_]+|\d{1,15}(?![\w.]))"
)


def settings_in(head: str) -> dict[str, Any]:
    """`planned_steps`, and of the `schedule` its `name` and both lengths in steps, as far as they are told."""
    told: dict[str, set[str]] = {}
    for line in head.split("\n")[:LINES]:
        for one in _SETTING.finditer(line):
            told.setdefault(one["name"], set()).add(one["value"])
    first = {name: next(iter(values)) for name, values in told.items() if len(values) == 1}
    facts: dict[str, Any] = {}
    planned, warmup = _number(first, PLANNED), _number(first, WARMUP)
    if planned:
        facts["planned_steps"] = planned
    kind = next((KINDS.get(words(first[name])) for name in SCHEDULE if name in first), None)
    if kind is not None:
        known = {"planned_steps": planned, "warmup_steps": warmup}
        facts["schedule"] = {"name": kind} | {name: value for name, value in known.items() if value is not None}
    return facts


def _number(first: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(first[name]) for name in names if first.get(name, "").isdigit()), None)
