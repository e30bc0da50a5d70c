"""The short form of the long fault tests: a few tries of each case. The long form: `make test-faults`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("long") / "run.py"
QUICK = ("kills-in-a-save", "damaged-checkpoints", "cut-records", "pickles")
"""The others are in the tests beside this one, or in the long form alone."""


def test_a_few_tries_of_each_case(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--short", "--jobs", "1", "--folder", str(tmp_path), "--only", *QUICK]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| ") >= len(QUICK)
