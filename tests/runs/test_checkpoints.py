"""Checkpoints as files: damage is found, kills leave whole ones, and one that verifies always stays."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from trimtab.errors import StorageError
from trimtab.events import RunStarted
from trimtab.runs import RecordWriter, event_to_json
from trimtab.runs.checkpoints import (
    best,
    best_ones,
    checkpoint_folders,
    clean,
    commit,
    discard,
    latest,
    list_checkpoints,
    prune,
    step_folder,
    verify,
    write_manifest,
)


def save(
    run: Path,
    step: int,
    loss: float | str = 1.0,
    *,
    branch: int = 0,
    content: bytes = b"tensor" * 50,
    seconds: float | None = None,
) -> Path:
    """A checkpoint, as the writer of tensors makes it."""
    temporary = run / "checkpoints" / f".tmp-{step_folder(step)}"
    (temporary / "inner").mkdir(parents=True)
    (temporary / "tensors.safetensors").write_bytes(content)
    (temporary / "inner" / "shard").write_bytes(bytes(range(256)))
    description = {
        "schema": 1,
        "step": step,
        "branch": branch,
        "reason": "scheduled",
        "metrics": {"validation/loss": loss},
        "created_seconds": time.time() if seconds is None else seconds,
        "tensors": {},
    }
    (temporary / "checkpoint.json").write_text(json.dumps(description))
    write_manifest(temporary)
    final = run / "checkpoints" / step_folder(step)
    commit(temporary, final)
    return final


def branches(run: Path, *starts: int) -> None:
    """A record whose branches open at `starts`."""
    writer = RecordWriter(run / "record.jsonl")
    for branch, start in enumerate(starts):
        writer.branch = branch
        writer.append(event_to_json(RunStarted(start, branch + 1, branch, start or None, 100)))
    writer.close()


def steps_of(run: Path) -> list[int]:
    return [info.step for info in list_checkpoints(run)]


def test_a_checkpoint_is_described_and_verifies(tmp_path: Path) -> None:
    folder = save(tmp_path, 1200, 2.5)
    assert folder.name == "step-00001200"
    assert verify(folder) == []
    (info,) = list_checkpoints(tmp_path, verified=True)
    assert (info.step, info.branch, info.path, info.reason) == (1200, 0, folder, "scheduled")
    assert info.metrics == {"validation/loss": 2.5}
    assert (
        info.bytes
        == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        - (folder / "manifest.json").stat().st_size
    )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00001200"]


def test_each_flipped_bit_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    files = [path for path in folder.rglob("*") if path.is_file()]
    generator = random.Random(0)
    for index in range(200):
        path = files[index % len(files)]
        whole = path.read_bytes()
        position = generator.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        assert verify(folder), (path, position)
        assert list_checkpoints(tmp_path, verified=True) == []
        assert latest(tmp_path) is None
        path.write_bytes(whole)
    assert verify(folder) == []


def test_each_cut_and_each_missing_or_added_file_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        whole = path.read_bytes()
        for index in range(20):
            path.write_bytes(whole[: len(whole) * index // 20])
            assert any(path.name in problem for problem in verify(folder))
            assert any(path.name in problem for problem in verify(folder, hashes=False))
        path.unlink()
        assert any(path.name in problem for problem in verify(folder))
        path.write_bytes(whole)
    (folder / "extra").write_text("")
    assert verify(folder) == ["step-00000001/extra: is not in the manifest"]
    (folder / "extra").unlink()
    (folder / "inner" / "shard").unlink()
    (folder / "inner" / "shard").symlink_to("/etc/hostname")
    assert verify(folder) == ["step-00000001/inner/shard: is no regular file"]
    assert verify(tmp_path / "missing") == ["missing/manifest.json: cannot be read (No such file or directory)"]


def test_what_is_no_whole_checkpoint_is_not_listed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(checkpoints / "step-00000001", checkpoints / ".tmp-step-00000002")
    shutil.copytree(checkpoints / "step-00000001", checkpoints / ".trash-step-00000003")
    shutil.copytree(checkpoints / "step-00000001", checkpoints / "step-00000004")
    shutil.copytree(checkpoints / "step-00000001", checkpoints / "step-5")
    (checkpoints / "step-00000006").mkdir()
    (checkpoints / "step-00000007").write_text("")
    # Step 4 is a copy of step 1 under another name: it verifies, and yet it is not the checkpoint of step 4.
    assert steps_of(tmp_path) == [1]
    assert [path.name for path in checkpoint_folders(tmp_path)] == [
        "step-00000001",
        "step-00000004",
        "step-00000006",
    ]
    assert list_checkpoints(tmp_path / "missing") == []


def test_latest_and_best_fall_back_to_what_verifies(tmp_path: Path) -> None:
    for step, loss in ((10, 3.0), (20, 1.0), (30, "nan"), (40, 2.0), (50, 1.0)):
        save(tmp_path, step, loss)
    found = latest(tmp_path)
    assert found is not None
    assert found.step == 50
    chosen = best(tmp_path, "validation/loss", "lower")
    assert chosen is not None
    assert chosen.step == 20
    highest = best(tmp_path, "validation/loss", "higher")
    assert highest is not None
    assert highest.step == 10
    assert best(tmp_path, "validation/accuracy", "higher") is None
    for step in (20, 50):
        (tmp_path / "checkpoints" / step_folder(step) / "tensors.safetensors").write_bytes(b"rot" * 100)
    found, chosen = latest(tmp_path), best(tmp_path, "validation/loss", "lower")
    assert found is not None
    assert found.step == 40
    assert chosen is not None
    assert chosen.step == 40


def test_what_a_later_branch_left_behind_does_not_count(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, 1.0 / step)
    branches(tmp_path, 0, 10)
    assert steps_of(tmp_path) == [10]
    save(tmp_path, 30, 2.0, branch=1)
    assert steps_of(tmp_path) == [10, 30]
    found = best(tmp_path, "validation/loss", "lower")
    assert found is not None
    assert found.step == 10
    assert prune(tmp_path, 2, 1, "validation/loss", "lower") == [20]
    assert len(checkpoint_folders(tmp_path)) == 2


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.5), (50, "inf")):
        save(tmp_path, step, loss)
    assert prune(tmp_path, 2, 1, "validation/loss", "lower") == [10, 30]
    assert steps_of(tmp_path) == [20, 40, 50]
    assert prune(tmp_path, 1, 0, "validation/loss", "lower", verified_step=50) == [20, 40]
    assert prune(tmp_path, 3, 3, "validation/loss", "lower") == []
    assert prune(tmp_path / "missing", 1, 1, "validation/loss", "lower") == []


def kept(run: Path, **named: float | None) -> list[int]:
    prune(run, 1, 0, "validation/loss", "lower", **named)  # type: ignore[arg-type]
    return steps_of(run)


def test_of_each_stretch_of_steps_the_first_stays(tmp_path: Path) -> None:
    for step in (30, 60, 90, 120, 150, 200, 230, 310, 320):
        save(tmp_path, step)
    assert kept(tmp_path, every_steps=100) == [120, 200, 310, 320]
    for step in (330, 399, 400, 410):
        save(tmp_path, step)
    assert kept(tmp_path, every_steps=100) == [120, 200, 310, 400, 410]
    branches(tmp_path, 0, 310)  # what a later branch left behind is not the first of its stretch
    save(tmp_path, 420, branch=1)
    assert kept(tmp_path, every_steps=100) == [120, 200, 310, 420]
    assert kept(tmp_path) == [420]


def test_of_each_stretch_of_the_clock_the_first_stays(tmp_path: Path) -> None:
    for step, minute in ((10, 5), (20, 50), (30, 61), (40, 119), (50, 130), (60, 30)):  # the clock was put back
        save(tmp_path, step, seconds=60.0 * minute)
    assert kept(tmp_path, every_seconds=3600.0) == [10, 30, 50, 60]
    save(tmp_path, 70, seconds=60.0 * 131)
    assert kept(tmp_path, every_seconds=3600.0) == [10, 30, 50, 70]


def test_the_best_ones_verify_and_come_in_order(tmp_path: Path) -> None:
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, "nan"), (50, 2.5)):
        save(tmp_path, step, loss)
    (tmp_path / "checkpoints" / step_folder(30) / "tensors.safetensors").write_bytes(b"rot")
    assert [info.step for info in best_ones(tmp_path, "validation/loss", "lower", 2)] == [20, 50]
    assert [info.step for info in best_ones(tmp_path, "validation/loss", "lower", 9)] == [20, 50, 10]


def test_pruning_never_leaves_only_damaged_ones(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    for step in (30, 40):
        (tmp_path / "checkpoints" / step_folder(step) / "tensors.safetensors").write_bytes(b"rot")
    assert prune(tmp_path, 1, 0, "validation/loss", "lower") == [10]
    found = latest(tmp_path)
    assert found is not None
    assert found.step == 20


def test_a_later_save_replaces_that_of_the_same_step(tmp_path: Path) -> None:
    save(tmp_path, 10, 1.0)
    folder = save(tmp_path, 10, 2.0, branch=1)
    (info,) = list_checkpoints(tmp_path, verified=True)
    assert (info.branch, info.metrics["validation/loss"]) == (1, 2.0)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failed_replacement_leaves_the_old_one(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    with pytest.raises(StorageError, match="cannot be put in place"):
        commit(tmp_path / "checkpoints" / ".tmp-missing", folder)
    assert verify(folder) == []
    discard(folder)
    assert list(folder.parent.iterdir()) == []


_KILL = """
    import os, shutil, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_checkpoints import branches, latest, list_checkpoints, prune, save, verify
    from trimtab.runs.checkpoints import clean

    root = Path(sys.argv[2])
    watched = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
    number = 0

    def kill_at(chosen):
        def hook(event, arguments):
            global number
            if event in watched:
                number += 1
                if number == chosen:
                    os._exit(9)
        return hook

    def replace(run):
        save(run, 30, 0.5, branch=1)
        prune(run, 1, 1, "validation/loss", "lower", every_steps=25)

    points = 0
    while True:
        points += 1
        run = root / str(points)
        for step, loss in ((10, 1.0), (20, 2.0), (30, 3.0)):
            save(run, step, loss)
        child = os.fork()
        if child == 0:
            sys.addaudithook(kill_at(points))
            number = 0
            replace(run)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = [(info.step, info.branch) for info in list_checkpoints(run)]
        assert all(not verify(info.path) for info in list_checkpoints(run)), points
        assert (30, 0) in found or (30, 1) in found, (points, found)
        before = latest(run)
        clean(run)
        after = latest(run)
        assert (before.step, before.branch, before.metrics) == (after.step, after.branch, after.metrics), points
        assert all(path.name.startswith("step-") for path in (run / "checkpoints").iterdir()), points
        replace(run)
        assert [(info.step, info.branch) for info in list_checkpoints(run, verified=True)] == [(30, 1)], points
        if code == 0:
            break
        shutil.rmtree(run)
    print(points)
"""


def test_a_kill_at_any_moment_of_saving_and_pruning_leaves_whole_checkpoints(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_KILL), str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 40


def test_cleaning_a_run_without_checkpoints_does_nothing(tmp_path: Path) -> None:
    clean(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the manifest cannot be written"):
        write_manifest(tmp_path / "missing")
