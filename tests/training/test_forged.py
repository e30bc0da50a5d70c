"""A checkpoint whose manifest is right and whose content is not a checkpoint's: refused by name, never unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from trimtab.errors import CheckpointError
from trimtab.runs.checkpoints import verify, write_manifest
from trimtab.training.checkpoint.files import read_snapshot, read_tensors


@pytest.mark.parametrize("content", [b"", b"\0" * 64, pickle.dumps([1, 2, 3]), b"\xff" * 4096])
def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    tensors = {"model/w": {"dtype": "float32", "shape": [1], "shards": [{"file": "x", "key": "model/w"}]}}
    description = {"schema": 1, "step": 1, "branch": 0, "tensors": tensors, "state": {}}
    (folder / "checkpoint.json").write_text(json.dumps(description))
    (folder / "tensors.safetensors").write_bytes(content)
    write_manifest(folder)
    assert verify(folder) == []
    for read in (read_snapshot, lambda path: read_tensors(path, "model/")):
        with pytest.raises(CheckpointError, match=r"tensors\.safetensors: its hash is right, but"):
            read(folder)
