"""What other trainers call the metrics: how a name is brought to its words before it is looked up in `vocabulary`.

A name is cut into lower-case words (`trainLoss`, `train/loss`, `Train Loss` and `train_loss` are the same). A word at
its beginning or end may say whose it is (`val_loss`, `loss_eval`), how it was gathered (`train_loss_epoch`) or in
which unit (`step_time_ms`). Of several names for one metric the first in the table is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from trimtab.runs.importers.vocabulary import (
    COMMON,
    DURATIONS,
    GATHERED,
    HEADINGS,
    MEASURED_IN,
    ONLY_IN_VALIDATION,
    SIDED,
    SIDES,
    UNITS,
    WRAPPERS,
    Side,
)

_RATES: Final = re.compile(
    r"(?:(?:optimizer|optim|opt|cur|curr|effective|actual|used|step)_)?(?:lr|learning_rate)\d{0,2}(?:_.+)?"
)
_NO_RATES: Final = re.compile(r"momentum|decay|schedul|factor|mult|scale|warmup|init|max|min|target")
_GRADIENT: Final = ("grad", "grads", "gradient", "gradients", "gradnorm", "gnorm")
_NORM: Final = ("norm", "norms", "l2", "gradnorm", "gnorm", "magnitude")
_OF_ALL: Final = (
    *("global", "total", "model", "2", "0"),
    *("before", "pre", "preclip", "unclipped", "raw", "clip", "clipping"),
)
"""What may stand beside a gradient's norm while it is that of all parameters before clipping."""
_LAYER: Final = re.compile(
    r"(?:train(?:ing)?/)?"
    r"(?:layer/(?P<a>.+)/grad_norm|(?:grad(?:ient)?s?[_/]?(?:2\.0_)?norms?)/(?P<b>.+[./].+))",
    re.IGNORECASE,
)
_DEAD: Final = re.compile(
    r"(?:train(?:ing)?/)?(?:layers?/)?(?:(?P<a>.+)/)?"
    r"(?:(?:dead|inactive)_(?P<units>(?:unit|neuron|relu)s?_)?(?:fraction|frac|ratio|share)|(?:fraction|frac)_(?:of_)?dead)"
    r"(?:/(?P<b>.+))?",
    re.IGNORECASE,
)
"""Units that give nothing, by layer: `dead_fraction/blocks.0`, `layer/blocks.0/dead_fraction`."""
_IN_LAYER: Final = re.compile(r"\d|\.|layer|block|conv|dense|linear|relu|mlp|ffn|activation|hidden", re.IGNORECASE)
"""What is dead elsewhere is an entry of a codebook, or who is played against."""
_LOOKUP: Final[Mapping[str, tuple[str, bool, int]]] = {
    name: (ours, sided, rank)
    for known, sided in ((SIDED, True), (COMMON, False))
    for ours, names in known.items()
    for rank, name in enumerate(names.split())
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a foreign name means here."""

    ours: str
    rank: int = 0
    """Of several columns with one meaning the lowest is taken."""
    factor: float | None = None
    """To our unit, where the name tells it."""
    inverse: bool = False
    """Steps a second instead of seconds a step."""
    side: Side | None = None


def words(name: str) -> str:
    """The words of a name, in lower case, joined by "_"."""
    plain = re.sub(r"[KMG]i?B(?![a-z])", lambda unit: "_" + unit[0].lower(), name[:200])
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)
    return "_".join(part for part in re.split(r"[^a-z0-9]+", plain.lower()) if part)


def meaning(name: str) -> Meaning | None:
    """What a metric is called here; None when the table does not know it. A test set counts as `side` "test"."""
    if (layer := _LAYER.fullmatch(name)) is not None and not words(name).endswith("total"):
        return Meaning(f"layer/{layer['a'] or layer['b']}/grad_norm")
    if "_" in name and (dead := _DEAD.fullmatch(name)) is not None:
        of = "/".join(part for part in (dead["a"], dead["b"]) if part)
        if dead["units"] or name.startswith(("layer/", "layers/")) or _IN_LAYER.search(of):
            return Meaning(f"layer/{of or 'all'}/dead_fraction")
    full = words(re.sub(r"/dataloader_idx_0$", "", name))
    found = _look_up(full, None, 0)
    if found is not None:
        return found
    parts = full.split("_")
    for at in (0, -1):
        side = SIDES.get(parts[at])
        if side is not None and len(parts) > 1:
            rest = "_".join(parts[1:] if at == 0 else parts[:-1])
            if at == 0 and parts[1] in WRAPPERS:
                return meaning(rest.partition("_")[2])  # Composer's `Train metrics/train/LanguageCrossEntropy`
            if (found := _look_up(rest, side, 0)) is None and side == "train" and at == 0:
                found = _under_a_heading(re.split(r"[/.:]", name, maxsplit=1)[-1])  # `train/perf/tokens_per_second`
            return found
    if parts[0] in WRAPPERS and len(parts) > 1:
        return meaning(full.partition("_")[2])
    return _rate(full) or _gradient_norm(parts) or _under_a_heading(name)


def evaluation_seconds(name: str) -> float | None:
    """What brings a duration of evaluations to seconds (`eval_runtime`, `validation/seconds`); None for other names."""
    parts = words(name).split("_")
    while len(parts) > 1 and SIDES.get(parts[0]) == "validation":
        parts = parts[1:]
        if (factor := DURATIONS.get("_".join(parts))) is not None:
            return factor
    return None


def _look_up(name: str, side: Side | None, rank: int) -> Meaning | None:
    if name in _LOOKUP:
        ours, sided, place = _LOOKUP[name]
        return _sided(ours, sided, side, rank * 100 + place, _unit_in(name, ours))
    head, _, last = name.rpartition("_")
    if not head:
        return None
    if last in GATHERED and (found := _look_up(head, side, rank + GATHERED[last] + 1)) is not None:
        return found
    first, _, rest = name.partition("_")
    if first in GATHERED and (found := _look_up(rest, side, rank + GATHERED[first] + 1)) is not None:
        return found
    if head in _LOOKUP and not _LOOKUP[head][1]:
        ours, sided, place = _LOOKUP[head]
        factor = UNITS.get(MEASURED_IN.get(ours, ""), {}).get(last)
        return None if factor is None else _sided(ours, sided, side, rank * 100 + place, factor)
    if side is None and last in SIDES:
        return _look_up(head, SIDES[last], rank)
    return _rate(name) if side in (None, "train") else None


def _sided(ours: str, sided: bool, side: Side | None, rank: int, factor: float | None) -> Meaning | None:
    if not sided:
        if side not in (None, "train"):
            return None
        if ours == "steps_per_second":
            return Meaning("step_seconds", rank + 50, 1.0, inverse=True, side=side)
        return Meaning(ours, rank, factor, side=side)
    if side in (None, "train"):
        return None if ours in ONLY_IN_VALIDATION else Meaning(f"train/{ours}", rank, side=side)
    return Meaning(f"validation/{ours}", rank, side=side)


def _unit_in(name: str, ours: str) -> float | None:
    units = UNITS.get(MEASURED_IN.get(ours, ""), {})
    said = [units[word] for word in name.split("_") if word in units and word != "b"]
    return said[0] if said else None


def _gradient_norm(parts: list[str]) -> Meaning | None:
    """Norms of the gradient under other words: `gradients/l2_norm`, `grad/total_norm`, `norm/gradient`."""
    rest = [part for part in parts if part not in (*_GRADIENT, *_NORM)]
    is_one = any(part in _GRADIENT for part in parts) and any(part in _NORM for part in parts)
    fits = is_one and all(part in _OF_ALL or SIDES.get(part) == "train" for part in rest)
    return Meaning("grad_norm", 150 + len(rest)) if fits else None


def _under_a_heading(name: str) -> Meaning | None:
    """What does not depend on whose it is, under a heading of its own: `optim/grad_norm`, `perf.tokens_per_sec`.

    A loss or an accuracy under a heading may be one of several, and is left alone.
    """
    heading, _, last = re.sub(r"[.:]", "/", name).rpartition("/")
    if words(heading) not in HEADINGS:
        return None
    found = _look_up(words(last), None, 0) or _rate(words(last))
    if found is None or found.ours.startswith(("train/", "validation/")):
        return None
    return replace(found, rank=found.rank + 1000)


def _rate(name: str) -> Meaning | None:
    """Learning rates of groups and optimizers: `lr-AdamW`, `lr-AdamW/pg1`, `learning_rate/group_0`."""
    found = _RATES.fullmatch(name)
    if found is None or _NO_RATES.search(name):
        return None
    digits = re.search(r"(\d+)$", name)
    return Meaning("learning_rate", 100 + min(int(digits[1][-4:]) if digits else 0, 9999))
