"""Makes, scores and packs the bank.

PYTHONPATH=benchmarks/doctor python -m bank make --part tuning --into DIR [--minutes M] [--group trimtab …]
    [--rounds N] [--first ROUND] [--watched]
PYTHONPATH=benchmarks/doctor python -m bank score --part tuning --from DIR [--json FILE] [--wrong] [--watched]
PYTHONPATH=benchmarks/doctor python -m bank cure --from DIR [--only PATTERN] [--seeds 3] [--minutes M] [--json FILE]
PYTHONPATH=benchmarks/doctor python -m bank plan --part tuning
"""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from bank.archive import pack, unpack
from bank.generate import generate
from bank.plan import GROUPS, plan
from bank.scenario import PARTS


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="bank", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make, score, listed, peers = (commands.add_parser(name) for name in ("make", "score", "plan", "peers"))
    for one in (make, score, listed, peers):
        one.add_argument("--part", choices=PARTS, default="tuning")
        one.add_argument("--only", metavar="PATTERN", help="names of runs, as of files: '*nan-loss*'")
    for one in (make, listed):
        one.add_argument("--group", action="append", choices=GROUPS)
        one.add_argument("--rounds", type=int, default=2)
        one.add_argument("--first", type=int, default=0, metavar="ROUND", help="a fresh draw: the rounds from this on")
    make.add_argument("--into", type=Path, required=True, metavar="DIR")
    make.add_argument("--minutes", type=float, default=10.0)
    make.add_argument("--twins", action="store_true", help="the faulty runs of trimtab without their fault, too")
    make.add_argument("--watched", action="store_true", help="with trimtab's callback: huggingface and lightning")
    score.add_argument("--watched", action="store_true", help="what the callback wrote, in place of the logs")
    score.add_argument("--from", type=Path, required=True, metavar="DIR", dest="folder")
    score.add_argument("--json", type=Path, metavar="FILE")
    score.add_argument("--wrong", action="store_true", help="each run that is not right, and what was said of it")
    peers.add_argument("--from", type=Path, required=True, metavar="DIR", dest="folder")
    curing = commands.add_parser("cure")
    curing.add_argument("--from", type=Path, required=True, metavar="DIR", dest="folder")
    curing.add_argument("--only", metavar="PATTERN")
    curing.add_argument("--seeds", type=int, default=3)
    curing.add_argument("--minutes", type=float, default=10.0)
    curing.add_argument("--json", type=Path, metavar="FILE")
    packing, unpacking = commands.add_parser("pack"), commands.add_parser("unpack")
    packing.add_argument("--from", type=Path, required=True, metavar="DIR", dest="folder")
    unpacking.add_argument("--into", type=Path, required=True, metavar="DIR")
    for one in (packing, unpacking):
        one.add_argument("--file", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "peers":
        from bank import peers as others

        print(others.table(others.judge(arguments.folder, arguments.part)))
        return
    if arguments.command == "pack":
        folders = [arguments.folder / part for part in PARTS if (arguments.folder / part).exists()]
        print(f"{pack(folders, arguments.file)} runs, {arguments.file.stat().st_size / 1e6:.1f} MB")
        return
    if arguments.command == "unpack":
        print(f"{len(unpack(arguments.file, arguments.into)['runs'])} runs")
        return
    if arguments.command == "cure":
        from bank.cure import main as cures

        cures(arguments.folder, arguments.only, arguments.seeds, arguments.minutes, arguments.json)
        return
    if arguments.command == "score":
        from bank.score import main as scores

        scores(arguments.folder, arguments.part, arguments.only, arguments.json, arguments.wrong, arguments.watched)
        return
    if arguments.part == "spread" and getattr(arguments, "twins", False):
        parser.error("of the part spread there are no twins: its faults are planted in many ways")
    if getattr(arguments, "watched", False) and not set(arguments.group or GROUPS) <= {"huggingface", "lightning"}:
        parser.error("--watched needs --group huggingface, --group lightning or both: the others have no callback")
    scenarios = plan(arguments.part, arguments.group or GROUPS, arguments.rounds, arguments.first)
    if arguments.only:
        scenarios = tuple(one for one in scenarios if fnmatch.fnmatch(one.name, arguments.only))
    if arguments.command == "plan":
        for one in scenarios:
            print(one.name)
        print(f"{len(scenarios)} runs, {sum(one.code != 'healthy' for one in scenarios)} of them with a fault")
        return
    made = generate(
        scenarios,
        arguments.into,
        minutes=arguments.minutes,
        twins=arguments.twins,
        watched=arguments.watched,
        report=lambda told: print(told, flush=True),
    )
    print(f"{made} runs made")


if __name__ == "__main__":
    main()
