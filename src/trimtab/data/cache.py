"""Prepared data on disk: made once for each content, checked whenever it is opened, rebuilt when damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from trimtab.errors import StorageError

_MANIFEST: Final = "manifest.json"
_DERIVED: Final = "derived"
_BUILDING: Final = ".building-"
_ABANDONED_SECONDS: Final = 86_400.0


def cache_folder() -> Path:
    """Where prepared data is kept: $TRIMTAB_CACHE, else $XDG_CACHE_HOME/trimtab, else ~/.cache/trimtab."""
    if chosen := os.environ.get("TRIMTAB_CACHE"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "trimtab"
    return Path("~/.cache/trimtab").expanduser()


def cached_folder(key: str, build: Callable[[Path], None]) -> Path:
    """The folder that `build` filled for `key`: from the cache if it is there and whole, else built now.

    It is built aside and renamed, so that it is there whole or not at all; of two processes that build the
    same, the first wins. A damaged one is built anew, with a warning.

    Raises:
        StorageError: the cache cannot be written or read. What `build` raises, OSError apart, is passed on.
    """
    parent = cache_folder() / "data"
    folder = parent / key
    try:
        damage = _damage(folder)
        if damage is None:
            return folder
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        if folder.exists():
            warnings.warn(f"prepared data in {folder} is damaged ({damage}); preparing it again", stacklevel=2)
            _discard(folder)
        _build(folder, build)
        damage = _damage(folder)
    except OSError as error:
        raise StorageError(
            f"the cache for prepared data cannot be used: {parent}: {error.strerror or error}",
            hint="set TRIMTAB_CACHE to a folder that can be written and has room",
        ) from error
    if damage is not None:
        raise StorageError(
            f"prepared data was written to {folder}, but does not read back ({damage})",
            hint="the disk may be failing: set TRIMTAB_CACHE to a folder on another one",
        )
    return folder


def cached_json(folder: Path, name: str, compute: Callable[[], Any]) -> Any:
    """The JSON value `name` kept beside the data of `folder`; computed and kept if missing or damaged."""
    path = folder / _DERIVED / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_bytes())
        if kept["sha256"] == _value_hash(kept["value"]):
            return kept["value"]
    value = compute()
    # Only time is lost if it cannot be kept.
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(json.dumps({"sha256": _value_hash(value), "value": value}))
        aside.replace(path)
    return value


def _damage(folder: Path) -> str | None:
    """What is wrong with a folder of the cache, None if nothing is."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        for name, expected in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
            if _file_hash(path) != expected["sha256"]:
                return f"the content of {name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is not readable"
    return None


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder.parent))
    try:
        build(aside)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": _file_hash(path)} for path in sorted(aside.iterdir())
        }
        (aside / _MANIFEST).write_text(json.dumps({"schema": 1, "files": files}, indent=1))
        aside.chmod(0o755)
        try:
            aside.rename(folder)
        except OSError:
            # Another process was first: what it made is the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _discard(folder: Path) -> None:
    # Renamed first: another process must never open a folder that is half removed.
    aside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder.parent))
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove what a killed process left half built."""
    for aside in parent.glob(f"{_BUILDING}*"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(aside, ignore_errors=True)


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _value_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
