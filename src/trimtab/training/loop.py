"""The loop: steps, and what happens between them.

At a boundary every controller is asked first; then the loop acts in a fixed order: adjust, roll back, evaluate, save,
stop. A rollback cancels the evaluation and the save of the same boundary; what was adjusted stays. A window of steps is
told when the next one ends, or before an evaluation (windows.py).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, final

from trimtab.data import DataPlan, Loader
from trimtab.errors import StorageError
from trimtab.events import (
    Advise,
    AlertRaised,
    ArtifactLogged,
    CheckpointSaved,
    Controller,
    Decision,
    DecisionTaken,
    Evaluate,
    EvaluationEnded,
    Event,
    FindingsChanged,
    Monitor,
    Rollback,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
    Stop,
)
from trimtab.optimizer import applied_rates
from trimtab.runs.metrics import selection_direction
from trimtab.training.adjustments import Adjustments
from trimtab.training.calendar import Calendar
from trimtab.training.contracts import Checkpoints, Profiler, Recorder
from trimtab.training.decisions import adjustments_of, of_kind, reasons_to_save, weigh
from trimtab.training.endings import Status, ending, run_ended
from trimtab.training.micro_batch import Attempts
from trimtab.training.progress import Progress
from trimtab.training.requests import Requests
from trimtab.training.settings import Settings
from trimtab.training.step import Step
from trimtab.training.telling import Teller
from trimtab.training.windows import Windows


@final
class Loop:
    """Trains from `progress` to the end of the calendar, or to a decision to stop."""

    def __init__(
        self,
        *,
        step: Step,
        loader: Loader,
        windows: Windows,
        calendar: Calendar,
        settings: Sequence[Settings],
        progress: Progress,
        controllers: Sequence[Controller],
        monitors: Sequence[Monitor],
        recorder: Recorder,
        evaluate: Callable[[int], tuple[EvaluationEnded, Sequence[ArtifactLogged]]],
        checkpoints: Checkpoints,
        requests: Requests,
        selection_metric: str,
        restore_best: bool,
        adjustments: Adjustments,
        heartbeat: Callable[[int], None],
        saves_in_background: bool = True,
        synchronize: Callable[[], None] = lambda: None,
        keep_split: Callable[[Mapping[str, Any]], None] = lambda choice: None,
        planned: Callable[[int], Sequence[Decision]] = lambda step: (),
        data_of: Callable[[Decision], Mapping[str, Any]] = lambda decision: {},
        alerts: Callable[[StepsEnded, int], Iterable[Event]] = lambda window, step: (),
        before: Callable[[int], float] = lambda step: 0.0,
        examined: Callable[[int], Iterable[Event]] = lambda step: (),
        private: Callable[[Event], Event | None] = lambda event: event,
    ) -> None:
        """`settings` of each optimizer; `planned` decisions by step; `synchronize` waits for all that is queued on the
        device; `keep_split` writes down a smaller micro-batch; `data_of` names the data of a decision about steps;
        `alerts` tells what went wrong in a window, `before` prepares for what `examined` tells of a step, in seconds;
        `heartbeat` hears of a step's micro-batches, 0 between; `private` gives an event as it may be told, or None."""
        self._step, self._loader, self._windows = step, loader, windows
        self._calendar, self._settings, self._planned = calendar, tuple(settings), planned
        self._emit = Teller(recorder, monitors, step.timer, private)
        self.profiler: Profiler | None = None
        self.progress, self._attempts = progress, Attempts(step, loader, progress, keep=keep_split, tell=self._emit)
        self._controllers = tuple(controllers)
        self._recorder, self._evaluate, self._checkpoints = recorder, evaluate, checkpoints
        self._requests, self._selection_metric = requests, selection_metric
        self._restore_best, self._adjustments, self._before = restore_best, adjustments, before
        self._heartbeat, self._synchronize, self._saves_in_background = heartbeat, synchronize, saves_in_background
        self._data_of, self._alerts, self._examined = data_of, alerts, examined
        self._observed_until = progress.step
        self._stop: Stop | None = None

    def run(self, started: RunStarted) -> RunEnded:
        """Train. Raises what the step, the record or a checkpoint raise; monitors' errors are warnings."""
        progress = self.progress
        begun = time.perf_counter()
        if progress.stop is not None and progress.stop["exit_code"] == 0:
            self._stop = Stop(**progress.stop)
        progress.stop = None if self._stop is None else progress.stop  # a failure may be tried again
        with self._requests.listening():
            self._start(started)
            self._loader.start(progress.position, DataPlan.from_json(progress.plan))
            self._boundary_time = time.perf_counter()
            while self._stop is None and progress.step < self._calendar.total_steps:
                self._train_step()
                self._boundary()
                going_on = self._stop is None and progress.step < self._calendar.total_steps
                if (asked := self._requests.interrupted) is not None and going_on:
                    self._save(f"{asked} received", planned=False)
                    return self._finish(begun, "interrupted", f"{asked} received, all is saved", None)
            return self._end(begun)

    def settle(self) -> None:
        """After an error: tell of the save under way; that it failed, too, is a warning."""
        try:
            self._tell(self._checkpoints.finished(wait=True))
        except StorageError as error:
            warnings.warn(str(error), stacklevel=2)

    def close(self) -> None:
        """End the thread that prepares data; may be called again."""
        self._loader.close()

    def _train_step(self) -> None:
        progress = self.progress
        step = progress.step + 1
        if self.profiler is not None:
            self._boundary_time += self.profiler.before(step)
        if looked := self._before(step):
            progress.spend("probe", looked)
            self._boundary_time += looked
        settings = self._settings[progress.optimizer]
        rates = settings.rates(progress.step, progress.factor)
        self._step.set(**rates, **settings.others(progress.step, progress.factor))
        taken = self._attempts.run(step, self._begin_step, ends_window=self._calendar.closes_window(step))
        if self._calendar.evaluates(step) or self._calendar.saves(step):
            self._synchronize()  # so that what is queued is this window's time, and neither evaluation nor saving
        counts = self._windows.counts_of(taken.batches)
        progress.advance(taken.next_position, int(counts["tokens"]))
        now = time.perf_counter()
        seconds, self._boundary_time = now - self._boundary_time, now
        progress.spend("data", taken.seconds_waited)
        progress.spend("training", seconds - taken.seconds_waited)
        self._windows.add(
            {
                "learning_rate": rates["learning_rate"],
                **applied_rates(self._step.optimizer.groups, rates),
                **counts,
                "step_seconds": seconds,
                "data_seconds": taken.seconds_waited,
            }
        )

    def _begin_step(self) -> int:
        """The micro-batches of the next step, as adjusted and divided by now."""
        micro_batches = self._adjustments.begin(self.progress.step)
        self._heartbeat(micro_batches)
        return micro_batches

    def _boundary(self) -> None:
        step, calendar = self.progress.step, self._calendar
        self._heartbeat(0)
        if self.profiler is not None:
            self._boundary_time += self.profiler.after(step)
            self._emit(*self.profiler.events())
        self._tell(self._checkpoints.finished())
        asked: list[tuple[str, Decision]] = [("request", decision) for decision in self._requests.poll()]
        asked += [("plan", decision) for decision in self._planned(step)]
        for ended in self._windows.close(step, waits=calendar.evaluates(step)) if calendar.closes_window(step) else ():
            asked += self._deliver(ended)
        if calendar.examines(step):
            asked += self._examine(step)
        went_back = self._act_on_state(asked)
        if not went_back and (calendar.evaluates(step) or of_kind(asked, Evaluate)):
            answers = self._deliver_evaluation()
            went_back = self._act_on_state(answers, evaluated=True)
            asked += answers
        planned = went_back or calendar.saves(step) or any(who != "request" for who, _ in of_kind(asked, Save))
        back_at = self.progress.step if went_back else None
        if saves := reasons_to_save(asked, step, calendar, back_at=back_at, stops=self._stop is not None):
            # The last save of a process, and one that a rollback rests on, are waited for, and must not fail.
            needed = went_back or self._stop is not None or step >= calendar.total_steps
            self._save("; ".join(dict.fromkeys(saves)), needed=needed, planned=planned)

    def _act_on_state(self, asked: Sequence[tuple[str, Decision]], *, evaluated: bool = False) -> bool:
        """Adjust, note every decision, and roll back where that was asked. True when the run went back."""
        step, checkpoints = self.progress.step, self._checkpoints
        if of_kind(asked, Rollback):  # what is being written belongs to the branch that may be left
            self._tell(checkpoints.finished(wait=True))
        verdicts = weigh(
            asked,
            step=step,
            can_roll_back=checkpoints.can_roll_back,
            cannot_adjust=self._adjustments.why_not,
            evaluated=evaluated,
        )
        taken = [(verdict.controller, verdict.decision) for verdict in verdicts if verdict.taken]
        for who, adjustment in adjustments_of(taken):
            self._adjustments.take(who, adjustment)
        for _, stop in of_kind(taken, Stop):
            self._stop = self._stop or stop
            self.progress.stop = asdict(self._stop)
        rollback = next((decision for _, decision in of_kind(taken, Rollback)), None)
        plan = DataPlan.from_json(self.progress.plan)
        if rollback is not None:
            for first, last in rollback.left_out(step):
                plan = plan.excluding(*self.progress.positions_of(first, last))
            checkpoints.announce_rollback(rollback.onset_step, plan.to_json())
        for v in verdicts:
            outcome: Literal["taken", "overruled"] = "taken" if v.taken else "overruled"
            data = self._data_of(v.decision) if v.taken else {}
            told = DecisionTaken(step, self._observed_until, v.controller, v.decision, outcome, v.note, data)
            self._emit(told)
            self._ask(told)  # so that whoever asked knows; an answer is not wanted
        if findings := tuple(advice.finding for _, advice in of_kind(asked, Advise) if advice.finding):
            self._emit(FindingsChanged(step, findings))
        if rollback is not None:
            self._roll_back(plan)
        return rollback is not None

    def _roll_back(self, plan: DataPlan) -> None:
        """Weights, optimizer, ring and position go back; controllers, factors and exclusions stay."""
        begun = time.perf_counter()
        self._recorder.sync()
        untold = self.progress.untold
        restored, progress = self._checkpoints.roll_back(), self.progress
        progress.branch += 1
        progress.untold = [saved for saved in untold if saved["step"] <= restored]
        self._observed_until = restored
        self._loader.start(progress.position, plan)
        self._book("checkpoint", begun)
        self._start(RunStarted(restored, progress.attempt, progress.branch, restored, self._calendar.total_steps))

    def _start(self, started: RunStarted) -> None:
        """Tell everybody that a branch opens; controllers forget what an abandoned one taught, and decide nothing."""
        self._emit(started)
        for controller in self._controllers:
            controller.decide(started)

    def _deliver_evaluation(self) -> list[tuple[str, Decision]]:
        self._synchronize()  # where it was not planned, the next step's time
        begun = time.perf_counter()
        self._tell(self._checkpoints.finished(wait=True))
        self._book("checkpoint", begun)
        # Here and not when its write was done: controllers hear of a save at the same step in every rerun.
        untold, self.progress.untold = self.progress.untold, []
        asked = [answer for saved in untold for answer in self._ask(CheckpointSaved(**saved))]
        begun = time.perf_counter()
        event, artifacts = self._evaluate(self.progress.step)
        self._book("evaluation", begun)
        self.progress.take_metrics(
            event.step, event.metrics, self._selection_metric, selection_direction(self._selection_metric)
        )
        asked += self._deliver(event)
        self._emit(*artifacts)
        return asked

    def _examine(self, step: int) -> list[tuple[str, Decision]]:
        self._synchronize()
        begun = time.perf_counter()
        events = list(self._examined(step))
        self._book("probe", begun)
        self._emit(*events)
        return [answer for event in events for answer in self._ask(event)]

    def _save(self, reason: str, *, needed: bool = True, planned: bool = True) -> None:
        """Save; one that is `needed` is waited for, and its failure ends the run; `planned`, as in every rerun."""
        self._synchronize()
        begun = time.perf_counter()
        self._tell(self._checkpoints.finished(wait=True))  # so that the state holds which saves are not told yet
        self._recorder.sync()
        waits = needed or not self._saves_in_background
        saved = self._checkpoints.save(reason, background=not waits, needed=needed, planned=planned)
        self._book("checkpoint", begun)
        self._tell(saved)

    def _tell(self, saved: Sequence[CheckpointSaved | AlertRaised]) -> None:
        for event in saved:
            self._emit(event)
            if isinstance(event, CheckpointSaved):
                self.progress.untold.append(asdict(event))

    def _book(self, cause: str, begun: float) -> None:
        """Time that belongs to no step; all else at a boundary, waiting for the device included, does."""
        seconds = time.perf_counter() - begun
        self.progress.spend(cause, seconds)
        self._boundary_time += seconds

    def _deliver(self, event: StepsEnded | EvaluationEnded) -> list[tuple[str, Decision]]:
        """Write and show `event`, then ask every controller."""
        if isinstance(event, StepsEnded):
            self._emit(event, *self._alerts(event, self.progress.step))
            self._observed_until = event.last_step
        else:
            self._emit(event)
            if self._calendar.evaluates(event.step):  # where it was not planned, the newest window is not told yet
                self._observed_until = event.step
        return self._ask(event)

    def _ask(self, event: Event) -> list[tuple[str, Decision]]:
        return [(one.name, answer) for one in self._controllers if (answer := one.decide(event)) is not None]

    def _end(self, begun: float) -> RunEnded:
        stop = self._stop
        restores = self._restore_best if stop is None else stop.restore_best
        restored = None
        if restores and self.progress.best_step not in (None, self.progress.step):
            restored = self._checkpoints.restore_best()
        return self._finish(begun, *ending(stop, self.progress, self._calendar.total_steps, restored), restored)

    def _finish(self, begun: float, status: Status, reason: str, restored: int | None) -> RunEnded:
        progress = self.progress
        for event in self._windows.drain(progress.step):  # an attempt that goes on tells it again, and takes this back
            self._emit(event, *(() if status == "interrupted" else self._alerts(event, progress.step)))
        ended = run_ended(progress, status, reason, restored, time.perf_counter() - begun)
        self._emit(ended)
        self._recorder.sync()
        return ended
