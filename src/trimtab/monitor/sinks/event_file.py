"""TensorBoard's event files, written whole record by whole record: a full disk leaves no torn one in the middle."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c


@final
class EventFile:
    """One file of one attempt. Readers take the files of a folder in the order of their names, which is by time.

    Nothing is buffered: what `write` returned from is there for a reader, and after a kill.
    """

    def __init__(self, folder: Path, attempt: int, *, goes_on_after: int | None = None) -> None:
        """With `goes_on_after`, readers forget what earlier files say of later steps. Raises: OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{attempt}"
        self.path = folder / stem
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._size = os.fstat(self._descriptor).st_size
        self._append([Event(wall_time=time.time(), file_version="brain.Event:2")])
        if goes_on_after is not None:
            self.forget_after(goes_on_after)

    def write(self, summaries: Iterable[tuple[int, Summary]]) -> None:
        """Append `summaries`, each at its step: all or none of them. Raises: OSError."""
        now = time.time()
        self._append([Event(wall_time=now, step=step, summary=summary) for step, summary in summaries])

    def forget_after(self, step: int) -> None:
        """Let readers forget what was said of later steps than `step`. Raises: OSError."""
        self._append([Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))])

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _append(self, events: list[Event]) -> None:
        data = b"".join(_record(event.SerializeToString()) for event in events)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += written


def _record(data: bytes) -> bytes:
    """Length, its checksum, data, its checksum."""
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))
