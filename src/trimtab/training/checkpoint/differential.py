"""Which tensors a checkpoint shares with the one before: those whose bytes have not changed.

They lie in files of their own, `stable-<sha256>.safetensors`, which are in every checkpoint that needs them, as further
names of one file on the disk (hard links). So each checkpoint is complete by itself, and may be deleted, copied and
verified like any other: the file system keeps the bytes while any checkpoint has them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trimtab.errors import StorageError, TrimtabError
from trimtab.runs.files import read_json

LEAST_BYTES: Final = 1 << 20
"""Unchanged tensors that are no more than this together are written again: they are not worth a file."""
_STABLE: Final = re.compile(r"stable-([0-9a-f]{64})\.safetensors")


class AlteredBaseError(StorageError):
    """A file that was shared with the base is not as it was written: what is in it must be written anew."""


@dataclass(frozen=True, slots=True)
class Division:
    """The tensors of a checkpoint by where they go; each name is in one of the three."""

    linked: Mapping[str, Path]
    """Name to the file of the base that holds it."""
    stable: Sequence[str]
    """Unchanged since the base, but in no file of unchanged ones yet: a new one is written."""
    changed: Sequence[str]
    digests: Mapping[str, str]
    """Name to the SHA-256 of the tensor's bytes."""


def divide(tensors: Mapping[str, Tensor], base: Path | None, alive: Callable[[], None] = lambda: None) -> Division:
    """Compare host `tensors` with those of the checkpoint `base`, by hash. Without one all count as changed.

    A file of unchanged tensors is shared whole or not at all: when one in it changes, the others are written anew.
    """
    digests = {}
    for name, tensor in tensors.items():
        alive()
        data: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
        digests[name] = hashlib.sha256(data).hexdigest()
    entries = _entries(base)
    same = {
        name
        for name, tensor in tensors.items()
        if (entry := entries.get(name)) is not None
        and entry.get("sha256") == digests[name]
        and entry["shape"] == list(tensor.shape)
        and entry["dtype"] == str(tensor.dtype).removeprefix("torch.")
    }
    held: dict[str, set[str]] = {}
    for name, entry in entries.items():
        held.setdefault(entry["shards"][0]["file"], set()).add(name)
    linked = {
        name: base / file
        for file, names in held.items()
        if base is not None and _STABLE.fullmatch(file) and names <= same
        for name in names
    }
    stable = sorted(same - linked.keys())
    if sum(tensors[name].nbytes for name in stable) <= LEAST_BYTES:
        stable = []
    changed = [name for name in tensors if name not in linked and name not in set(stable)]
    return Division(linked, stable, changed, digests)


def link(file: Path, folder: Path) -> None:
    """Give `file` a further name in `folder`; where the file system has none, a copy. Raises: OSError."""
    with contextlib.suppress(OSError):
        os.link(file, folder / file.name)
        return
    shutil.copyfile(file, folder / file.name)


def named_by_content(file: Path) -> Path:
    """`file` under the name that says its hash. Raises: OSError."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    named = file.with_name(f"stable-{digest}.safetensors")
    file.rename(named)
    return named


def require_as_named(manifest: Mapping[str, Any], folder: Path) -> None:
    """Refuse a shared file whose bytes rotted since it was written: its new manifest would say that all is well.

    Raises: AlteredBaseError.
    """
    for name, entry in manifest["files"].items():
        if (match := _STABLE.fullmatch(name)) is not None and match[1] != entry["sha256"]:
            raise AlteredBaseError(f"{folder}: {name}, which an earlier checkpoint wrote, is not as it was written")


def _entries(base: Path | None) -> Mapping[str, Any]:
    if base is None:
        return {}
    with contextlib.suppress(TrimtabError):
        found: Mapping[str, Any] = read_json(base / "checkpoint.json")["tensors"]
        return found
    return {}
