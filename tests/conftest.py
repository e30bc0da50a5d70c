"""What all tests share: the shell finds trimtab, as in an activated environment."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def pytest_collection_finish() -> None:
    """What was collected lives to the end: searching it for garbage in every run would take most of a small run."""
    gc.collect()
    gc.freeze()
