"""Durable files: JSON and text that are written whole or not at all, and files that only grow."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from trimtab.errors import StorageError, UsageError

SCHEMA = 1


def json_value(value: Any) -> Any:
    """`value` as JSON can hold it: non-finite floats become "nan", "inf", "-inf"; arrays become lists."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(part) for part in value]
    return str(value)


def python_value(value: Any) -> Any:
    """What `json_value` made, with its texts "nan", "inf" and "-inf" as floats again."""
    if isinstance(value, str):
        return float(value) if value in ("nan", "inf", "-inf") else value
    if isinstance(value, Mapping):
        return {key: python_value(part) for key, part in value.items()}
    return [python_value(part) for part in value] if isinstance(value, list) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` with "schema": 1 in front; a reader sees the old file or the new one, never a part.

    Raises: StorageError when the file cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, **json_value(content)}, indent=1, ensure_ascii=True)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that `write_json` wrote.

    Raises: StorageError when it is missing or damaged; UsageError when a newer trimtab wrote it.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StorageError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path}: must hold a JSON object. Received: {type(content).__name__}")
    check_schema(content, path)
    return content


def check_schema(content: Mapping[str, Any], path: Path) -> None:
    """Refuse what this version cannot understand. Raises: UsageError."""
    schema = content.get("schema")
    if schema != SCHEMA:
        raise UsageError(
            f"{path}: this version of trimtab reads schema {SCHEMA}. Received: {schema!r}",
            hint="a newer trimtab wrote it: pip install --upgrade trimtab",
        )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with "\\n" line ends, aside; then sync and rename. Raises: StorageError."""
    write_bytes(path, text.encode("utf-8", errors="surrogatepass"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` aside; then sync and rename. Raises: StorageError."""
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}-{threading.get_ident()}")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where the filesystem can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@final
class AppendFile:
    """A file that only grows. What the disk refuses is kept in memory and written with the next call.

    Nothing is buffered otherwise: when `append` returns with `pending` at 0, another process sees the bytes.
    """

    def __init__(self, path: Path) -> None:
        """Raises: StorageError when the file cannot be opened."""
        self.path = path
        self._pending = bytearray()
        self._problem: OSError | None = None
        try:
            self._descriptor: int | None = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
            )
        except OSError as error:
            raise StorageError(f"{path}: cannot be opened for writing ({error.strerror})") from error

    @property
    def pending(self) -> int:
        """Bytes that the disk has not taken yet."""
        return len(self._pending)

    @property
    def problem(self) -> str:
        """What the disk said when it last refused, in the system's words."""
        return (self._problem.strerror if self._problem is not None else None) or "unknown cause"

    def append(self, data: bytes) -> None:
        """Write `data`; never raises, see `pending`."""
        self._pending += data
        self._write()

    def sync(self, *, retries: int = 5, retry_seconds: float = 0.2) -> None:
        """Bring everything to the disk. Raises: StorageError after `retries` more attempts."""
        for attempt in range(retries + 1):
            if attempt:
                time.sleep(retry_seconds)
            if self._write():
                try:
                    os.fsync(self._open_descriptor())
                    return
                except OSError as error:
                    self._problem = error
        raise StorageError(
            f"{self.path}: {self.pending} bytes could not be written in {retries + 1} attempts ({self.problem})",
            hint="free space on the disk and run the same command again: it goes on from the last checkpoint",
        ) from self._problem

    def close(self, *, retries: int = 5, retry_seconds: float = 0.2) -> None:
        """Sync and close, also when it raises; closing again does nothing. Raises: StorageError."""
        if self._descriptor is None:
            return
        try:
            self.sync(retries=retries, retry_seconds=retry_seconds)
        finally:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed")
        return self._descriptor

    def _write(self) -> bool:
        descriptor = self._open_descriptor()
        while self._pending:
            try:
                written = os.write(descriptor, self._pending)
            except OSError as error:
                self._problem = error
                return False
            del self._pending[:written]
        return True
