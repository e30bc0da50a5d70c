"""What is done about a finding while a run goes on: what can be undone, within a budget, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final

from trimtab.doctor.finding import Finding
from trimtab.events import Adjust, Decision, DecisionTaken, Rollback, Stop

LOWEST: Final = 1e-3
"""The least that the learning rate is lowered to, as a factor."""
KINDS: Final[Mapping[str, Literal["back", "lower", "stop"]]] = {
    "divergence": "back",
    "exploding-gradients": "back",
    "nan-loss": "back",
    "learning-rate-too-high": "lower",
    "overfitting": "stop",
}
"""What is done about each code; about others nothing. To go back takes an error."""


@final
class Acts:
    """Decides what is done about findings, at most `budget` times a run.

    *Back*: to the newest checkpoint before the onset, with the learning rate times `factor`, and of a loss that was no
    number without its data; where no such checkpoint is kept, the rate is lowered alone. *Lower*: the rate times
    `factor`, for the rest of the run. *Stop*, with the best weights where `restores_best`; not where `stops` is false,
    as another controller decides on that. A code is acted upon again only where its trouble began after the act before.
    """

    def __init__(
        self,
        *,
        budget: int = 3,
        confidence: float = 0.8,
        factor: float = 0.3,
        stops: bool = True,
        restores_best: bool = True,
    ) -> None:
        """A finding that the doctor is less sure of than `confidence` is not acted upon."""
        self.budget, self.confidence, self.factor = budget, confidence, factor
        self.stops, self.restores_best = stops, restores_best
        self._spent = 0
        self._rate = 1.0
        self._acted: dict[str, int] = {}
        self._waiting: dict[str, Any] | None = None
        """What is to be done at the next window or evaluation."""
        self._asked: dict[str, Any] | None = None
        """What was decided, and is neither made nor refused yet."""

    def consider(self, findings: Sequence[Finding], step: int) -> None:
        """Choose what to do about `findings`, which were made of the run up to `step`: the gravest that can be met."""
        if self._waiting is not None or self._asked is not None or self._spent >= self.budget:
            return
        for finding in findings:
            kind = KINDS.get(finding.code)
            if kind is None or finding.confidence < self.confidence or finding.severity == "info":
                continue
            if kind == "back" and finding.severity != "error":
                continue
            if kind == "stop" and not self.stops:
                continue
            if finding.onset_step <= self._acted.get(finding.code, -1):
                continue
            self._waiting = {
                "kind": kind,
                "code": finding.code,
                "onset": max(1, finding.onset_step),
                "step": step,
                "why": f"{finding.code}: {finding.cause}",
            }
            return

    def take(self) -> Decision | None:
        """What is to be done now, once; it counts unless it is refused."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        self._spent += 1
        self._asked = waiting
        reason = f"{waiting['why']}; act {self._spent} of {self.budget}"
        match waiting["kind"]:
            case "back":
                left_out = ((waiting["onset"], waiting["step"]),) if waiting["code"] == "nan-loss" else ()
                return Rollback(
                    reason,
                    waiting["onset"],
                    left_out,
                    bool(left_out),
                    learning_rate=self._lower(),
                    code=waiting["code"],
                )
            case "lower":
                return Adjust(reason, "learning_rate", self._lower())
            case _:
                return Stop(reason, restore_best=self.restores_best)

    def _lower(self) -> float:
        return max(LOWEST, self._rate * self.factor)

    def hear(self, event: DecisionTaken) -> None:
        """What came of it: what was refused costs nothing, and where no checkpoint is kept the rate is lowered."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        if event.outcome == "taken":
            self._acted[asked["code"]] = event.step
            if asked["kind"] != "stop":
                self._rate = self._lower()
            return
        self._spent -= 1
        if not event.note:  # another controller's decision came first, and may be enough
            return
        self._acted[asked["code"]] = event.step
        if asked["kind"] == "back":
            self._waiting = {**asked, "kind": "lower", "why": f"{asked['why']}; it cannot go back: {event.note}"}

    def starts(self, step: int) -> None:
        """The run goes on from `step`: what begins after that is new.

        Of a rollback this is told by the steps alone, as a process that was killed in the middle of it left no
        more: what waits was chosen after `step`, and of a rollback that was decided nobody may have been told.
        """
        if self._asked is not None and self._asked["step"] > step:
            self._acted[self._asked["code"]] = step
            self._rate = self._lower()
        self._asked = None
        self._acted = {code: min(at, step) for code, at in self._acted.items()}
        if self._waiting is not None and self._waiting["step"] > step:
            self._waiting = None

    def state(self) -> dict[str, Any]:
        """What was spent, the factor on the rate, where each code was acted upon, what waits and what was asked."""
        return {
            "spent": self._spent,
            "rate": self._rate,
            "acted": dict(self._acted),
            "waiting": None if self._waiting is None else dict(self._waiting),
            "asked": None if self._asked is None else dict(self._asked),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._spent, self._rate = int(state["spent"]), float(state["rate"])
        self._acted = dict(state["acted"])
        self._waiting, self._asked = state["waiting"], state["asked"]
