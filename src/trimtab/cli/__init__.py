"""The command line: thin commands; what is heavy is imported inside them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
import warnings
from typing import Annotated, NoReturn

import typer

# isort: off
from trimtab.cli import (  # noqa: F401  the order of --help
    running,
    models,
    answers,
    looking,
    comparing,
    following,
    planning,
    configuration,
)

# isort: on
from trimtab.cli.options import app, shown
from trimtab.errors import EXIT_INTERNAL, EXIT_KILLED_TWICE, Notice, StorageError, TrimtabError

__all__ = ["app", "main"]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    if version:
        from trimtab import __version__

        typer.echo(f"trimtab {__version__}")
        raise typer.Exit


def _told(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """A warning as a line of ours, without the place in the code that it comes from."""
    kind = "note" if issubclass(category, Notice) else "warning"
    typer.echo(shown(f"{kind}: {message}", lines=True), err=True)


def main() -> NoReturn:
    """Run a command; every error ends in a message for people and its own exit code.

    A sink that was not done in its time is not waited for here either: at its end Python would wait for its libraries.
    """
    try:
        _run()
    except SystemExit as leaving:
        if any(thread.name.startswith("trimtab-sink-") for thread in threading.enumerate()):
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None))
        raise


def _run() -> NoReturn:
    warnings.showwarning = _told
    for library in ("torchao", "torch.utils._pytree"):  # they speak of their own parts, which nobody asked for
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        app(standalone_mode=True)
    except TrimtabError as error:
        from trimtab.runs.program import as_typed

        typer.echo(shown(f"error: {as_typed(str(error))}", lines=True), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(EXIT_KILLED_TWICE)
    except BrokenPipeError:
        # The reader has gone: nothing more can be said, and Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        typer.echo(f"error: {shown(error)}\nhint: is the disk full, or a file not readable?", err=True)
        sys.exit(StorageError.exit_code)
    except Exception:
        typer.echo(shown(traceback.format_exc(), lines=True), err=True, nl=False)
        typer.echo("error: this is a fault in trimtab. Please report it with the lines above.", err=True)
        sys.exit(EXIT_INTERNAL)
    sys.exit(0)
