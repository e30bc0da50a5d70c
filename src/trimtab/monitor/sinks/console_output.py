"""Where a console writes: a terminal, with a line that is drawn again and again, or plain lines."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Final, Protocol, TextIO, final

import rich.console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_CLEAR: Final = "\r\x1b[2K"
"""To the beginning of the row, which is emptied."""
_PLAINER: Final = str.maketrans(
    {"→": "->", "…": "...", "★": "*", "×": "x", "·": "-", "–": "-", "—": "-", "²": "^2", "≥": ">=", "≤": "<="}
)
"""What stands for signs of ours where an encoding has none of them."""
Content = Text | Panel


class Output(Protocol):
    """Takes what a console says."""

    redraws: bool
    """Whether a progress line is drawn again below the lines that stay."""

    @property
    def width(self) -> int:
        """Columns."""
        ...

    def say(self, label: str | None, content: Content) -> None:
        """Write a line that stays, with its label in a column of its own."""
        ...

    def draw(self, line: Text) -> None:
        """Show the line that is drawn again; nothing where there is none."""
        ...

    def clear(self) -> None:
        """Take that line away."""
        ...


def open_output(stream: TextIO, *, plain: bool | None = None) -> Output:
    """A terminal's, where lines can be drawn again and `plain` is not asked for; else plain lines."""
    if plain is None:
        plain = not _can_redraw(stream, os.environ)
    return Lines(stream, colour=_is_forced(os.environ)) if plain else Terminal(stream)


@final
class Terminal:
    """Lines that stay, in colour unless NO_COLOR is set, and one below them that is drawn again."""

    redraws = True

    def __init__(self, stream: TextIO) -> None:
        self._writer = _Writer(stream)
        self._screen = _screen()
        self._below: Text | None = None

    @property
    def width(self) -> int:
        """As wide as the terminal is now."""
        return self._writer.width

    def say(self, label: str | None, content: Content) -> None:
        """Write it above the line that is drawn again."""
        text = _with_label(self._screen, self.width, label, content)
        if self._below is None:
            self._writer.write(text)
        else:
            self._writer.write(_CLEAR + text + _rendered(self._screen, self.width, self._below, end="\r"))

    def draw(self, line: Text) -> None:
        """Draw it over the one before."""
        self._below = line
        self._writer.write(_CLEAR + _rendered(self._screen, self.width, line, end="\r"))

    def clear(self) -> None:
        """Leave the row empty."""
        if self._below is not None:
            self._below = None
            self._writer.write(_CLEAR)


@final
class Lines:
    """Only lines that stay, without control characters; with `colour` their codes alone."""

    redraws = False

    def __init__(self, stream: TextIO, *, colour: bool = False) -> None:
        self._writer = _Writer(stream)
        self._screen = _screen() if colour else None

    @property
    def width(self) -> int:
        """Where longer texts are broken."""
        return self._writer.width

    def say(self, label: str | None, content: Content) -> None:
        """Write it; a panel is for a terminal alone."""
        if not isinstance(content, Text):
            return
        if self._screen is not None:
            width = max(10_000, content.cell_len + 100)  # whoever reads a file wraps lines as he likes
            begin = "" if label is None else f"{label:<8}  "
            self._writer.write(begin + _rendered(self._screen, width, content, end="\n"))
            return
        self._writer.write(content.plain + "\n" if label is None else f"{label:<8}  {content.plain}\n")

    def draw(self, line: Text) -> None:
        """Nothing is drawn again here."""

    def clear(self) -> None:
        """There is nothing to take away."""


@final
class _Writer:
    """Writes text; a stream that is closed or breaks is no error: nothing more is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    @property
    def width(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        if not columns:  # a terminal that was given no size
            columns = int(given) if (given := os.environ.get("COLUMNS", "")).isdigit() else 80
        return max(columns, 20)

    def write(self, text: str) -> None:
        if self._broken:
            return
        try:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            if not _is_unicode(encoding):
                text = text.translate(_PLAINER)
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError, LookupError):
            self._broken = True


def _screen() -> rich.console.Console:
    """Rich makes the text; writing it is ours: rich ends the process when a terminal goes away."""
    return rich.console.Console(file=io.StringIO(), force_terminal=True, highlight=False, markup=False, emoji=False)


def _with_label(screen: rich.console.Console, width: int, label: str | None, content: Content) -> str:
    if label is None:
        return _rendered(screen, width, content, end="\n")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=11)
    grid.add_column(overflow="fold")
    grid.add_row(f"  {label}", content)
    return _rendered(screen, width, grid, end="")


def _rendered(screen: rich.console.Console, width: int, content: Content | Table, *, end: str) -> str:
    """`content` with the codes for colours, `width` wide."""
    screen.width = width
    with screen.capture() as capture:
        screen.print(content, end=end)
    return capture.get()


def _is_unicode(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig", "utf16", "utf32")


def _can_redraw(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether `stream` is a terminal that a person looks at: services that build and test keep every line."""
    if environment.get("TERM") == "dumb" or environment.get("CI", "").lower() not in ("", "0", "false"):
        return False
    try:
        return stream.isatty() and _is_unicode(getattr(stream, "encoding", None) or "")
    except (OSError, ValueError):
        return False


def _is_forced(environment: Mapping[str, str]) -> bool:
    """Whether colours are wanted even where nobody looks; NO_COLOR says no to all."""
    return environment.get("FORCE_COLOR", "") not in ("", "0", "false") and not environment.get("NO_COLOR")
