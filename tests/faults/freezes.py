"""`trimtab train CONFIG ...` in which one thing never returns: `freezes.py data|save|record|step|python CONFIG ...`.

Each hangs in a system call, as on a file system that does not answer: reading from a pipe that nobody writes.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from trimtab.cli import main
from trimtab.data import loader
from trimtab.runs.files import AppendFile
from trimtab.training import step
from trimtab.training.checkpoint import files


def hang() -> None:
    print("frozen", flush=True)
    os.read(os.pipe()[0], 1)


def after(calls: int, function: Any, hangs: Any = hang) -> Any:
    """`function`, which hangs from call number `calls` on."""
    left = [calls]

    def patched(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            hangs()
        return function(*arguments, **named)

    return patched


match sys.argv[1]:
    case "data":
        loader._Producer._next = after(30, loader._Producer._next)  # type: ignore[method-assign]
    case "save":
        files._write_all = after(20, files._write_all)
    case "record":
        AppendFile._write = after(15, AppendFile._write)  # type: ignore[method-assign]
    case "step":
        step.Step.run = after(15, step.Step.run)  # type: ignore[method-assign]
    case "python":  # a library that keeps the interpreter's lock: nothing of Python runs any more
        pause = ctypes.PyDLL(None).pause
        step.Step.run = after(15, step.Step.run, lambda: (print("frozen", flush=True), pause()))  # type: ignore[method-assign]

sys.argv = ["trimtab", "train", *sys.argv[2:]]
main()
