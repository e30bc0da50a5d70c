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

from trimtab.control import Doctor
from trimtab.errors import StorageError
from trimtab.events import CheckpointSaved, DecisionTaken, EvaluationEnded, Rollback, RunStarted, Save, StepsEnded
from trimtab.runs import History
from trimtab.runs.checkpoints import list_checkpoints
from trimtab.training.checkpoint import dtypes, files, keeper, read_tensors


def slow_writes(monkeypatch: pytest.MonkeyPatch, *, failures: int = 0, seconds: float = 0.0) -> list[int]:
    """Makes the writing of checkpoints slow, and its first attempts fail; gives the steps that were attempted."""
    attempted: list[int] = []
    write = keeper.write_snapshot

    def written(snapshot: Any, temporary: Path, folder: Path, description: Mapping[str, Any], *more: Any) -> int:
        attempted.append(description["step"])
        time.sleep(seconds)
        if len(attempted) <= failures:
            raise StorageError("the checkpoint could not be written: No space left on device")
        return write(snapshot, temporary, folder, description, *more)

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


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_save_that_is_under_way_is_told_on_the_branch_that_a_rollback_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    slow_writes(monkeypatch, seconds=seconds)
    listens = Scripted({(StepsEnded, 6): Rollback("spike", 4)})
    rig = Rig(tmp_path / "run", [listens], steps=12, log_every=1, evaluate_every=12, save_every=3)
    rig.go()
    told = [event for event in rig.watch.events if isinstance(event, RunStarted | CheckpointSaved)]
    assert [(type(event).__name__, event.step) for event in told] == [
        ("RunStarted", 0),
        ("CheckpointSaved", 3),
        ("CheckpointSaved", 6),
        ("RunStarted", 3),
        ("CheckpointSaved", 3),
        ("CheckpointSaved", 6),
        ("CheckpointSaved", 9),
        ("CheckpointSaved", 12),
    ]
    assert [event.step for event in listens.seen if isinstance(event, CheckpointSaved)] == [3, 3, 6, 9]


class KilledError(Exception):
    pass


def killed_at(rig: Rig, step: int, started: RunStarted) -> None:
    """Trains until `step`, and leaves without an end."""
    loop = rig.build()
    train = loop._train_step

    def trains() -> None:
        if loop.progress.step == step:
            raise KilledError
        train()

    loop._train_step = trains  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        loop.run(started)
    rig.loader.close()
    rig.keeper.close()
    rig.recorder.close()


def test_a_save_that_controllers_were_not_told_of_is_told_after_a_kill(tmp_path: Path) -> None:
    shape = {"steps": 12, "log_every": 2, "evaluate_every": 12, "save_every": 3}
    killed_at(Rig(tmp_path / "run", [Scripted({})], **shape), 10, RunStarted(0, 1, 0, None, 12))  # type: ignore[arg-type]
    listens = Scripted({})
    rig = Rig(tmp_path / "run", [listens], **shape)  # type: ignore[arg-type]
    rig.go()
    assert rig.resumed_from == 9
    assert [event.step for event in listens.seen if isinstance(event, CheckpointSaved)] == [3, 6]


@pytest.mark.parametrize("in_background", [True, False])
@pytest.mark.filterwarnings("ignore:the checkpoint could not be written")
def test_a_run_goes_on_without_a_save_in_the_foreground_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_background: bool
) -> None:
    slow_writes(monkeypatch, failures=3)
    rig = Rig(tmp_path / "run", steps=12, save_every=6, failure_stops=False, in_background=in_background)
    assert rig.go().status == "finished"
    assert [saved.step for saved in rig.watch.of(CheckpointSaved)] == [12]


def test_seconds_are_those_of_the_save_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_writes(monkeypatch, seconds=0.3)
    rig = Rig(tmp_path / "run", steps=3, save_every=1)
    rig.go()
    first, second, last = rig.watch.of(CheckpointSaved)
    assert max(first.seconds, second.seconds, last.seconds) < 0.55
    assert first.stall_seconds < 0.1 < second.stall_seconds, "it waited for the first"


