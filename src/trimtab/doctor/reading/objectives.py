"""Whether what is minimized moves by itself: of a game, of rewards, of terms that are let in by plan.

A generator's loss is measured by a discriminator that learns as well, a Q function's by its own older answers, a
critic's grows with the returns: their level says nothing of how well they do, and may rise from the start by design.
What else a log tells shows it: the loss of an opponent, returns, the stage of a curriculum.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.reading.once import once

MOVING: Final = frozenset(
    (
        "actor",
        "critic",
        "curriculum",
        "difficulty",
        "disc",
        "discriminator",
        "elbo",
        "generator",
        "kl",
        "policy",
        "qvalue",
        "return",
        "returns",
        "rew",
        "reward",
        "rewards",
        "rollout",
        "stage",
        "td",
    )
)
GAMES: Final = frozenset(("d_loss", "g_loss", "loss_d", "loss_g", "value_loss", "loss_value", "v_loss"))
LEVELS: Final = (
    "bad-initialization",
    "learning-rate-too-high",
    "loss-spike",
    "missing-warmup",
    "noisy-loss",
    "outlier-dominated-loss",
    "plateau",
    "unshuffled-data",
)
"""What is read off the level of a loss, and of which nothing can be said where that moves by itself."""
BLOWN: Final = 1e3
"""Times what it was: so far no game goes."""


@once
def moved_by(case: Case) -> str | None:
    """The column that tells that the objective moves, None where none does."""
    return next((told for name in sorted(case.history.series) if (told := _moving(name)) is not None), None)


@lru_cache(maxsize=1024)
def _moving(name: str) -> str | None:
    group, _, told = name.partition("/")
    word = (told if group in ("user", "train", "validation") else name).rpartition("/")[2].lower()
    moves = word in GAMES or not MOVING.isdisjoint(re.split(r"[^a-z]+", word))
    return (told or name) if moves else None
