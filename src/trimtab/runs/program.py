"""How this program is called, so that a command that it names works as typed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from trimtab.runs.printable import printable

_NAME = "trimtab"


def program() -> str:
    """`trimtab` where the shell finds it, else as it was called or lies beside this Python; quoted for the shell."""
    called = Path(sys.argv[0] if sys.argv else "")
    script = called if called.stem == _NAME else Path(sys.executable).with_name(_NAME)
    found = shutil.which(_NAME)
    if str(script) == _NAME or (found is not None and _are_one(Path(found), script)):
        return _NAME
    if script.is_file():
        return shlex.quote(str(script) if script is called else _shortest(script))
    return f"{shlex.quote(sys.executable)} -m trimtab.cli"


def command(*arguments: str) -> str:
    """`program` with `arguments`, quoted for the shell; whole paths that lie below the current folder from there."""
    return f"{program()} {shlex.join(map(from_here, arguments))}"


def from_here(argument: str) -> str:
    """A whole path as it is from the current folder, where it lies below it; everything else as it is."""
    return os.path.relpath(argument) if Path(argument).is_relative_to(Path.cwd()) else argument


def in_python(run: str) -> str:
    """How a run goes on that was begun from Python objects."""
    return f"in Python: Trainer(config, model=…, run={printable(run)!r}).fit()"


def anew_in_python(config: str) -> str:
    """How the configuration in a file is trained with the objects of a run that was begun from Python objects."""
    return f"in Python, with the same objects: Trainer(load_config({printable(config)!r}), model=…).fit()"


def _are_one(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False


def _shortest(path: Path) -> str:
    """From the current folder where it lies below it, else whole."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)


def as_typed(text: str) -> str:
    """`text`, in which commands between backquotes begin with `program`."""
    return text.replace(f"`{_NAME} ", f"`{program()} ")
