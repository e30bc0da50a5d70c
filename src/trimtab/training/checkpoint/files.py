"""Snapshots on disk: `tensors.safetensors` and `checkpoint.json`, under a manifest of hashes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors.torch
from torch import Tensor

from trimtab.errors import CheckpointError, StorageError
from trimtab.runs.checkpoints import commit, verify, write_manifest
from trimtab.runs.files import read_json, write_json
from trimtab.training.checkpoint.snapshot import Snapshot

_TENSORS: Final = "tensors.safetensors"


def write_snapshot(snapshot: Snapshot, temporary: Path, folder: Path, description: Mapping[str, Any]) -> int:
    """Write `snapshot` to `temporary`, sync, hash, rename to `folder`, verify it there; gives its size in bytes.

    Raises: StorageError when the disk does not take it; what stood at `folder` before is then untouched.
    """
    try:
        temporary.mkdir(parents=True)
        safetensors.torch.save_file(dict(snapshot.tensors), temporary / _TENSORS)
        # safetensors makes files that nobody else can read; the run's other files follow the umask.
        (temporary / "checkpoint.json").touch()
        (temporary / _TENSORS).chmod((temporary / "checkpoint.json").stat().st_mode)
        offsets = _offsets(temporary / _TENSORS)
        document = {
            **description,
            "created_seconds": time.time(),
            "tensors": {
                name: {
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "shape": list(tensor.shape),
                    "shards": [{"file": _TENSORS, "key": name, "offsets": offsets[name]}],
                }
                for name, tensor in snapshot.tensors.items()
            },
            "state": snapshot.values,
        }
        write_json(temporary / "checkpoint.json", document)
        write_manifest(temporary)
        commit(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | safetensors.SafetensorError):
            message = f"the checkpoint {folder} could not be written: {error}"
            raise StorageError(message, hint="is the disk full?") from error
        raise
    if problems := verify(folder):
        raise StorageError(f"the checkpoint {folder} does not read back as it was written: {'; '.join(problems)}")
    return sum(file.stat().st_size for file in folder.iterdir())


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in `folder`, verified. Raises: CheckpointError naming what is missing or altered."""
    if problems := verify(folder):
        raise CheckpointError(f"the checkpoint {folder} is damaged: {'; '.join(problems)}")
    document = read_json(folder / "checkpoint.json")
    return Snapshot(_load(folder, document["tensors"]), document["state"])


def read_tensors(folder: Path, *prefixes: str) -> dict[str, Tensor]:
    """The tensors whose names start with one of `prefixes`, verified. Raises: CheckpointError."""
    if problems := verify(folder):
        raise CheckpointError(f"the checkpoint {folder} is damaged: {'; '.join(problems)}")
    document = read_json(folder / "checkpoint.json")
    return _load(folder, {name: entry for name, entry in document["tensors"].items() if name.startswith(prefixes)})


def _load(folder: Path, entries: Mapping[str, Any]) -> dict[str, Tensor]:
    with safetensors.safe_open(folder / _TENSORS, framework="pt") as file:
        return {name: file.get_tensor(entry["shards"][0]["key"]) for name, entry in entries.items()}


def _offsets(path: Path) -> dict[str, list[int]]:
    """Byte range of each tensor in the data part of a safetensors file, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}


def read_judged(folder: Path) -> dict[str, Tensor]:
    """The weights that were judged, as `model/<name>`: the average where the checkpoint has one. Raises: as above."""
    tensors = read_tensors(folder, "model/", "average/")
    averages = {name: tensors.pop(name) for name in list(tensors) if name.startswith("average/")}
    return tensors | {name.replace("average/", "model/", 1): tensor for name, tensor in averages.items()}
