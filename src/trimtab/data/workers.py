"""Processes that make micro-batches side by side; they come back in the order in which they were asked for."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from typing import IO, Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.data.mapped import packed_for_process
from trimtab.data.worker import receive, send
from trimtab.errors import ResourceError, TrimtabError
from trimtab.signals import Batch

_ALONE: Final = {
    # One thread each: the cores belong to the training. No GPU: what a worker has on it is missing there.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}


@final
class Workers:
    """New processes, begun by the command line: no fork of one that has threads, and no `__main__` that runs again.

    Each has one request at a time; the next answer is always that of the worker whose turn it is. So the batches, and
    their order, are the same with any number of workers.
    """

    def __init__(self, count: int, sequences: Any, augment: Any) -> None:
        """Begins `count` processes; arrays that are mapped from files are opened in them, not copied."""
        setup = packed_for_process((sequences, augment))
        environment = os.environ | _ALONE
        self._processes: list[subprocess.Popen[bytes]] = []
        self._turn, self._asked = 0, 0
        try:
            for _ in range(count):
                process = subprocess.Popen(
                    # With -m the package, which imports that module, would be there first: runpy warns of it.
                    [sys.executable, "-c", "from trimtab.data.worker import main; main()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    start_new_session=True,  # an interrupt of the terminal is for the training to answer
                )
                self._processes.append(process)
                self._tell(process, pickle.dumps(sys.path))
                self._tell(process, setup)
        except BaseException:
            self.close()
            raise

    @property
    def is_full(self) -> bool:
        """Whether every worker has a request."""
        return self._asked - self._turn >= len(self._processes)

    @property
    def processes(self) -> tuple[int, ...]:
        """Their numbers in the system."""
        return tuple(process.pid for process in self._processes)

    def ask(self, indices: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        """For the samples `indices`, at `positions` of the stream, from the next worker, which must have no request."""
        process = self._processes[self._asked % len(self._processes)]
        self._asked += 1
        self._tell(process, pickle.dumps((indices, positions), protocol=5))

    def take(self) -> Batch:
        """The batch that was asked for first; waits for it.

        Raises: ResourceError where the worker is gone, or failed; a TrimtabError that it met is raised as it is.
        """
        process = self._processes[self._turn % len(self._processes)]
        self._turn += 1
        answer = receive(_pipe(process.stdout))
        if answer is None:
            raise self._gone(process)
        is_done, content = pickle.loads(answer)
        if is_done:
            tensors, count = content
            return Batch(**{name: torch.from_numpy(array) for name, array in tensors.items()}, count=count)
        error, trace = content
        if isinstance(error, TrimtabError | MemoryError):
            raise error
        raise ResourceError(f"data worker {self._number(process)} failed: {error!r}\n{trace}") from error

    def close(self) -> None:
        """End them all, at once; may be called by another thread, and again."""
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.kill()
        for process in self._processes:
            process.wait()

    def _tell(self, process: subprocess.Popen[bytes], message: bytes) -> None:
        try:
            send(_pipe(process.stdin), message)
        except (BrokenPipeError, ValueError) as error:
            raise self._gone(process) from error

    def _gone(self, process: subprocess.Popen[bytes]) -> ResourceError:
        code = process.wait()
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return ResourceError(
            f"data worker {self._number(process)} of {len(self._processes)} (process {process.pid}) {how}",
            hint="memory may have run out: lower data.workers; data.workers=0 prepares batches in this process. "
            "The run goes on from its newest checkpoint: trimtab resume RUN",
        )

    def _number(self, process: subprocess.Popen[bytes]) -> int:
        return self._processes.index(process) + 1


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
