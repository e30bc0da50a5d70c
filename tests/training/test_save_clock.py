"""Saving by the clock: named in the record, and nothing of the training changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rig import Rig

from trimtab.events import CheckpointSaved, DecisionTaken, RunStarted, Save, StepsEnded
from trimtab.training.checkpoint.clock import SaveClock


def test_saves_by_the_clock_change_no_weight_and_no_loss(tmp_path: Path) -> None:
    quiet = Rig(tmp_path / "quiet", steps=12)
    quiet.go()
    reads = iter(range(0, 100_000, 25))  # each look at the clock finds 25 s more
    busy = Rig(tmp_path / "busy", steps=12, clock=SaveClock(1.0, now=lambda: float(next(reads))))
    busy.go()
    assert torch.equal(busy.weights(), quiet.weights())
    per_step = [
        torch.cat([torch.from_numpy(event.per_step["train/loss"]) for event in rig.watch.of(StepsEnded)])
        for rig in (busy, quiet)
    ]
    assert torch.equal(*per_step)
    due = [saved for saved in busy.watch.of(CheckpointSaved) if "1 minute after the last save" in saved.reason]
    assert len(due) >= 3
    assert len(quiet.watch.of(CheckpointSaved)) == 2
    asked = [event for event in busy.watch.of(DecisionTaken) if isinstance(event.decision, Save)]
    assert {(event.controller, event.decision.reason) for event in asked} == {
        ("request", "1 minute after the last save")
    }


def test_a_run_goes_on_from_a_save_by_the_clock_to_the_same_bits(tmp_path: Path) -> None:
    whole = Rig(tmp_path / "whole", steps=12)
    whole.go()
    reads = iter(range(0, 100_000, 25))
    killed = Rig(tmp_path / "run", steps=12, clock=SaveClock(1.0, now=lambda: float(next(reads))))
    loop = killed.build()
    train = loop._train_step

    def trains() -> None:
        if loop.progress.step == 5:
            raise InterruptedError
        train()

    loop._train_step = trains  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        loop.run(RunStarted(0, 1, 0, None, 12))
    killed.loader.close()
    killed.keeper.close()
    killed.recorder.close()
    again = Rig(tmp_path / "run", steps=12)
    again.go()
    assert again.resumed_from in (2, 3, 4, 5), "where nothing but the clock saves"
    assert torch.equal(again.weights(), whole.weights())
