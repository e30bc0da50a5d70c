"""Go back to before steps that did harm, without their data; or tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np

from trimtab.control.spikes import SpikeDetector
from trimtab.control.stopping.skipped import SkippedSteps
from trimtab.errors import NumericsError
from trimtab.events import Adjust, Advise, Decision, DecisionTaken, Event, Rollback, RunStarted, StepsEnded, Stop
from trimtab.runs import format


@final
class ReportSpikes:
    """Tells of every spike once, with the samples of its steps."""

    name = "spikes"

    def __init__(self, detector: SpikeDetector) -> None:
        self._detector = detector

    def decide(self, event: Event) -> Advise | None:
        """A remark on a spike that is new."""
        spike = self._detector.see(event) if isinstance(event, StepsEnded) else None
        return None if spike is None else Advise(f"spike: {spike.text}", steps=((spike.first, spike.last),))

    def state(self) -> dict[str, Any]:
        """The detector's."""
        return {"detector": self._detector.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._detector.load_state(state["detector"])


@final
class Recovery:
    """Rolls back at a spike, at too many skipped steps on end, or at both, `budget` times a run; then it stops.

    The run goes back to the newest checkpoint before the first harmful step, `margin` steps earlier. The data of all
    steps from there to the last harmful one are left out, or to the newest step where it is not seen to be over. Below
    a `factor` of 1 the learning rate is so much lower for `slow_steps` steps from the checkpoint on. The budget is no
    part of what is undone, and a rollback that cannot be made costs none: at a spike the run then goes on, at skipped
    steps it stops. An attempt that goes on after that stop counts skipped steps anew.

    Source: own, after Chowdhery et al. 2022, arXiv 2204.02311, section 5.1, who went back about 100 steps and left out
    200 to 500 batches.
    """

    name = "recovery"

    def __init__(
        self,
        detector: SpikeDetector | None,
        skipped: SkippedSteps | None,
        *,
        budget: int = 3,
        margin: int = 1,
        factor: float = 1.0,
        slow_steps: int = 100,
    ) -> None:
        """What is None is not looked at."""
        self._detector, self._skipped = detector, skipped
        self.budget, self.margin, self.factor, self.slow_steps = budget, margin, factor, slow_steps
        self._spent = 0
        self._asked = ""  # the code of a rollback that is neither made nor refused yet
        self._stop: dict[str, Any] | None = None
        self._is_stop_given = False
        self._slow_until: int | None = None

    def decide(self, event: Event) -> Decision | None:
        """A rollback, or the end when the budget is spent; the full rate again after a while."""
        if isinstance(event, RunStarted):
            self._start(event)
            return None
        if isinstance(event, DecisionTaken):
            self._hear(event)
            return None
        stop = None if self._skipped is None else self._skipped.decide(event)
        if not isinstance(event, StepsEnded):
            return None
        spike = None if self._detector is None else self._detector.see(event)
        if self._stop is not None:
            self._is_stop_given = True
            return Stop(**self._stop)
        if not self._asked:
            if stop is not None and self._skipped is not None:
                last = event.first_step + int(np.flatnonzero(event.per_step["skipped"])[-1])
                goes_on = last == event.last_step
                return self._go_back("nan-loss", stop.reason, self._skipped.first_step, last, goes_on=goes_on)
            if spike is not None:
                return self._go_back("loss-spike", spike.text, spike.first, spike.last, goes_on=spike.goes_on)
        if self._slow_until is not None and event.last_step >= self._slow_until and not self._asked:
            self._slow_until = None
            return Adjust(f"{format.counted(self.slow_steps, 'step')} after the rollback", "learning_rate", 1.0)
        return None

    def _go_back(self, code: str, why: str, first: int, last: int, *, goes_on: bool) -> Decision:
        if self._spent >= self.budget:
            if self._detector is not None:
                self._detector.tell_again()  # so that an attempt that goes on in the same stretch stops once more
            times = "once" if self._spent == 1 else f"{self._spent} times"
            return Stop(
                f"{why}; the run went back {times} already, which is all that recovery.rollback.budget allows",
                exit_code=NumericsError.exit_code,
            )
        self._asked, self._spent = code, self._spent + 1
        onset = max(1, first - self.margin)
        return Rollback(
            f"{why}; rollback {self._spent} of {self.budget}",
            onset,
            ((onset, last),),
            to_the_newest=goes_on,
            learning_rate=self.factor if self.factor < 1.0 else None,
            code=code,
        )

    def _start(self, event: RunStarted) -> None:
        if self._asked and self.factor < 1.0:
            self._slow_until = event.step + self.slow_steps
        self._asked = ""
        if self._skipped is not None:
            self._skipped.decide(event)
        if self._is_stop_given:  # an attempt after a failure is judged by its own steps
            self._stop, self._is_stop_given = None, False
            if self._skipped is not None:
                self._skipped.forget()

    def _hear(self, event: DecisionTaken) -> None:
        refused = event.controller == self.name and event.outcome == "overruled"
        if not (refused and isinstance(event.decision, Rollback) and self._asked):
            return
        if self._asked == "nan-loss" and event.note:
            reason = f"{event.decision.reason.rpartition('; ')[0]}; it cannot go back: {event.note}"
            self._stop = {"reason": reason, "exit_code": NumericsError.exit_code}
        self._asked, self._spent = "", self._spent - 1

    def state(self) -> dict[str, Any]:
        """Rollbacks made, what was asked for, a stop and whether it was given, the lower rate's end, and what is looked
        at."""
        return {
            "spent": self._spent,
            "asked": self._asked,
            "stop": self._stop,
            "stop_given": self._is_stop_given,
            "slow_until": self._slow_until,
            "detector": None if self._detector is None else self._detector.state(),
            "skipped": None if self._skipped is None else self._skipped.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._spent, self._asked, self._stop = state["spent"], state["asked"], state["stop"]
        self._is_stop_given = state.get("stop_given", self._stop is not None)
        self._slow_until = state["slow_until"]
        if self._detector is not None and state["detector"] is not None:
            self._detector.load_state(state["detector"])
        if self._skipped is not None and state["skipped"] is not None:
            self._skipped.load_state(state["skipped"])
