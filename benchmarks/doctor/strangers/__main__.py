"""python -m strangers make --into FOLDER --count 1000 --seed 1 --processes 16 --minutes 8"""

from __future__ import annotations

import argparse
from pathlib import Path

from .make import make

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="strangers", description="Short real training runs with planted faults.")
    command = parser.add_subparsers(dest="command", required=True).add_parser("make")
    command.add_argument("--into", type=Path, required=True)
    command.add_argument("--count", type=int, default=1000)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--processes", type=int, default=16)
    command.add_argument("--minutes", type=float, default=8)
    given = parser.parse_args()
    make(given.into, given.count, given.seed, given.processes, given.minutes)
