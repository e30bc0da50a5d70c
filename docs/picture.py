"""Makes docs/terminal.svg: a real run of a command in a terminal, as a picture.

    python docs/picture.py [COMMAND ...]        (default: trimtab demo)

The command runs in a pseudo-terminal of 100 columns; what stays on the screen is drawn by rich.

docs/report.png, and the verdict that README.md shows, are those of a run that has too little text:

    trimtab train gpt-1m data.source.name=text data.source.path=SITE_PACKAGES/networkx/algorithms/community \
        training.steps=600 evaluation.every=30 stopping.name=none --run runs/mine
    chromium --headless --hide-scrollbars --window-size=1160,1640 --screenshot=docs/report.png runs/mine/report.html

docs/attention.png is of the same text, after 250 steps with data.sequence_length=64:

    trimtab show runs/mine --attention --layer 1 --text 'def degree(graph, node): return len(graph[node])' \
        --out docs/attention.png
"""

from __future__ import annotations

import io
import os
import pty
import re
import struct
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 100, 50


def run(command: list[str]) -> str:
    """What the command writes to a terminal; shown while it runs."""
    written = io.BytesIO()
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(COLUMNS=str(COLUMNS), LINES=str(ROWS), TERM="xterm-256color")
        for name in ("NO_COLOR", "CI"):  # with these the console is another
            os.environ.pop(name, None)
        os.execvp(command[0], command)
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    while True:
        try:
            data = os.read(terminal, 65_536)
        except OSError:  # the child closed its side
            break
        if not data:
            break
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        written.write(data)
    os.waitpid(child, 0)
    return written.getvalue().decode()


def lasting(output: str) -> list[str]:
    """The lines that stay: what was drawn over is left out."""
    return [re.split(r"\r|\x1b\[2?K", line.rstrip("\r"))[-1] for line in output.split("\n")]


def main() -> None:
    """Run, draw, write."""
    command = sys.argv[1:] or ["trimtab", "demo"]
    lines = lasting(run(command))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title="trimtab")
    # Fonts from elsewhere are not loaded by a page that shows pictures, and nothing here is to be fetched.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    Path(__file__).with_name("terminal.svg").write_text(svg)


if __name__ == "__main__":
    main()
