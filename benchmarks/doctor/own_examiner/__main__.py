"""`python -m own_examiner make --into DIR --seed S [--count N] [--set second]`,
then `python -m own_examiner score DIR [--wrong]`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from own_examiner.make import make
from own_examiner.score import score


def main() -> None:
    """One of the two commands."""
    parser = argparse.ArgumentParser(prog="own_examiner", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="train runs that are drawn from a seed")
    making.add_argument("--into", type=Path, required=True)
    making.add_argument("--seed", type=int, required=True)
    making.add_argument("--count", type=int, default=90)
    making.add_argument("--set", choices=("first", "second"), default="first")
    scoring = commands.add_parser("score", help="ask the doctor, and count")
    scoring.add_argument("folder", type=Path)
    scoring.add_argument("--wrong", action="store_true", help="tell of those alone that are wrong")
    given = parser.parse_args()
    if given.command == "make":
        make(given.into, given.seed, given.count, name=given.set)
    else:
        score(given.folder, wrong=given.wrong)


if __name__ == "__main__":
    main()
