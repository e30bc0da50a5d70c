"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rig import Rig, Scripted

from trimtab.errors import StorageError
from trimtab.events import CheckpointSaved, DecisionTaken, EvaluationEnded, Rollback, RunStarted, Save, StepsEnded
from trimtab.training.checkpoint import files, keeper, read_tensors


def slow_writes(monkeypatch: pytest.MonkeyPatch, *, failures: int = 0, seconds: float = 0.0) -> list[int]:
    """Makes the writing of checkpoints slow, and its first attempts fail; gives the steps that were attempted."""
    attempted: list[int] = []
    write = keeper.write_snapshot

    def written(snapshot: Any, temporary: Path, folder: Path, description: Mapping[str, Any]) -> int:
        attempted.append(description["step"])
        time.sleep(seconds)
        if len(attempted) <= failures:
            raise StorageError("the checkpoint could not be written: No space left on device")
        return write(snapshot, temporary, folder, description)

    monkeypatch.setattr(keeper, "write_snapshot", written)
    monkeypatch.setattr(keeper, "RETRY_SECONDS", 0.01)
    return attempted


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is the state at its step, though the weights have moved on when it is written."""
    plain = Rig(tmp_path / "plain", steps=12, save_every=6, in_background=False)
    plain.go()
    slow_writes(monkeypatch, seconds=0.5)
    rig = Rig(tmp_path / "run", steps=12, save_every=6)
    rig.go()
    first, last = rig.watch.of(CheckpointSaved)
    assert (first.step, last.step) == (6, 12)
    assert first.stall_seconds < 0.25 < 0.5 < first.seconds
    assert last.stall_seconds == last.seconds, "the last one is waited for"
    told = rig.watch.events.index(first)
    assert any(isinstance(event, StepsEnded) and event.last_step > 6 for event in rig.watch.events[:told])
    for step in (6, 12):
        ours, theirs = (read_tensors(r.run.checkpoints / f"step-{step:08d}", "") for r in (rig, plain))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_save_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_writes(monkeypatch, seconds=0.3)
    rig = Rig(tmp_path / "run", steps=6, save_every=1)
    rig.go()
    assert [saved.step for saved in rig.watch.of(CheckpointSaved)] == [1, 2, 3, 4, 5, 6]


def test_what_the_disk_does_not_take_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempted = slow_writes(monkeypatch, failures=2)
    rig = Rig(tmp_path / "run", steps=12, save_every=6)
    with pytest.warns(UserWarning, match="No space left on device; it is tried again"):
        assert rig.go().status == "finished"
    assert attempted == [6, 6, 6, 12]
    assert [saved.step for saved in rig.watch.of(CheckpointSaved)] == [6, 12]


@pytest.mark.filterwarnings("ignore:the checkpoint could not be written")
def test_a_save_that_fails_ends_the_run_or_not_as_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_writes(monkeypatch, failures=3)
    with pytest.raises(StorageError, match="No space left"):
        Rig(tmp_path / "stops", steps=12, save_every=6).go()
    slow_writes(monkeypatch, failures=3)
    rig = Rig(tmp_path / "goes_on", steps=12, save_every=6, failure_stops=False)
    rig.go()
    assert [saved.step for saved in rig.watch.of(CheckpointSaved)] == [12]
    slow_writes(monkeypatch, failures=6)
    with pytest.raises(StorageError, match="No space left"):  # the last one is what the run was for
        Rig(tmp_path / "lost", steps=12, save_every=6, failure_stops=False).go()


def test_a_rollback_waits_for_what_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run goes back to must not depend on how fast the disk is."""
    slow_writes(monkeypatch, seconds=0.5)
    back = Scripted({(StepsEnded, 8): Rollback("spike", 7)})
    rig = Rig(tmp_path / "run", [back], steps=12, log_every=1, save_every=6)
    rig.go()
    assert [started.step for started in rig.watch.of(RunStarted)] == [0, 6]


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_controllers_hear_of_a_save_at_the_same_step_however_fast_the_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    slow_writes(monkeypatch, seconds=seconds)
    listens = Scripted({(CheckpointSaved, 3): Save("heard")})
    rig = Rig(tmp_path / "run", [listens], steps=12, log_every=2, evaluate_every=6, save_every=3)
    rig.go()
    heard = [event for event in listens.seen if isinstance(event, CheckpointSaved | EvaluationEnded)]
    assert [(type(event).__name__, event.step) for event in heard] == [
        ("CheckpointSaved", 3),
        ("EvaluationEnded", 6),
        ("CheckpointSaved", 6),
        ("CheckpointSaved", 9),
        ("EvaluationEnded", 12),
    ]
    (decided,) = rig.watch.of(DecisionTaken)
    assert (decided.step, decided.outcome) == (6, "taken")


def test_every_dtype_is_read_by_the_library(tmp_path: Path) -> None:
    tensors = {
        f"{str(dtype).removeprefix('torch.')}/{shape}": torch.arange(7 if shape else 1).to(dtype).reshape(shape or ())
        for dtype in files._DTYPES
        for shape in ((), (7,), (7, 1))
    }
    tensors["empty"] = torch.empty(0, 3)
    path = tmp_path / "tensors.safetensors"
    offsets = files._save_tensors(tensors, path)
    assert safetensors.torch.load_file(path).keys() == tensors.keys()
    for name, tensor in safetensors.torch.load_file(path).items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor, tensors[name])
        assert offsets[name][1] - offsets[name][0] == tensor.nbytes
