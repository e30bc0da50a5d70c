"""The other side of workers.py: a process that makes micro-batches. Run by its `main`.

A message is its length in 8 bytes, and a pickle. The first one brings the samples, and what is changed in them; every
other one asks for a micro-batch, and is answered by one, or by an error. It ends with its standard input, so that no
worker outlives the process that asks.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import traceback
from collections.abc import Callable
from typing import IO, Any

LENGTH = struct.Struct("<Q")


def send(stream: IO[bytes], message: bytes) -> None:
    """Write one message."""
    stream.write(LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes | None:
    """Read one message; None where the stream ends, in the middle of one, too."""
    head = stream.read(LENGTH.size)
    if head is None or len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if body is not None and len(body) == length else None


def main() -> None:
    """Answer until nobody asks any more."""
    asked, told = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what somebody prints is no answer
    path = receive(asked)
    if path is None:
        return
    sys.path[:] = pickle.loads(path)
    setup = receive(asked)
    if setup is None:
        return
    make: Callable[[Any, Any], Any] = _never
    try:
        sequences, augment = pickle.loads(setup)

        def make(indices: Any, positions: Any) -> Any:
            batch = sequences.batch(indices, None, positions)
            batch = batch if augment is None else augment(batch, positions)
            tensors = {name: tensor.numpy() for name, tensor in batch.tensors().items()}
            return tensors, batch.count
    except BaseException as error:
        failure = error

        def make(indices: Any, positions: Any) -> Any:
            raise failure

    while (request := receive(asked)) is not None:
        try:
            answer = pickle.dumps((True, make(*pickle.loads(request))), protocol=5)
        except BaseException as error:
            answer = pickle.dumps((False, (_plain(error), traceback.format_exc())), protocol=5)
        try:
            send(told, answer)
        except BrokenPipeError:
            return


def _never(indices: Any, positions: Any) -> Any:
    raise RuntimeError("asked before it was set up")


def _plain(error: BaseException) -> BaseException:
    """`error`, or its words where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
