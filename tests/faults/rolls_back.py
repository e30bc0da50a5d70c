"""A run whose controller rolls back once, and that may kill itself on the way.

python rolls_back.py CONFIG RUN [announced | decided | restored | resumed | saved]
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from trimtab import Trainer, load_config
from trimtab.events import Adjust, Decision, EvaluationEnded, Event, Rollback, StepsEnded
from trimtab.training import Keeper
from trimtab.training.checkpoint import keeper


class RollsBackOnce:
    """At the evaluation of step 120, back to before step 110 without the data of steps 111 to 118, once."""

    name = "rolls_back_once"

    def __init__(self) -> None:
        self.budget = 1

    def decide(self, event: Event) -> Decision | None:
        if isinstance(event, EvaluationEnded) and event.step == 120 and self.budget:
            self.budget -= 1
            return Rollback("the loss left", 110, ((111, 118),))
        return None

    def state(self) -> dict[str, Any]:
        return {"budget": self.budget}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.budget = state["budget"]


class Lowers:
    """Halves the learning rate after step 112, which the rollback must keep."""

    name = "lowers"

    def decide(self, event: Event) -> Decision | None:
        is_there = isinstance(event, StepsEnded) and event.first_step <= 112 <= event.last_step
        return Adjust("slower", "learning_rate", 0.5) if is_there else None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


def killed(*arguments: Any, **named: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def kill_at(point: str) -> None:
    announce, save, forget = Keeper.announce_rollback, Keeper.save, keeper.forget
    patches: dict[str, Callable[[], None]] = {
        "announced": lambda: setattr(Keeper, "announce_rollback", lambda *a: (announce(*a), killed())),
        "decided": lambda: setattr(Keeper, "roll_back", killed),
        "restored": lambda: setattr(
            Keeper,
            "save",
            lambda self, reason, **named: killed() if "rolled back" in reason else save(self, reason, **named),
        ),
        "resumed": lambda: setattr(Keeper, "save", killed),
        "saved": lambda: setattr(keeper, "forget", lambda run: killed() if run.rollback.exists() else forget(run)),
    }
    patches[point]()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        kill_at(sys.argv[3])
    Trainer(load_config(Path(sys.argv[1])), run=sys.argv[2], controllers=[RollsBackOnce(), Lowers()]).fit()
