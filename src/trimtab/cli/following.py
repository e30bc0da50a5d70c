"""The command that follows runs while they go on: top."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from trimtab.cli.newest import begun, newest_run
from trimtab.cli.options import Json, app, print_json, shown

if TYPE_CHECKING:
    from trimtab.report.live import Follower
    from trimtab.runs import RunDirectory

_MOST_RUNS = 40
"""Of a folder."""


@app.command()
def top(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN…|DIR]", help="Run directories, or a folder of runs; the newest in runs/ if none."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end, as in a pipe.")] = False,
    as_json: Json = False,
    every_seconds: Annotated[
        float, typer.Option("--every-seconds", min=0.1, max=3600.0, help="Between two frames.")
    ] = 1.0,
) -> None:
    """Follow runs that go on in another terminal: curves, findings, alerts, decisions; q ends."""
    from trimtab.report.live import Follower

    followers = [Follower(run) for run in _runs(paths or [])]
    if as_json:
        frames = [follower.frame() for follower in followers]
        print_json(frames[0] if len(frames) == 1 else frames)
        return
    if once or not (sys.stdout.isatty() and os.environ.get("TERM") != "dumb"):
        _print_frame(followers)
        return
    with contextlib.suppress(KeyboardInterrupt), _alternate_screen(), _keys() as pressed:
        while True:
            _draw(followers)
            if pressed(every_seconds):
                break
    _print_frame(followers)


def _runs(paths: Sequence[Path]) -> list[RunDirectory]:
    """The runs that are meant. Raises: UsageError when there is none."""
    from trimtab.runs import RunDirectory, list_runs, live_holder

    if not paths:
        return [newest_run("top")]
    runs: list[RunDirectory] = []
    for path in paths:
        inside = [] if RunDirectory.is_run(path) else list_runs(path)
        # Those that go on first, then the newest: what a low terminal has no room for is the oldest.
        inside.sort(key=lambda run: (live_holder(run.lock) is None, -begun(run)))
        runs += inside[:_MOST_RUNS] if inside else [RunDirectory.open(path)]
    return list({run.path.resolve(): run for run in runs}.values())


def _frame(followers: Sequence[Follower], width: int, *, hint: str) -> Any:
    from trimtab.report.live_frame import render_run, render_runs

    frames = [follower.frame() for follower in followers]
    return render_run(frames[0], width, hint=hint) if len(frames) == 1 else render_runs(frames, width, hint=hint)


def _print_frame(followers: Sequence[Follower]) -> None:
    """One frame behind what the terminal has already; without colours where nobody looks."""
    text = _rendered(followers, _hint(followers), colour=sys.stdout.isatty())
    typer.echo(text, nl=False, color=sys.stdout.isatty())


def _draw(followers: Sequence[Follower]) -> None:
    """A frame over the one before, as much of it as the terminal has rows for."""
    rows = _size()[1]
    lines = _rendered(followers, f"q ends · {_hint(followers)}", colour=True).splitlines()[: rows - 1]
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
    sys.stdout.flush()


def _rendered(followers: Sequence[Follower], hint: str, *, colour: bool) -> str:
    import rich.console

    from trimtab.report.live_frame import without_unicode

    width = _size()[0]
    screen = rich.console.Console(
        width=width, force_terminal=colour, highlight=False, markup=False, emoji=False, no_color=None
    )
    with screen.capture() as capture:
        screen.print(_frame(followers, width, hint=hint))
    text = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "") not in ("utf8", "utf8sig"):
        text = without_unicode(text).encode(encoding, "replace").decode(encoding)
    return text


def _hint(followers: Sequence[Follower]) -> str:
    from trimtab.runs.program import command

    return f"next: {shown(command('show', str(followers[0].run.path)))}" if len(followers) == 1 else ""


def _size() -> tuple[int, int]:
    with contextlib.suppress(OSError, ValueError):
        size = os.get_terminal_size(sys.stdout.fileno())
        if size.columns and size.lines:
            return max(size.columns, 40), max(size.lines, 5)
    columns, lines = os.environ.get("COLUMNS", ""), os.environ.get("LINES", "")
    return max(int(columns) if columns.isdigit() else 100, 40), int(lines) if lines.isdigit() else 50


@contextlib.contextmanager
def _alternate_screen() -> Iterator[None]:
    """What stood in the terminal comes back at the end, whatever ends it."""

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers}
    sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Gives what waits so many seconds for a key, and says whether it ends the command: q, Ctrl-C, Ctrl-D, Escape."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):  # no terminal to read from: a signal ends it
        yield _without_keys
        return
    except Exception as error:
        if type(error).__name__ != "error":  # termios.error, which is no OSError
            raise
        yield _without_keys
        return

    def pressed(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                key = os.read(descriptor, 16)
                return not key or key[:1] in b"qQ\x04\x03" or key == b"\x1b"  # any other draws at once
        return False

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _without_keys(seconds: float) -> bool:
    """Where there is no keyboard a signal ends the command."""
    time.sleep(seconds)
    return False
