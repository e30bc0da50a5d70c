"""Snapshots on disk: `tensors.safetensors` and `checkpoint.json`, under a manifest of hashes.

A differential one has a part of its tensors in files that it shares with others (differential.py).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from torch import Tensor

from trimtab.errors import CheckpointError, StorageError
from trimtab.runs.checkpoints import commit, verify, write_manifest
from trimtab.runs.files import read_json, write_json
from trimtab.training.checkpoint.differential import divide, link, named_by_content, require_as_named
from trimtab.training.checkpoint.dtypes import DTYPES
from trimtab.training.checkpoint.snapshot import OWN_AVERAGE, Snapshot

_TENSORS: Final = "tensors.safetensors"
_CHUNK_BYTES: Final = 16 << 20


def write_snapshot(
    snapshot: Snapshot,
    temporary: Path,
    folder: Path,
    description: Mapping[str, Any],
    alive: Callable[[], None] = lambda: None,
    base: Path | None = None,
    *,
    differential: bool = False,
) -> int:
    """Write `snapshot` to `temporary`, sync, hash, rename to `folder`, verify it there; gives its size in bytes.

    `alive` is called again and again while that goes on. A `differential` one shares with the checkpoint `base` the
    tensors that are as they were there.

    Raises: StorageError when the disk does not take it, AlteredBaseError when the base is not as it was written; what
    stood at `folder` before is then untouched.
    """
    try:
        snapshot.wait()
        temporary.mkdir(parents=True)
        places, digests = _place_tensors(snapshot.tensors, temporary, alive, base, differential=differential)
        document = {
            **description,
            "created_seconds": time.time(),
            "tensors": {
                name: {
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "shape": list(tensor.shape),
                    "shards": [{"file": places[name][0], "key": name, "offsets": places[name][1]}],
                }
                | ({"sha256": digests[name]} if name in digests else {})
                for name, tensor in snapshot.tensors.items()
            },
            "state": snapshot.values,
        }
        write_json(temporary / "checkpoint.json", document)
        alive()
        require_as_named(write_manifest(temporary), folder)
        alive()
        commit(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            message = f"the checkpoint {folder} could not be written: {error}"
            raise StorageError(message, hint="is the disk full?") from error
        raise
    alive()
    if problems := verify(folder):
        raise StorageError(f"the checkpoint {folder} does not read back as it was written: {'; '.join(problems)}")
    return sum(file.stat().st_size for file in folder.iterdir())


def read_snapshot(folder: Path, *, is_verified: bool = False) -> Snapshot:
    """The snapshot in `folder`, verified unless that was just done. Raises: CheckpointError naming what is missing or
    altered."""
    if not is_verified:
        _require_whole(folder)
    document = read_json(folder / "checkpoint.json")
    return Snapshot(_load(folder, document["tensors"]), document["state"])


def read_tensors(folder: Path, *prefixes: str, is_verified: bool = False) -> dict[str, Tensor]:
    """The tensors whose names start with one of `prefixes`, verified unless that was just done.

    Raises: CheckpointError.
    """
    if not is_verified:
        _require_whole(folder)
    document = read_json(folder / "checkpoint.json")
    return _load(folder, {name: entry for name, entry in document["tensors"].items() if name.startswith(prefixes)})


def _require_whole(folder: Path) -> None:
    if problems := verify(folder):
        raise CheckpointError(f"the checkpoint {folder} is damaged: {'; '.join(problems)}")


def _load(folder: Path, entries: Mapping[str, Any]) -> dict[str, Tensor]:
    """Raises: CheckpointError where the files are those of the manifest, but not what a checkpoint holds."""
    shards: dict[str, dict[str, str]] = {}
    found: dict[str, Tensor] = {}
    try:
        for name, entry in entries.items():
            shard = entry["shards"][0]
            shards.setdefault(str(shard["file"]), {})[name] = shard["key"]
    except (KeyError, IndexError, TypeError) as error:
        raise _no_checkpoint(folder / "checkpoint.json", error) from error
    for name, keys in shards.items():
        if "/" in name or "\\" in name:  # what is read lies in the folder, under the manifest's hashes
            raise CheckpointError(f"the checkpoint {folder} names a file that is none of its own: {name!r}")
        try:
            with safetensors.safe_open(folder / name, framework="pt") as file:
                found |= {tensor: file.get_tensor(key) for tensor, key in keys.items()}
        except (safetensors.SafetensorError, OSError, TypeError) as error:
            raise _no_checkpoint(folder / name, error) from error
    return {name: found[name] for name in entries}


def _no_checkpoint(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file}: its hash is right, but it holds no tensors of this checkpoint ({error})",
        hint="it was not written by trimtab: delete the folder, and an older checkpoint is taken",
    )


def _place_tensors(
    tensors: Mapping[str, Tensor], folder: Path, alive: Callable[[], None], base: Path | None, *, differential: bool
) -> tuple[dict[str, tuple[str, list[int]]], Mapping[str, str]]:
    """Write or link all of them; gives each one's file and byte range, and the hashes by which the next is compared."""
    if not differential:
        offsets = _save_tensors(tensors, folder / _TENSORS, alive)
        return {name: (_TENSORS, offset) for name, offset in offsets.items()}, {}
    division = divide(tensors, base, alive)
    for file in sorted(set(division.linked.values())):
        link(file, folder)
    offsets = _save_tensors({name: tensors[name] for name in division.changed}, folder / _TENSORS, alive)
    places = {name: (_TENSORS, offset) for name, offset in offsets.items()}
    if division.stable:
        unnamed = folder / "stable.safetensors"
        offsets = _save_tensors({name: tensors[name] for name in division.stable}, unnamed, alive)
        named = named_by_content(unnamed).name
        places |= {name: (named, offset) for name, offset in offsets.items()}
    held = {} if base is None else read_json(base / "checkpoint.json")["tensors"]
    places |= {name: (file.name, held[name]["shards"][0]["offsets"]) for name, file in division.linked.items()}
    return places, division.digests


