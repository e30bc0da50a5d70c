"""The loop on a tiny real model: delivery of windows, order of acting, adjusting, rolling back, resuming."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rig import Rig, Scripted, Watch

from trimtab.config import Bf16, Fp16, Fp32
from trimtab.data import DataPlan
from trimtab.events import (
    Adjust,
    CheckpointSaved,
    DecisionTaken,
    Evaluate,
    EvaluationEnded,
    Event,
    Rollback,
    RunStarted,
    Save,
    StepsEnded,
    Stop,
)
from trimtab.runs import History, read_record
from trimtab.training import (
    Progress,
)


def test_windows_are_delivered_one_late_but_before_an_evaluation(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", steps=14, log_every=4, evaluate_every=6, save_every=100)
    assert rig.go().status == "finished"
    spans = [(event.first_step, event.last_step) for event in rig.watch.of(StepsEnded)]
    assert spans == [(1, 1), (2, 2), (3, 4), (5, 6), (7, 8), (9, 12), (13, 14)]
    seen: list[Any] = []
    for event in rig.watch.events:
        if isinstance(event, StepsEnded):
            seen.append(event.last_step)
        elif isinstance(event, EvaluationEnded):
            seen.append(f"evaluated {event.step}")
    # An evaluation waits for the device anyway: the windows before it are told before it.
    assert seen == [1, 2, 4, 6, "evaluated 6", 8, 12, "evaluated 12", 14, "evaluated 14"]
    losses = np.concatenate([event.per_step["train/loss"] for event in rig.watch.of(StepsEnded)])
    assert len(losses) == 14
    assert np.isfinite(losses).all()


def test_every_controller_is_asked_and_decisions_act_in_order(tmp_path: Path) -> None:
    first = Scripted({(EvaluationEnded, 6): Save("a"), (StepsEnded, 4): Adjust("calm", "learning_rate", 0.5)}, "first")
    second = Scripted(
        {(EvaluationEnded, 6): Stop("b"), (StepsEnded, 4): Adjust("wild", "learning_rate", 2.0)}, "second"
    )
    rig = Rig(tmp_path / "run", controllers=[first, second], save_every=100)
    ended = rig.go()
    assert (ended.status, ended.reason, ended.step) == ("stopped", "b", 6)
    assert len(first.seen) == len(second.seen)
    taken = {(d.controller, type(d.decision).__name__): d.outcome for d in rig.watch.of(DecisionTaken)}
    assert taken[("first", "Adjust")] == "taken"
    assert taken[("second", "Adjust")] == "overruled"
    (saved,) = rig.watch.of(CheckpointSaved)
    assert saved.step == 6
    assert "a" in saved.reason
    kinds = [type(event).__name__ for event in rig.watch.events]
    assert kinds.index("EvaluationEnded") < kinds.index("CheckpointSaved") < kinds.index("RunEnded")
    adjust = next(d for d in rig.watch.of(DecisionTaken) if isinstance(d.decision, Adjust))
    assert adjust.observed_until_step == 6
    assert adjust.step == 6


def test_adjusting_multiplies_the_factors_of_controllers(tmp_path: Path) -> None:
    first = Scripted({(StepsEnded, 1): Adjust("x", "learning_rate", 0.5)}, "first")
    second = Scripted({(StepsEnded, 2): Adjust("y", "learning_rate", 0.1)}, "second")
    rig = Rig(tmp_path / "run", controllers=[first, second])
    rig.go()
    rates = np.concatenate([event.per_step["learning_rate"] for event in rig.watch.of(StepsEnded)])
    assert rates[:2] == pytest.approx(1e-2)
    assert rates[2:4] == pytest.approx(5e-3)
    assert rates[4:] == pytest.approx(5e-4)


def test_structure_and_wrong_adjustments(tmp_path: Path) -> None:
    controller = Scripted(
        {
            (StepsEnded, 1): Adjust("more", "accumulation", 3),
            (StepsEnded, 2): Adjust("no such", "colour", 1.0),
            (StepsEnded, 4): Adjust("too much", "dropout", 99.0),
        }
    )
    rig = Rig(tmp_path / "run", controllers=[controller])
    rig.go()
    tokens = np.concatenate([event.per_step["tokens"] for event in rig.watch.of(StepsEnded)])
    assert tokens.tolist() == [16.0] * 2 + [48.0] * 10
    notes = [(d.outcome, d.note) for d in rig.watch.of(DecisionTaken)]
    assert [outcome for outcome, _ in notes] == ["taken", "overruled", "overruled"]
    assert "cannot be adjusted" in notes[1][1]
    assert "outside" in notes[2][1]
    assert rig.adjusted == []
    assert rig.loop.progress.accumulation == 3


def test_adjusting_what_this_run_has_not_is_overruled_and_said(tmp_path: Path) -> None:
    controller = Scripted(
        {(StepsEnded, 1): Adjust("calm", "z_loss", 2.0), (StepsEnded, 2): Adjust("x", "dropout", 2.0)}
    )
    rig = Rig(tmp_path / "run", controllers=[controller])
    rig.go()
    decided = [(d.decision.name, d.outcome, d.note) for d in rig.watch.of(DecisionTaken)]
    assert decided == [("z_loss", "overruled", "objective.z_loss is 0"), ("dropout", "taken", "")]
    assert rig.loop.progress.factors == {"dropout": {"scripted": 2.0}}
    assert rig.adjusted == [("dropout", 2.0)]


def test_a_rollback_goes_back_leaves_out_data_and_cancels_the_rest(tmp_path: Path) -> None:
    controller = Scripted({(EvaluationEnded, 9): Rollback("spike", 8, ((8, 9),))})
    other = Scripted({(EvaluationEnded, 9): Save("keep")}, "other")
    rig = Rig(tmp_path / "run", controllers=[controller, other], steps=12, log_every=3, evaluate_every=3, save_every=3)
    ended = rig.go()
    assert ended.status == "finished"
    started = rig.watch.of(RunStarted)
    assert [(event.step, event.branch) for event in started] == [(0, 0), (6, 1)]
    outcomes = {d.controller: d.outcome for d in rig.watch.of(DecisionTaken)}
    assert outcomes == {"scripted": "taken", "other": "overruled"}
    # Steps 8 and 9 consumed positions 14 to 18: they are never shown again.
    assert rig.loop.progress.plan == {"excluded": [[14, 18]]}
    assert rig.loop.progress.position == 28
    # The abandoned steps 7 to 9 were told once, and again on the branch that took their place.
    assert [(e.first_step, e.last_step) for e in rig.watch.of(StepsEnded)] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 6),
        (7, 9),
        (7, 9),
        (10, 12),
    ]
    lines = read_record(rig.run.record)
    steps = [line for line in lines if line["event"] == "EvaluationEnded"]
    assert [line["step"] for line in steps] == [3, 6, 9, 12]
    assert [line["branch"] for line in steps] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "rollback,why", [(Rollback("x", 1), "no whole checkpoint"), (Rollback("x", 8, ((0, 1),)), "between 1 and 9")]
)
def test_a_rollback_that_cannot_be_is_overruled_and_the_run_goes_on(
    tmp_path: Path, rollback: Rollback, why: str
) -> None:
    rig = Rig(
        tmp_path / "run", controllers=[Scripted({(EvaluationEnded, 9): rollback})], evaluate_every=3, save_every=3
    )
    assert rig.go().status == "finished"
    (decision,) = rig.watch.of(DecisionTaken)
    assert decision.outcome == "overruled"
    assert why in decision.note


def test_after_a_rollback_the_best_of_the_abandoned_branch_is_forgotten(tmp_path: Path) -> None:
    from trimtab.control import Patience, SaveBest

    losses = iter([3.0, 2.0, 1.0, 2.5, 1.9])
    rig = Rig(
        tmp_path / "run",
        controllers=[Patience(2), SaveBest(), Scripted({(EvaluationEnded, 9): Rollback("too good to be true", 8)})],
        steps=12,
        evaluate_every=3,
        save_every=3,
        evaluate=lambda step: (EvaluationEnded(step, {"validation/loss": next(losses)}, 0.0), ()),
    )
    assert rig.go().status == "finished"
    saves = [d.decision.reason for d in rig.watch.of(DecisionTaken) if isinstance(d.decision, Save)]
    assert [reason[-6:] for reason in saves if "best" in reason] == ["3.0000", "2.0000", "1.0000", "2.5000", "1.9000"]
    assert rig.loop.progress.best_value == 1.9


def test_findings_of_one_boundary_are_told_together(tmp_path: Path) -> None:
    from trimtab.events import Advise, FindingsChanged

    first = Scripted({(EvaluationEnded, 6): Advise("a", {"code": "a"})}, "first")
    second = Scripted({(EvaluationEnded, 6): Advise("b", {"code": "b"})}, "second")
    rig = Rig(tmp_path / "run", controllers=[first, second])
    rig.go()
    (changed,) = rig.watch.of(FindingsChanged)
    assert [finding["code"] for finding in changed.findings] == ["a", "b"]


def test_a_failure_may_be_tried_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", controllers=[Scripted({(EvaluationEnded, 6): Stop("nothing but NaN", exit_code=4)})])
    assert rig.go().status == "failed"
    again = Rig(tmp_path / "run", controllers=[Scripted({})])
    assert again.go().status == "finished"
    assert again.resumed_from == 6


def test_a_stop_beside_a_rollback_stops_after_it(tmp_path: Path) -> None:
    first = Scripted({(EvaluationEnded, 9): Stop("hopeless", exit_code=4)}, "first")
    second = Scripted({(EvaluationEnded, 9): Rollback("spike", 8)}, "second")
    rig = Rig(tmp_path / "run", controllers=[first, second], log_every=3, evaluate_every=3, save_every=3)
    ended = rig.go()
    assert (ended.status, ended.reason, ended.step) == ("failed", "hopeless", 6)
    assert rig.loop.progress.stop == {"reason": "hopeless", "restore_best": False, "exit_code": 4}


def test_an_evaluation_asked_for_at_an_evaluation_is_overruled(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", controllers=[Scripted({(EvaluationEnded, 6): Evaluate("again")})])
    rig.go()
    assert [(d.decision.reason, d.outcome) for d in rig.watch.of(DecisionTaken)] == [("again", "overruled")]
    assert [event.step for event in rig.watch.of(EvaluationEnded)] == [6, 12]


def test_requests_by_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", steps=40, evaluate_every=100, save_every=100)

    class Asks(Watch):
        def observe(self, event: Event) -> None:
            super().observe(event)
            if isinstance(event, StepsEnded) and event.last_step == 8:
                (rig.folder / "SAVE").touch()
                (rig.folder / "EVALUATE").touch()
            if isinstance(event, StepsEnded) and event.last_step == 16:
                (rig.folder / "STOP").touch()

    rig.watch = Asks()
    ended = rig.go()
    assert ended.status == "stopped"
    assert "STOP" in ended.reason
    assert rig.watch.of(EvaluationEnded)
    assert {d.controller for d in rig.watch.of(DecisionTaken)} == {"request"}
    assert not any((rig.folder / name).exists() for name in ("SAVE", "STOP", "EVALUATE"))


@pytest.mark.parametrize("precision", [Fp32(), Bf16(), Fp16(initial_scale=256.0)], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kill_at", [3, 5, 8])
def test_resuming_from_any_boundary_gives_the_same_bits_and_events(
    tmp_path: Path, kill_at: int, precision: Any
) -> None:
    """A save that was asked for in the middle of a window changes nothing, and nothing is lost by going on from it."""

    class KilledError(Exception):
        pass

    whole = Rig(tmp_path / "whole", accumulation=2, precision=precision)
    whole.go()

    rig = Rig(tmp_path / "run", accumulation=2, precision=precision)
    loop = rig.build()
    train = loop._train_step

    def until_killed() -> None:
        if loop.progress.step == kill_at:
            loop._save("for the test")
            raise KilledError
        train()

    loop._train_step = until_killed  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        loop.run(RunStarted(0, 1, 0, None, rig.steps))
    rig.loader.close()
    rig.recorder.close()

    again = Rig(tmp_path / "run", accumulation=2, precision=precision)
    again.go()
    assert again.resumed_from == kill_at
    assert torch.equal(whole.weights(), again.weights())
    ours, theirs = ({}, {})
    for lines, into in ((read_record(rig.run.record), ours), (read_record(whole.run.record), theirs)):
        for line in lines:
            if line["event"] == "StepsEnded":
                assert line["first_step"] not in into, "a window was told twice"
                into[line["first_step"]] = line["per_step"]["train/loss"]
    assert ours == theirs


def test_a_finished_stop_is_not_trained_on_when_killed_before_its_end_was_written(tmp_path: Path) -> None:
    controller = Scripted({(EvaluationEnded, 6): Stop("enough")})
    rig = Rig(tmp_path / "run", controllers=[controller])
    loop = rig.build()
    loop._end = lambda begun: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        loop.run(RunStarted(0, 1, 0, None, rig.steps))
    rig.loader.close()
    rig.recorder.close()
    again = Rig(tmp_path / "run", controllers=[Scripted({})])
    ended = again.go()
    assert (ended.step, ended.status, ended.reason) == (6, "stopped", "enough")


def test_a_monitor_that_raises_is_a_warning(tmp_path: Path) -> None:
    class Fragile(Watch):
        def observe(self, event: Event) -> None:
            raise RuntimeError("broken sink")

    rig = Rig(tmp_path / "run", watch=Fragile())
    with pytest.warns(UserWarning, match="broken sink"):
        assert rig.go().status == "finished"


def test_an_unneeded_plan_is_empty() -> None:
    assert DataPlan.from_json(Progress().plan) == DataPlan()


def _left_at(rig: Rig, step: int) -> None:
    """Train until `step`, save there, and leave without a word."""

    class KilledError(Exception):
        pass

    loop = rig.build()
    train = loop._train_step

    def until_killed() -> None:
        if loop.progress.step == step:
            loop._save("for the test")
            raise KilledError
        train()

    loop._train_step = until_killed  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        loop.run(RunStarted(0, 1, 0, None, rig.steps))
    rig.loader.close()
    rig.recorder.close()


@pytest.mark.parametrize(
    "then,spans",
    [
        # The window of steps 3 to 5 is open, that of step 2 not yet delivered.
        ({"log_every": 2}, [(1, 1), (2, 2), (3, 5), (6, 6), (7, 8), (9, 10), (11, 12)]),
        ({"log_every": 12}, [(1, 1), (2, 2), (3, 5), (6, 12)]),
        ({"layers": True}, [(1, 1), (2, 2), (3, 5), (6, 8), (9, 12)]),
    ],
)
def test_accepted_drift_of_what_is_logged_ends_the_open_window_where_it_stands(
    tmp_path: Path, then: dict[str, Any], spans: list[tuple[int, int]]
) -> None:
    before: dict[str, Any] = {"log_every": 8, "evaluate_every": 100, "save_every": 100}
    whole = Rig(tmp_path / "whole", **before)
    whole.go()
    rig = Rig(tmp_path / "run", **before)
    _left_at(rig, 5)
    again = Rig(tmp_path / "run", **{**before, "log_every": 4, **then})
    again.go()
    told = {(e.first_step, e.last_step): e for e in rig.watch.of(StepsEnded) + again.watch.of(StepsEnded)}
    assert list(told) == spans
    losses = np.concatenate([event.per_step["train/loss"] for event in told.values()])
    expected = np.concatenate([event.per_step["train/loss"] for event in whole.watch.of(StepsEnded)])
    assert losses.tolist() == expected.tolist()
    assert torch.equal(whole.weights(), again.weights())


@pytest.mark.parametrize("logs_layers", [True, False])
def test_layers_that_are_switched_off_are_told_as_far_as_they_were_read(tmp_path: Path, logs_layers: bool) -> None:
    before: dict[str, Any] = {"log_every": 8, "evaluate_every": 100, "save_every": 100}
    rig = Rig(tmp_path / "run", layers=True, **before)
    _left_at(rig, 9)
    again = Rig(tmp_path / "run", layers=logs_layers, **before)
    again.go()
    told = {(e.first_step, e.last_step): len(e.layers) for e in again.watch.of(StepsEnded)}
    names = sum(1 for _ in again.model.named_parameters())
    # The weights' norms are read at the end of a window alone: a window that ended before its time has none.
    open_window = {(9, 12): names} if logs_layers else {(9, 9): 0, (10, 12): 0}
    assert told == {(3, 8): names, **open_window}


def test_a_window_cut_short_by_a_stop_tells_no_norm_that_was_not_read(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", steps=40, log_every=8, evaluate_every=100, save_every=100, layers=True)

    class Asks(Watch):
        def observe(self, event: Event) -> None:
            super().observe(event)
            if isinstance(event, StepsEnded) and event.last_step == 2:
                (rig.folder / "STOP").touch()

    rig.watch = Asks()
    rig.go()
    assert [(e.first_step, e.last_step, bool(e.layers)) for e in rig.watch.of(StepsEnded)] == [
        (1, 1, True),
        (2, 2, True),
        (3, 8, True),
        (9, 9, False),
    ]


def test_what_is_queued_on_the_device_is_the_time_of_its_window(tmp_path: Path) -> None:
    """A device that has work left at every boundary: it is waited for before an evaluation or a save is timed."""
    waited: list[int] = []

    def synchronize() -> None:
        if rig.loop.progress.step + 1 not in (*waited, *(step + 1 for step in waited)):
            time.sleep(0.4)
            waited.append(rig.loop.progress.step + 1)

    rig = Rig(tmp_path / "run", steps=12, log_every=4, evaluate_every=6, save_every=12, synchronize=synchronize)
    ended = rig.go()
    assert waited == [6, 12]
    seconds = np.concatenate([event.per_step["step_seconds"] for event in rig.watch.of(StepsEnded)])
    assert all(seconds[step - 1] >= 0.4 for step in waited)
    # Steps of a busy machine may take as long; but what is booked as training holds both waits, and no other part does.
    assert ended.time_split["training"] >= 0.8


def test_what_was_not_planned_waits_too(tmp_path: Path) -> None:
    saved: list[int] = []
    controller = Scripted({(StepsEnded, 2): Save("now"), (StepsEnded, 4): Evaluate("now")})
    rig = Rig(tmp_path / "run", controllers=[controller], evaluate_every=100, save_every=100)
    rig.synchronize = lambda: saved.append(rig.loop.progress.step)
    rig.go()
    assert saved[:2] == [4, 8]
    assert saved[2:] == [11, 12, 12]


def test_a_decision_at_an_evaluation_that_was_not_planned_knows_the_windows_that_were_told(tmp_path: Path) -> None:
    asks = Scripted({(StepsEnded, 8): Evaluate("look"), (EvaluationEnded, 12): Save("seen")})
    rig = Rig(tmp_path / "run", [asks], steps=24, log_every=4, evaluate_every=100, save_every=100)
    rig.go()
    assert [(taken.step, taken.observed_until_step) for taken in rig.watch.of(DecisionTaken)] == [(12, 8), (12, 8)]


def test_an_interrupted_run_has_told_every_step_and_the_next_attempt_takes_back_what_it_tells_again(
    tmp_path: Path,
) -> None:
    whole = Rig(tmp_path / "whole", steps=24, log_every=4, evaluate_every=100, save_every=100)
    whole.go()
    rig = Rig(tmp_path / "run", steps=24, log_every=4, evaluate_every=100, save_every=100)
    loop = rig.build()
    train = loop._train_step

    def trains() -> None:
        train()
        if loop.progress.step == 14:
            loop._requests.interrupted = "SIGTERM"

    loop._train_step = trains  # type: ignore[method-assign]
    assert loop.run(RunStarted(0, 1, 0, None, 24)).status == "interrupted"
    rig.loader.close()
    rig.keeper.close()
    rig.recorder.close()
    assert History.read(rig.run.record).series["train/loss"].steps.tolist() == list(range(1, 15))
    Rig(tmp_path / "run", steps=24, log_every=4, evaluate_every=100, save_every=100).go()
    ours, theirs = (History.read(one.run.record).series["train/loss"] for one in (rig, whole))
    assert ours.steps.tolist() == list(range(1, 25))
    assert ours.mean.tolist() == theirs.mean.tolist()
