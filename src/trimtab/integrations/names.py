"""What the user of a logger calls a metric, under our name; and how many names a run may have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from trimtab.runs.importers.names import Meaning, meaning, words
from trimtab.runs.importers.units import to_ours
from trimtab.runs.importers.vocabulary import SIDES
from trimtab.runs.metrics import METRICS
from trimtab.runs.printable import printable

_LIMIT: Final = 120
_OURS: Final = re.compile(
    r"train/loss/.+|validation/[^/]+(?:/[^/]+)?|user/.+|group/.+/learning_rate|layer/.+/(?:grad_norm|weight_norm|activation_rms)"
)
_OF_EVALUATIONS: Final = ("validation/", "training_slice/", "generalization_gap")


@final
@dataclass(frozen=True, slots=True)
class Name:
    """One metric of the run."""

    ours: str
    meaning: Meaning | None = None
    """How it is converted; None: it is kept as it is."""

    @property
    def is_of_evaluation(self) -> bool:
        """Whether it is measured by an evaluation."""
        return self.ours.startswith(_OF_EVALUATIONS)

    @property
    def is_of_layer(self) -> bool:
        """Whether it is a row's of the statistics."""
        return self.ours.startswith("layer/")


def name_of(theirs: str) -> Name:
    """What the table of the importers says; ours stay as they are, unknown ones become `user/<name>`."""
    shown = printable(theirs, limit=_LIMIT)
    if shown in METRICS or _OURS.fullmatch(shown):
        return Name(shown)
    known = meaning(theirs)
    if known is not None:
        if known.side == "test":
            return Name(f"validation/test/{known.ours.rpartition('/')[2]}", known)
        return Name(known.ours, known)
    parts = words(theirs).split("_")
    if len(parts) > 1 and SIDES.get(parts[0]) in ("validation", "test"):
        rest = "_".join(parts[1:])
        first, _, last = rest.rpartition("_")
        further = f"{first}/{last}" if first and last in ("loss", "accuracy", "perplexity") else rest
        return Name(f"validation/{'test/' if parts[0] == 'test' else ''}{further}")
    return Name("user/" + shown.removeprefix("user/"))


@final
class Names:
    """The names of a run: each of theirs has one of ours, and none of ours has two. At most `most`, with artifacts."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.too_many = 0
        """Values that were left out because their name was one too many."""
        self._names: dict[str, Name] = {}
        self._taken: set[str] = set()
        self._factors: dict[str, float] = {}
        self._artifacts: set[str] = set()

    def __len__(self) -> int:
        return len(self._names) + len(self._artifacts)

    def take(self, artifact: str) -> bool:
        """Whether an artifact of this name may be written: they count with the metrics."""
        if artifact not in self._artifacts:
            if len(self) >= self.most:
                self.too_many += 1
                return False
            self._artifacts.add(artifact)
        return True

    def get(self, theirs: str) -> Name | None:
        """Our name; None, counted, when there are too many already."""
        name = self._names.get(theirs)
        if name is not None:
            return name
        if len(self) >= self.most:
            self.too_many += 1
            return None
        name = name_of(theirs)
        if name.ours in self._taken:
            name = Name("user/" + printable(theirs, limit=_LIMIT).removeprefix("user/"))
        ours, number = name.ours, 1
        while name.ours in self._taken:
            number += 1
            name = Name(f"{ours}.{number}")
        self._taken.add(name.ours)
        self._names[theirs] = name
        return name

    def convert(self, theirs: str, name: Name, value: float) -> float:
        """`value` in our unit; where only its size tells the unit, the first one that is not 0 decides for all."""
        if name.meaning is None or not np.isfinite(value):
            return value
        if name.meaning.inverse:
            return 1.0 / value if value else float("inf")
        factor = self._factors.get(theirs)
        if factor is None:
            if value == 0.0:
                return value
            converted, _ = to_ours(theirs, np.array([value], np.float64), name.meaning, None)
            factor = self._factors[theirs] = float(converted[0]) / value
        return value * factor
