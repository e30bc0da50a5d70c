"""`make demo`, as a newcomer sees it: in a terminal, with Ctrl-C."""

from __future__ import annotations

import os
import pty
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = """#!{python}
import signal, sys, time

def save(number, frame):
    time.sleep(0.3)
    print("saved")
    sys.exit(75)

signal.signal(signal.SIGINT, save)
print("training", flush=True)
time.sleep(30)
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_ctrl_c_in_the_demo_ends_quietly(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").touch()
    (binaries / "trimtab").write_text(DEMO.format(python=sys.executable))
    (binaries / "trimtab").chmod(0o755)
    (tmp_path / ".venv/.core").touch()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execvp("make", ["make", "demo"])
    written = b""
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        if b"training" in block:
            os.write(terminal, b"\x03")
        written += block
    os.waitpid(child, 0)
    os.close(terminal)
    assert b"saved" in written
    assert b"***" not in written