def test_the_doctor_sees_each_window_once_after_a_kill_between_evaluations(tmp_path: Path) -> None:
    shape = {"steps": 40, "log_every": 4, "evaluate_every": 20, "save_every": 8}
    facts = {"run": str(tmp_path / "run")}
    killed_at(Rig(tmp_path / "run", [Doctor()], **shape), 15, RunStarted(0, 1, 0, None, 40, facts))  # type: ignore[arg-type]
    doctor, back = Doctor(), Scripted({(StepsEnded, 32): Rollback("spike", 28)})
    rig = Rig(tmp_path / "run", [doctor, back], **shape)  # type: ignore[arg-type]
    loop = rig.build()
    assert rig.resumed_from == 8
    loop.run(RunStarted(8, 2, 1, 8, 40, facts))
    rig.loader.close()
    rig.keeper.close()
    rig.recorder.close()
    live, after = doctor._history, History.read(rig.run.record)
    for history in (live, after):
        assert history.series["train/loss"].steps.tolist() == list(range(1, 41))
    assert live.series["train/loss"].mean.tolist() == after.series["train/loss"].mean.tolist()


def test_every_dtype_is_read_by_the_library(tmp_path: Path) -> None:
    tensors = {
        f"{str(dtype).removeprefix('torch.')}/{shape}": torch.arange(7 if shape else 1).to(dtype).reshape(shape or ())
        for dtype in dtypes.DTYPES
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


def test_what_a_person_asked_to_save_changes_neither_what_is_kept_nor_where_a_rollback_goes(tmp_path: Path) -> None:
    class Touches:
        """Saves on request after steps 4 and 7, two steps behind what is told."""

        def observe(self, event: object) -> None:
            if isinstance(event, StepsEnded) and event.last_step in (2, 5):
                (tmp_path / "asked/SAVE").touch()

    steps: dict[str, list[int]] = {}
    for name in ("plain", "asked"):
        back = Scripted({(EvaluationEnded, 9): Rollback("spike", 9)})
        rig = Rig(tmp_path / name, [back], steps=10, log_every=1, evaluate_every=9, save_every=3)
        loop = rig.build()
        loop._emit.monitors = (*loop._emit.monitors, *([Touches()] if name == "asked" else []))
        rig.build = lambda loop=loop: loop  # type: ignore[method-assign]
        rig.go()
        assert [event.step for event in rig.watch.of(RunStarted)] == [0, 6], name
        steps[name] = sorted({event.step for event in rig.watch.of(CheckpointSaved)})
    assert steps == {"plain": [3, 6, 9, 10], "asked": [3, 4, 6, 7, 9, 10]}
    planned = {info.step: info.planned for info in list_checkpoints(tmp_path / "asked")}
    assert planned == {3: True, 6: True, 9: True, 10: True}, "what was asked for is kept while it is the newest"


def test_a_save_on_request_at_a_planned_step_stays_a_planned_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", steps=6, save_every=3)
    loop = rig.build()
    rig.keeper.save("scheduled")
    rig.keeper.save("SIGTERM received", planned=False)
    (info,) = list_checkpoints(rig.run.path)
    assert (info.reason, info.planned) == ("SIGTERM received", True)
    loop.close()
    rig.keeper.close()
    rig.recorder.close()


def test_where_there_is_no_planned_one_a_rollback_takes_what_there_is(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", steps=6)
    loop = rig.build()
    rig.keeper.save("SIGTERM received", planned=False)
    assert rig.keeper.can_roll_back(1)
    assert rig.keeper._newest(1) is not None
    loop.close()
    rig.keeper.close()
    rig.recorder.close()


def test_a_rollback_to_a_damaged_checkpoint_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    back = Scripted({(StepsEnded, 5): Rollback("spike", 4)})

    class Rots:
        """Alters the only checkpoint that lies before the onset; a newer one is whole."""

        def observe(self, event: object) -> None:
            if isinstance(event, CheckpointSaved) and event.step == 3:
                file = tmp_path / "run/checkpoints/step-00000003/tensors.safetensors"
                raw = bytearray(file.read_bytes())
                raw[-5] ^= 1
                file.write_bytes(raw)

    rig = Rig(tmp_path / "run", [back], steps=9, log_every=1, save_every=3, in_background=False)
    loop = rig.build()
    loop._emit.monitors = (*loop._emit.monitors, Rots())
    rig.build = lambda: loop  # type: ignore[method-assign]
    assert rig.go().status == "finished"
    (decided,) = rig.watch.of(DecisionTaken)
    assert (decided.outcome, decided.note) == ("overruled", "no whole checkpoint lies before step 4")
