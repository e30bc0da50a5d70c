"""One line of what a trainer prints, as names with numbers: `iter 100: loss 2.3, time 12.5ms`, whoever wrote it.

A name is up to five words in front of a number, with `:`, `=` or a space between. Only names that are known are taken
out of prose; after `:` and `=` any name counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from trimtab.runs.importers.cells import SPELLINGS
from trimtab.runs.importers.names import meaning, words
from trimtab.runs.importers.vocabulary import EPOCHS, MEASURED_IN, SIDES, STEPS, TIMES, UNITS, Side
from trimtab.runs.unnamed_losses import is_loss

Record = dict[str, float]
EPOCH: Final = "epoch"
STEP: Final = "step"
LONGEST_LINE: Final = 4000

_NUMBER: Final = (
    r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|∞)"
    r"|[-+]?(?i:nan|inf(?:inity)?)"
)
_UNIT: Final = r"ms|us|secs?|s|%|GiB|MiB|KiB|GB|MB|KB|[kKMB]|it/s"
_PAIR: Final = re.compile(
    r"(?<![\w@])(?P<name>[A-Za-z_@][\w./@#^-]{0,59}(?: [A-Za-z_@(][\w./@#^-]{0,39}\)?){0,4})"
    r"(?:\s?[(\[](?P<in>[A-Za-z/%]{1,8})[)\]])?"
    r"(?P<sign>\s*(?:[:=]|->|→|\bis\b)\s*|\s+|(?=\[))"
    r"(?:[\[(] *)?(?:tensor\(|np\.float\d+\()?['\"]?"
    rf"(?P<number>{_NUMBER})"
    rf"\s?(?P<unit>(?:{_UNIT}))?(?![\w.])"
    r"(?P<of>\s*/\s*\d+(?:\.\d+)?)?"
)
_REDUCED: Final = re.compile(rf"\breducing (?:loss scale )?to (?P<number>{_NUMBER})")
"""What an overflow leaves of the scale of fp16, as DeepSpeed and Apex tell it."""
_BATCH_OF: Final = re.compile(r"\[\s*(\d+)\s*/\s*\d+(?=[\s\](])")
_NOISE: Final = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]"
    r"|\d{4}[-/]\d\d[-/]\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)?"
    r"|(?:\b\d\d[-/]\d\d[ T])?\b\d{1,2}:\d\d:\d\d(?:[.,]\d+)?"
)
_SUMMARY: Final = re.compile(
    r"\b(?:best|final|lowest|minimum|restor\w+|previous|improved from|target|early)\b", re.IGNORECASE
)
_NOT_A_STEP: Final = re.compile(r"max|total|num|number|warm|save|eval|every|interval|per|skip|nan|log|accum|for|best")
# fmt: off
_FILLERS: Final = frozenset((
    "average", "avg", "mean", "current", "the", "at", "set", "info", "debug", "on", "in", "of", "end", "step",
    "epoch", "iter", "rank0", "result", "results", "metrics", "metric", "running", "and", "with", "root", "main",
    "worker", "model", "done", "after",
))
# fmt: on
_PREFIX: Final[dict[Side, str]] = {"train": "", "validation": "val ", "test": "test "}


def cleaned(line: str) -> str:
    """With spaces for colours, dates and times."""
    return _NOISE.sub(_blank, line) if "\x1b" in line or ":" in line or "-" in line or "/" in line else line


def _blank(found: re.Match[str]) -> str:
    return " " * (found.end() - found.start())  # places stay what they are


def number_of(text: str) -> float:
    """A number as it is printed, with commas between thousands."""
    plain = text.replace(",", "")
    known = SPELLINGS.get(plain.lower())
    return float(plain) if known is None else known


@lru_cache(maxsize=4096)
def _kind(name: str) -> tuple[str, str, Side | None] | None:
    """What a name is: a step, an epoch, a time or a metric; what is left of it without filling words; its side."""
    parts = name.replace("(", " ").replace(")", " ").split()
    side: Side | None = None
    if len(parts) > 2 and words(parts[-1]) in STEPS and words(parts[-2]) in ("at", "after"):
        side = next((SIDES[words(part)] for part in parts if words(part) in SIDES), None)
        return STEP, words(parts[-1]), side
    for begin in range(len(parts)):
        rest = " ".join(parts[begin:])
        plain = words(rest)
        if plain in STEPS:
            before = words(" ".join(parts[:begin]))
            return None if _NOT_A_STEP.search(before) else (STEP, plain, side)
        if plain in EPOCHS:
            return EPOCH, plain, side
        if plain in TIMES:
            return "time", plain, side
        found = meaning(rest)
        if found is not None:
            return "metric", rest, found.side if found.side is not None else side
        first = words(parts[begin])
        if first in SIDES:
            side = SIDES[first]
        elif first not in _FILLERS:
            return None
    return None


@dataclass(slots=True)
class Told:
    """What a line says."""

    record: Record = field(default_factory=dict)
    """`step` and `epoch` are called so whatever the line calls them."""
    is_measured: bool = False
    """Whether a loss or another metric of a side is in it, or several losses that make up one."""
    places: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """Where in the text each number begins and ends, and what it was multiplied by."""
    is_plain: bool = True
    """Whether every number is what stands at its place."""

    def put(self, name: str, one: re.Match[str], factor: float = 1.0) -> None:
        """Add a number, if there is none of that name."""
        if name not in self.record:
            self.record[name] = number_of(one["number"]) * factor
            self.places[name] = one.start("number"), one.end("number"), factor


def pairs_in(text: str, wanted: frozenset[str]) -> Told:
    """Names with numbers in a line. A line that tells of a best value gives nothing."""
    told = Told()
    if _SUMMARY.search(text):
        return told
    side: Side | None = None
    at, step_rank, is_judged = 0, 99, False
    for one in _PAIR.finditer(text):
        kind = _kind(one["name"])
        if kind is not None and kind[0] in (EPOCH, STEP) and (said := SIDES.get(words(one["in"] or ""))) is not None:
            side = said  # `Epoch(val) [1][100/100]`
            is_judged = said != "train"
        # What stands before a name speaks of what follows: `Test set: Average loss: 0.05, Accuracy: 98%`.
        for word in words(text[at : one.start()]).split("_"):
            side = SIDES.get(word, side)
        at = one.end()
        if kind is not None and kind[2] is not None and " " in one["name"]:
            side = kind[2]
        if kind is None and side is not None and meaning(_PREFIX[side] + one["name"]) is not None:
            kind = "metric", _PREFIX[side] + one["name"], side
        unit = one["unit"] or one["in"]
        if kind is None:
            name = one["name"]
            if name.endswith(".py"):
                continue  # `[logging.py:96:log_dist]`
            if name in wanted or ((":" in one["sign"] or "=" in one["sign"]) and len(name) <= 40):
                told.put(name, one, _factor(name, one["unit"]))
        elif kind[0] in (STEP, "time") and is_judged:
            continue  # it counts batches of an evaluation
        elif kind[0] == STEP:
            rank, value = STEPS[kind[1]], number_of(one["number"])
            if value == value // 1 and rank < step_rank:
                told.record.pop(STEP, None)
                told.put(STEP, one)
                step_rank = rank
        elif kind[0] == EPOCH:
            told.put(EPOCH, one)
        elif kind[0] == "time":
            if unit in ("ms", "us"):
                told.put(f"step_time_{unit}", one)
            elif unit is None:
                told.put(kind[1], one)
        else:
            _put_metric(told, one, kind[1], kind[2], side)
    if "loss scale" in text and (scale := _REDUCED.search(text)) is not None:
        told.put("loss_scale", scale)
        told.is_measured = True
    told.is_measured |= sum(map(is_loss, told.record)) > 1
    if "data_time" in told.record and "time" in told.record:
        told.record["step_time"] = told.record.pop("time")
        told.places["step_time"] = told.places.pop("time")
    if is_judged:
        told.record.pop("data_time", None)
        told.places.pop("data_time", None)
    elif EPOCH in told.record and STEP not in told.record and (batch := _BATCH_OF.search(text)) is not None:
        told.record["batch"] = float(batch[1])
        told.places["batch"] = batch.start(1), batch.end(1), 1.0
    return told


def _put_metric(told: Told, one: re.Match[str], name: str, own: Side | None, side: Side | None) -> None:
    """A metric that is known by `name`; `own` is the side that its words say, `side` that of the line so far."""
    known = meaning(name)
    if known is None:
        return
    factor = _factor(known.ours, one["unit"])
    if known.ours.startswith(("train/", "validation/")):
        told.is_measured = True
        if known.side is None and (own or side) is not None:
            name = _PREFIX[own or side or "train"] + name
        if known.ours.endswith("/accuracy") and one["of"] is not None:
            factor /= max(1.0, float(one["of"].strip(" /")))
            told.is_plain = False
    if (unit := one["unit"] or one["in"]) is not None:
        name = _with_unit(name, unit, known.ours)
    told.put(name, one, factor)


def _factor(name: str, unit: str | None) -> float:
    if unit == "%":
        return 0.01 if name.endswith("accuracy") else 1.0
    return {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9}.get(unit or "", 1.0)


def _with_unit(name: str, unit: str, ours: str) -> str:
    """The name with the unit that stands behind its number, where it says none itself."""
    units = UNITS.get(MEASURED_IN.get(ours, ""), {})
    plain = unit.lower()
    if plain not in units or set(words(name).split("_")) & (units.keys() - {"b"}):
        return name
    longer = f"{name}_{plain}"
    return longer if meaning(longer) is not None else name
