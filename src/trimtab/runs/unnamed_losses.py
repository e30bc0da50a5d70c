"""Columns whose names no table knows, and which look like losses: what to map them to, and which make up one loss."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from typing import Final

SEVERAL: Final = "several losses"
"""The task of a log whose loss is the sum of losses that it names: of such a sum no height is usual."""

_LOSS: Final = frozenset(
    {"loss", "losses", "objective", "obj", "cost", "criterion", "nll", "xent", "ce", "bce", "mse", "mae", "entropy"}
)
_NO_LOSS: Final = frozenset({"scale", "scaler", "weight", "weights", "coef", "coefficient", "lambda", "best", "min"})
"""What is said of a loss and is none, or is not that of the step."""
_HELD_OUT: Final = frozenset(
    {"val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing", "holdout", "heldout"}
)

_NOT_ADDED: Final = frozenset(
    {
        *("unscaled", "unweighted", "raw", "scaled", "target", "teacher"),
        *("overall", "full", "combined", "final", "sum", "avg", "running", "ema", "smoothed", "weighted"),
    }
)
"""What is logged beside the same loss as it is minimized, and sums and averages of its parts."""
_APART: Final = frozenset(
    {
        *(
            "adam",
            "adamw",
            "baseline",
            "bs",
            "client",
            "exp",
            "experiment",
            "fold",
            "fp",
            "lr",
            "model",
            "ours",
            "rank",
        ),
        *("run", "seed", "sgd", "trial"),
    }
)
"""Of losses side by side in one table that are no parts of one."""
_PLAYED: Final = re.compile(
    r"(?:[dgv]|gen|disc|adv|fake|real|critic|actor|policy|value|pg|vf|pi|clip|surrogate|rew|td|q|qf?\d?|teacher|"
    r"\w*(?:gan|generat|discrim|advers)\w*)"
)
"""Words of losses that are minimized one against another, or apart from each other."""


def unnamed_losses(names: Iterable[str]) -> dict[str, str]:
    """Names that look like a training or a validation loss to "train/loss" and "validation/loss": one of each at most.

    Of several the shortest is taken: the others are mostly its parts.
    """
    found: dict[str, str] = {}
    for name in sorted(names, key=len):
        words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
        glued = next((word for word in words if word.endswith(("loss", "nll", "objective"))), None)
        if words & _NO_LOSS or (not words & _LOSS and glued is None):
            continue
        held_out = words & _HELD_OUT or (glued is not None and any(glued.startswith(word) for word in _HELD_OUT))
        ours = "validation/loss" if held_out else "train/loss"
        if ours not in found.values():
            found[name] = ours
    return found


def added_losses(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Losses of one step that are minimized together (`box_loss`, `cls_loss` …): "train/loss", and "validation/loss"
    where it has the same parts, to their names; empty where none of one side are several, or they are played."""
    parts: dict[str, dict[str, str]] = {"train/loss": {}, "validation/loss": {}}
    known = dict.fromkeys(names)
    for name in known:
        words = _words(name)
        if not is_loss(name) or set(words) & _NOT_ADDED or name.replace("epoch", "step") in known.keys() - {name}:
            continue
        if {word.rstrip("0123456789") for word in words} & _APART:
            return {}
        ours = "validation/loss" if set(words) & _HELD_OUT else "train/loss"
        term = "_".join(word for word in words if word not in _HELD_OUT | {"loss", "train", "training"})
        if term and parts[ours].setdefault(term, name) != name:
            return {}  # the same twice
    training, held_out = parts["train/loss"], parts["validation/loss"]
    if len(training) < 2 or played(chain(training.values(), held_out.values())):
        return {}
    both = held_out.keys() == training.keys()
    return {ours: tuple(one.values()) for ours, one in parts.items() if ours == "train/loss" or both}


def played(names: Iterable[str]) -> tuple[str, ...]:
    """The losses among `names` that are of a game or of rewards: each is measured by what another one learns."""
    found = ((name, _words(name)) for name in names)
    return tuple(name for name, words in found if is_loss(name) and any(map(_PLAYED.fullmatch, words)))


@lru_cache(maxsize=4096)
def is_loss(name: str) -> bool:
    """Whether `loss` is a word of a name, and none that makes it something else."""
    words = _words(name)
    return "loss" in words and _NO_LOSS.isdisjoint(words)


def _words(name: str) -> list[str]:
    """The words of a name in lower case, numbers with the word that they stand behind or alone."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return [word for word in re.split(r"[^a-z0-9]+", apart) if word]
