"""`python -m examiner make --into FOLDER`, `python -m examiner score FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="examiner")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make", help="trains runs with planted faults, and sound ones")
    made.add_argument("--into", type=Path, required=True)
    made.add_argument("--count", type=int, default=220)
    made.add_argument("--seed", type=int, default=7)
    made.add_argument("--processes", type=int, default=1)
    made.add_argument("--minutes", type=float, default=8.0)
    marked = commands.add_parser("score", help="how the doctor fares on them")
    marked.add_argument("folder", type=Path)
    marked.add_argument("--json", type=Path)
    marked.add_argument("--wrong", action="store_true", help="name the runs that were judged wrongly")
    given = parser.parse_args()
    if given.command == "make":
        from examiner.maker import make

        print(make(given.into, given.count, given.seed, given.processes, given.minutes), "runs")
    else:
        from examiner.marks import score

        score(given.folder, given.json, given.wrong)


if __name__ == "__main__":
    main()
