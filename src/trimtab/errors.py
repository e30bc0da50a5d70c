"""The error tree. Every error a user can cause or meet is one of these, and each has its exit code.

    TrimtabError                70  anything else that trimtab itself raises
    ├── UsageError               2  a command called wrongly, a run or file that is not there
    │   ├── ConfigError          2  a setting that is unknown, mistyped, out of range or without effect
    │   └── DriftError           2  a resume whose configuration, data or code is not that of the run
    ├── DataError                3  input that is empty, undecodable, torn or too small
    ├── NumericsError            4  training that cannot go on in finite numbers
    ├── StorageError             5  a directory or disk that cannot be written, or a second writer
    │   └── CheckpointError      5  a checkpoint that is missing, torn or altered
    └── ResourceError            7  memory, a lost or frozen worker

Further exit codes, which are no errors: 0 done, 6 findings at or above `--fail-on`,
75 interrupted once (checkpoint saved), 130 interrupted twice.
"""

from __future__ import annotations

from typing import ClassVar


class TrimtabError(Exception):
    """An error with an optional `hint`: what to do about it, shown on a line of its own."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class UsageError(TrimtabError):
    """A command called wrongly, or one that names a run or file which is not there."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting that is unknown, of the wrong type, out of range, or that cannot take effect."""


class DriftError(UsageError):
    """A resume whose configuration, data, plan or versions differ from those of the run."""


class DataError(TrimtabError):
    """Input that is empty, undecodable, torn, or too small to train on."""

    exit_code = 3


class NumericsError(TrimtabError):
    """Training that cannot go on in finite numbers: the budget for recovery is spent."""

    exit_code = 4


class StorageError(TrimtabError):
    """A directory or disk that cannot be written or read, or a second process in one run."""

    exit_code = 5


class CheckpointError(StorageError):
    """A checkpoint that is missing, incomplete, or whose bytes are not those that were written."""


class ResourceError(TrimtabError):
    """Out of memory, or a worker or rank that died or stands still."""

    exit_code = 7


class Notice(UserWarning):
    """Something to know, and nothing that is wrong."""


EXIT_DONE = 0
EXIT_FINDINGS = 6
"""Findings at or above `--fail-on`."""
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 75
EXIT_KILLED_TWICE = 130
