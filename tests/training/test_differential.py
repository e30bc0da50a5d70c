"""Differential checkpoints: what has not changed is on the disk once, and every checkpoint is whole by itself."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Rig
from torch import Tensor

from trimtab.errors import CheckpointError
from trimtab.events import CheckpointSaved, RunStarted
from trimtab.runs.checkpoints import (
    checkpoint_folders,
    disk_bytes,
    list_checkpoints,
    shared_bytes,
    verify,
    write_manifest,
)
from trimtab.runs.summary import render, summarize
from trimtab.training.checkpoint import Snapshot, differential, files, keeper, read_tensors, write_snapshot
from trimtab.training.checkpoint.differential import AlteredBaseError, divide


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differential, "LEAST_BYTES", 0)


def write(run: Path, step: int, tensors: dict[str, Tensor], base: Path | None = None, **named: Any) -> Path:
    folder = run / "checkpoints" / f"step-{step:08d}"
    description = {"step": step, "branch": 0, "reason": "test", "metrics": {}}
    named = {"differential": True, **named}
    write_snapshot(Snapshot(tensors, {}), folder.with_name(f".tmp-{step}"), folder, description, base=base, **named)
    return folder


def stable(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("stable-")}


def tensors_of(step: int) -> dict[str, Tensor]:
    return {
        "model/frozen": torch.arange(1000.0),
        "model/frozen_count": torch.tensor(3),
        "model/trained": torch.full((500,), float(step)),
    }


def test_what_does_not_change_is_written_once_more_and_then_shared(tmp_path: Path) -> None:
    first = write(tmp_path, 1, tensors_of(1))
    second = write(tmp_path, 2, tensors_of(2), first)
    third = write(tmp_path, 3, tensors_of(3), second)
    assert [stable(folder) for folder in (first, second)] == [set(), stable(third)]
    (name,) = stable(third)
    assert (second / name).samefile(third / name)
    assert shared_bytes(third) == shared_bytes(second) == (third / name).stat().st_size > 4000
    whole = sum(path.stat().st_size for folder in (first, second, third) for path in folder.iterdir())
    assert disk_bytes(tmp_path) == whole - shared_bytes(third)
    for step, folder in ((1, first), (2, second), (3, third)):
        assert verify(folder) == []
        read = read_tensors(folder, "")
        assert read.keys() == tensors_of(step).keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors_of(step).items())
    document = json.loads((third / "checkpoint.json").read_text())
    assert document["tensors"]["model/frozen"]["shards"][0]["file"] == name


def test_each_is_whole_by_itself(tmp_path: Path) -> None:
    """The ones that had it before may go, by deleting or pruning; a copy of one folder is enough."""
    first = write(tmp_path, 1, tensors_of(1))
    second = write(tmp_path, 2, tensors_of(2), first)
    third = write(tmp_path, 3, tensors_of(3), second)
    shutil.rmtree(first)
    shutil.rmtree(second)
    assert verify(third) == []
    assert shared_bytes(third) == 0
    copied = shutil.copytree(third, tmp_path / "elsewhere" / "step-00000003")
    assert torch.equal(read_tensors(copied, "")["model/frozen"], torch.arange(1000.0))


def test_a_tensor_that_changes_leaves_its_file_and_the_others_find_another(tmp_path: Path) -> None:
    three = {name: torch.full((100,), float(index)) for index, name in enumerate(("a", "b", "c"))}
    first = write(tmp_path, 1, three)
    second = write(tmp_path, 2, three, first)
    third = write(tmp_path, 3, three | {"b": torch.zeros(100) - 1}, second)
    assert divide(three | {"b": torch.zeros(100) - 1}, second).stable == ["a", "c"]
    assert len(stable(third)) == 1
    assert stable(third) != stable(second)
    fourth = write(tmp_path, 4, three | {"b": torch.zeros(100) - 1}, third)
    assert stable(fourth) > stable(third), "what began to stand still has a file of its own"
    assert divide({"a": three["a"].view(torch.int32)}, fourth).changed == ["a"], "the same bytes of another type"


def test_a_shared_file_that_rotted_is_not_taken_for_good(tmp_path: Path) -> None:
    first = write(tmp_path, 1, tensors_of(1))
    second = write(tmp_path, 2, tensors_of(2), first)
    (name,) = stable(second)
    raw = bytearray((second / name).read_bytes())
    raw[-9] ^= 1
    (second / name).write_bytes(raw)
    assert verify(second)
    with pytest.raises(AlteredBaseError, match="which an earlier checkpoint wrote, is not as it was written"):
        write(tmp_path, 3, tensors_of(3), second)
    assert not (tmp_path / "checkpoints" / "step-00000003").exists()


def test_where_there_are_no_hard_links_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError("not here")

    monkeypatch.setattr(os, "link", refuse)
    first = write(tmp_path, 1, tensors_of(1))
    second = write(tmp_path, 2, tensors_of(2), first)
    third = write(tmp_path, 3, tensors_of(3), second)
    assert stable(second) == stable(third) != set()
    assert shared_bytes(third) == 0
    assert verify(third) == []


def test_a_file_outside_of_the_folder_is_never_read(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, tensors_of(1))
    document = json.loads((folder / "checkpoint.json").read_text())
    document["tensors"]["model/frozen"]["shards"][0]["file"] = "../../secret.safetensors"
    (folder / "checkpoint.json").write_text(json.dumps(document))
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="names a file that is none of its own"):
        read_tensors(folder, "")


CHANGES = st.lists(st.frozensets(st.sampled_from("abcd")), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(changes=CHANGES, deletes=st.lists(st.integers(0, 5), max_size=4))
def test_whatever_changes_and_is_deleted_the_others_read_back(
    tmp_path_factory: pytest.TempPathFactory, changes: list[frozenset[str]], deletes: list[int]
) -> None:
    run = tmp_path_factory.mktemp("run")
    state = {name: torch.zeros(20 + index) for index, name in enumerate("abcd")}
    expected: dict[Path, dict[str, Tensor]] = {}
    base = None
    for step, changed in enumerate(changes, start=1):
        state = {name: tensor + (name in changed) for name, tensor in state.items()}
        base = write(run, step, state, base)
        expected[base] = state
    for index in deletes:
        if index < len(changes) and len(expected) > 1:
            gone = list(expected)[index % len(expected)]
            shutil.rmtree(gone)
            del expected[gone]
    for folder, tensors in expected.items():
        assert verify(folder) == []
        read = read_tensors(folder, "")
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_run_with_frozen_weights_saves_and_resumes_as_without(tmp_path: Path) -> None:
    frozen = ("embedding", "token_embedding", "blocks.0.attention", "trunk")
    plain = Rig(tmp_path / "plain", steps=20, save_every=5, frozen=frozen)
    plain.go()
    assert any(not parameter.requires_grad for parameter in plain.model.parameters())
    rig = Rig(tmp_path / "run", steps=20, save_every=5, frozen=frozen, differential=True, keep_latest=2)
    rig.go()
    assert torch.equal(rig.weights(), plain.weights())
    shared = [saved.shared_bytes for saved in rig.watch.of(CheckpointSaved)]
    assert shared[:2] == [0, 0]
    assert min(shared[2:]) > 0
    for info in list_checkpoints(rig.run.path):
        assert verify(info.path) == []
        reference = read_tensors(plain.run.checkpoints / info.path.name, "")
        read = read_tensors(info.path, "")
        assert read.keys() == reference.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in reference.items())
    summary = summarize(rig.run)
    assert summary["disk_bytes"] < sum(checkpoint["bytes"] for checkpoint in summary["checkpoints"])
    assert all(checkpoint["shared_bytes"] > 0 for checkpoint in summary["checkpoints"])
    assert "the same bytes once" in render(summary)
    assert "the same bytes once" not in render(summarize(plain.run))
    shutil.rmtree(checkpoint_folders(rig.run.path)[-1])
    again = Rig(tmp_path / "run", steps=20, save_every=5, frozen=frozen, differential=True, keep_latest=2)
    again.go()
    assert again.resumed_from == 15
    assert torch.equal(again.weights(), plain.weights())


@pytest.mark.filterwarnings("ignore:.*No space left")
def test_what_the_disk_did_not_take_at_first_is_still_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is nearly full, a whole checkpoint in place of a part of one would not fit either."""
    commit, refused = files.commit, [10, 15]

    def commits(temporary: Path, folder: Path) -> None:
        if refused and folder.name == f"step-{refused[0]:08d}":
            del refused[0]
            raise OSError(28, "No space left on device")
        commit(temporary, folder)

    monkeypatch.setattr(files, "commit", commits)
    monkeypatch.setattr(keeper, "RETRY_SECONDS", 0.01)
    rig = Rig(tmp_path / "run", steps=15, save_every=5, frozen=("embedding", "token_embedding"), differential=True)
    rig.go()
    assert refused == []
    assert [saved.shared_bytes > 0 for saved in rig.watch.of(CheckpointSaved)] == [False, False, True]
    assert shared_bytes(rig.run.checkpoints / "step-00000010") > 0


@pytest.mark.filterwarnings("ignore:.*is not as it was written", "ignore:.*No such file")
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_run_whose_shared_file_rots_or_is_gone_writes_all_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    monkeypatch.setattr(keeper, "RETRY_SECONDS", 0.01)
    rig = Rig(tmp_path / "run", steps=15, save_every=5, frozen=("embedding", "token_embedding"), differential=True)
    loop = rig.build()
    train = loop._train_step

    def trains() -> None:
        if loop.progress.step == 12:
            loop._checkpoints.finished(wait=True)
            (file,) = (rig.run.checkpoints / "step-00000010").glob("stable-*")
            raw = bytearray(file.read_bytes())
            raw[-1] ^= 1
            file.write_bytes(raw)
            if is_gone:
                file.unlink()
        train()

    loop._train_step = trains  # type: ignore[method-assign]
    loop.run(RunStarted(0, 1, 0, None, 15))
    rig.loader.close()
    rig.keeper.close()
    rig.recorder.close()
    newest = checkpoint_folders(rig.run.path)[-1]
    assert (newest.name, verify(newest), shared_bytes(newest)) == ("step-00000015", [], 0)