def kinds_held(folder: Path) -> tuple[str, ...]:
    """Which weights the checkpoint in `folder` holds: `plain`, and the kinds of averages."""
    names = read_json(folder / "checkpoint.json")["tensors"]
    return ("plain", *sorted({_kind_and_name(name)[0] for name in names if name.startswith("average/")}))


def read_judged(folder: Path, kind: str = "", *, is_verified: bool = False) -> dict[str, Tensor]:
    """Weights as `model/<name>`: the average of `kind`, or `plain` ones; for '' those that the optimizer is judged by.

    It is verified unless that was just done. Raises: CheckpointError, also where the checkpoint has no such average.
    """
    held = kinds_held(folder)
    if not kind:
        kind = OWN_AVERAGE if OWN_AVERAGE in held else "plain"
    if kind not in held:
        raise CheckpointError(f"the checkpoint {folder} has no {kind} weights. It has: {', '.join(held)}")
    tensors = read_tensors(folder, "model/", "average/", is_verified=is_verified)
    averages = {name: tensors.pop(name) for name in list(tensors) if name.startswith("average/")}
    parted = [(*_kind_and_name(name), tensor) for name, tensor in averages.items()]
    return tensors | {f"model/{name}": tensor for own, name, tensor in parted if own == kind}


def _kind_and_name(tensor: str) -> tuple[str, str]:
    """The parts of `average/<kind>/<name>`; in the first checkpoints `average/<name>` was the optimizer's own."""
    kind, slash, name = tensor.removeprefix("average/").partition("/")
    return (kind, name) if slash else (OWN_AVERAGE, kind)


def _save_tensors(
    tensors: Mapping[str, Tensor], path: Path, alive: Callable[[], None] = lambda: None
) -> dict[str, list[int]]:
    """Write host tensors as a safetensors file; gives each one's byte range in the data part.

    The library's own writer keeps the interpreter's lock until the last byte, which would hold up training. Raises:
    OSError.
    """
    offsets: dict[str, list[int]] = {}
    end = 0
    # Widest first, so that every tensor begins where its type may.
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))
    for name, tensor in ordered.items():
        offsets[name] = [end, end := end + tensor.nbytes]
    header = json.dumps(
        {
            name: {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets[name]}
            for name, tensor in ordered.items()
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb", buffering=0) as file:
        _write_all(file, len(header).to_bytes(8, "little") + header)
        for tensor in ordered.values():
            _write_all(file, tensor.detach().reshape(-1).view(torch.uint8).numpy(), alive)
    return offsets


def _write_all(file: FileIO, data: Any, alive: Callable[[], None] = lambda: None) -> None:
    left = memoryview(data)
    while left:
        alive()
        left = left[file.write(left[:_CHUNK_BYTES]) or 0 :]
