"""`trimtab train CONFIG ...` on a disk that takes its time: `slowly.py write|report SECONDS CONFIG ...`."""

from __future__ import annotations

import sys
import time
from typing import Any

import trimtab.closing
from trimtab.cli import main
from trimtab.training.checkpoint import keeper

what, seconds = sys.argv[1], float(sys.argv[2])
place, name = {"write": (keeper, "write_snapshot"), "report": (trimtab.closing, "write_report")}[what]
quick = getattr(place, name)


def slow(*arguments: Any) -> Any:
    """What it was, later."""
    print(f"slow {what}", flush=True)
    time.sleep(seconds)
    return quick(*arguments)


setattr(place, name, slow)
sys.argv = ["trimtab", "train", *sys.argv[3:]]
main()
