"""The settings that a trainer prints above its log: how many steps are planned, at which rate and by which schedule.

`max_steps: 685` in lines, `Namespace(max_steps=251, lr_scheduler_type='cosine')`, `{"config": {"warmup_steps": 0}}`. A
name that comes again with another value is no setting, and says nothing; nor do steps of an environment or of an
evaluation, and schedules of anything but the learning rate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from trimtab.runs.importers.names import words

LINES: Final = 400
PLANNED: Final = (
    *("max_steps", "max_iters", "max_iterations", "max_train_steps", "max_updates", "max_update", "total_steps"),
    *("num_training_steps", "total_training_steps", "training_steps", "train_iters", "total_iters"),
)
"""The first that is told goes before the others."""
LENGTH: Final = ("lr_decay_iters", "lr_decay_steps")
"""Of the schedule alone."""
WARMUP: Final = (
    *("warmup_steps", "num_warmup_steps", "lr_warmup_steps", "warmup_iters", "lr_warmup_iters", "warmup_updates"),
)
SCHEDULE: Final = (
    *("lr_scheduler_type", "lr_scheduler", "lr_schedule", "lr_scheduler_name", "lr_decay_style"),
    *("learning_rate_schedule", "learning_rate_scheduler"),
)
KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("constant", "constant_with_warmup", "get_constant_schedule_with_warmup"), "constant"),
    **dict.fromkeys(("linear", "linear_with_warmup", "linear_decay", "get_linear_schedule_with_warmup"), "linear"),
    **dict.fromkeys(("cosine", "cosine_with_warmup", "cosine_decay", "warmup_cosine", "cosine_annealing"), "cosine"),
    **dict.fromkeys(("cosine_annealing_lr", "get_cosine_schedule_with_warmup"), "cosine"),
}
"""Schedules whose course follows from their name, as trainers call them. Others have settings of their own."""
_SETTING: Final = re.compile(
    rf"(?<![\w./])(?<!\w-)(?P<name>{'|'.join((*PLANNED, *LENGTH, *WARMUP, *SCHEDULE))})['\"]?\s*[:=]\s*"
    r"['\"]?(?:[A-Za-z_]+\.)?(?P<value>[A-Za-z_]+|(?:\d{1,3}(?:[,_]\d{3})+|\d{1,15})(?![\w.]|,\d|\s*/|\s+per\b))"
)
_RATE: Final = re.compile(
    r"(?<![\w./])(?<!\w-)(?:learning_rate|lr|base_lr|max_lr|peak_lr)['\"]?\s*[:=]\s*"
    r"['\"]?(?P<value>\d[\d.]*(?:[eE]-?\d+)?)(?![\w.])"
)
_OWNER: Final = re.compile(r"(\w+)['\"]?\s*(?:[:=]\s*)?[({][^(){}]*$|(\w+) +$")
_SECTION: Final = re.compile(r"(?P<indent> *)(?P<name>\w+):\s*$")
_OTHERS: Final = re.compile(
    r"env|eval|val|test|episode|rollout|generat|sampl|noise|diffusion|infer|decod|search|curriculum|lr$"
)
"""Whose steps are not those of the run."""
_IN_FRONT: Final = re.compile(r"(?:info|debug|warning|with|and|for|config|settings|arg\w*|\w*param\w*|train\w*)$", re.I)
"""Words that stand before a setting and say nothing of it."""
_CLASS: Final = re.compile(r"\b[A-Z]\w*LR\b")
_SHAPED: Final = re.compile(
    r"(?<!\w)(?:num_cycles['\"]?\s*[:=]\s*(?!0?\.5\b)\d|lr_scheduler_kwargs['\"]?\s*[:=]\s*\{\s*['\"\w]"
    r"|deepspeed['\"]?\s*[:=]\s*['\"]?(?!None|null|[Ff]alse|\W|$))"
)
"""What gives a schedule another course than its name says."""
_MINIMUM: Final = re.compile(
    r"(?<![A-Za-z])(?:min(?:imum)?_(?:lr|learning_rate)|lr_min|eta_min|end_lr|lr_end|lrf)\w*"
    r"['\"]?\s*[:=]\s*['\"]?(?P<value>\d[\w.-]*)"
)


def settings_in(head: str) -> dict[str, Any]:
    """`planned_steps`, the one `learning_rate` that is `set`, and of the `schedule` its `name`, lengths in steps and
    `minimum`, as far as told."""
    told: dict[str, set[str]] = {}
    indent, section = 0, ""
    for line in head.split("\n")[:LINES]:
        begins = len(line) - len(line.lstrip())
        if begins <= indent:
            section = ""
        if (heads := _SECTION.fullmatch(line)) is not None:
            indent, section = begins, heads["name"]
        for one in _SETTING.finditer(line):
            if not _OTHERS.search(words(section)) and _is_of_run(line[: one.start()]):
                told.setdefault(one["name"], set()).add(one["value"])
    first = {name: next(iter(values)) for name, values in told.items() if len(values) == 1}
    classes = set(_CLASS.findall(head))
    if classes:  # whose own lengths go by the same name
        first.pop("total_iters", None), first.pop("total_steps", None)
    facts: dict[str, Any] = {}
    planned = _number(first, PLANNED)
    if planned:
        facts["planned_steps"] = planned
    rates = {_size(one["value"]) for line in head.split("\n")[:LINES] for one in _RATE.finditer(line)} - {0.0}
    if len(rates) == 1:
        facts["learning_rate"] = {"set": rates.pop()}
    kind = next((KINDS.get(words(first[name])) for name in SCHEDULE if name in first), None)
    if kind is None:
        return facts
    if any(KINDS.get(words(one)) != kind for one in classes) or _SHAPED.search(head):
        return facts | {"schedule": {"has_own_course": True}}
    known = {"planned_steps": planned, "length": _number(first, LENGTH), "warmup_steps": _number(first, WARMUP)}
    minimum = max((_size(one["value"]) for one in _MINIMUM.finditer(head)), default=0.0)
    facts["schedule"] = {"name": kind} | {name: value for name, value in known.items() if value is not None}
    if minimum:
        facts["schedule"]["minimum"] = minimum
    return facts


def _is_of_run(before: str) -> bool:
    """Whether what stands before a setting in its line names nothing else that it could be of."""
    owner = _OWNER.search(before[-1000:])
    if owner is None:
        return True
    word, front = owner[1], owner[2]
    return bool(_IN_FRONT.fullmatch(front)) if front else not _OTHERS.search(words(word))


def _number(first: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    numbers = (first.get(name, "").replace(",", "").replace("_", "") for name in names)
    return next((int(number) for number in numbers if number.isdigit()), None)


def _size(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
