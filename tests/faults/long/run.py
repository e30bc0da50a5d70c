"""Nothing is lost: kills, damage and full disks by the hundred, through the command line; prints a table.

    python tests/faults/long/run.py [--only CASE …] [--short] [--jobs 2] [--out TABLE.md] [--folder DIR]

Each case is a number of tries; `--short` takes a few of each. Exit code 1 when a try failed, and what it saw is told.
Bits, damage and records are judged by judge.py, which knows nothing of trimtab. Needs strace for some cases, and root
for two (a small tmpfs, another user); what cannot be tried is said.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import damage
import kills
import steering
from harness import Outcome, Place


@dataclass(frozen=True)
class Case:
    """A number of tries of one kind."""

    run: Callable[[Place, Iterable[int]], Outcome]
    tries: int
    short: int
    needs: str = ""
    """A program without which it is left out."""
    setting: str = ""
    """A setting without which it is left out."""
    divides: bool = True
    """Whether its tries may be shared between processes."""


CASES = {
    "random-kills": Case(kills.random_kills, 50, 2),
    "one-run": Case(kills.one_run, 10, 3, divides=False),
    "kills-in-a-save": Case(kills.kills_in_a_save, 240, 4, needs="strace"),
    "errors-in-a-save": Case(kills.errors_in_a_save, kills.ERRORS, 2, needs="strace"),
    "polite": Case(kills.polite, 20, 3),
    "two-writers": Case(kills.two_writers, 10, 1),
    "poisoned-batches": Case(steering.poisoned_batches, 10, 1),
    "spikes": Case(steering.spikes, 10, 1, setting="recovery.spikes"),
    "bad-regions": Case(steering.bad_regions, 10, 1, setting="recovery.rollback"),
    "frozen": Case(steering.frozen, 6, 2, setting="training.watchdog_seconds"),
    "damaged-checkpoints": Case(damage.damaged_checkpoints, damage.NUM_DAMAGES, 4),
    "cut-records": Case(damage.cut_records, damage.RECORD_BYTES, 63),
    "torn-shards": Case(damage.torn_shards, 24, 2),
    "full-disks": Case(damage.full_disks, 16, 2, needs="mount"),
    "read-only": Case(damage.read_only, 4, 2),
    "pickles": Case(damage.pickles, 2 * len(damage.NAMES), 2),
}


def part(name: str, short: bool, share: int, jobs: int, folder: Path) -> Outcome:
    """The tries share, share + jobs, … of a case."""
    case = CASES[name]
    tries = list(range(case.short if short else case.tries))
    if short and case.tries > case.short:  # spread over the whole
        tries = [number * case.tries // case.short for number in tries]
    begun = time.monotonic()
    place = Place(folder / f"{name}-{share}", folder / f"cache-{name}-{share}", seed=share)
    outcome = Outcome(name)
    try:
        outcome = case.run(place, tries[share::jobs] if case.divides else tries)
    except Exception:
        outcome.take(False, traceback.format_exc())
    outcome.seconds = time.monotonic() - begun
    shutil.rmtree(place.folder, ignore_errors=not outcome.failures)
    return outcome


def possible(case: Case) -> bool:
    """Whether its program is installed, and this trimtab has its setting."""
    from trimtab.config import Config

    at: type | None = Config
    for name in case.setting.split(".") if case.setting else ():
        field = at.model_fields.get(name) if at is not None and hasattr(at, "model_fields") else None
        if field is None:
            return False
        at = field.annotation
    return not case.needs or shutil.which(case.needs) is not None


def joined(parts: list[Outcome]) -> Outcome:
    whole = parts[0]
    for other in parts[1:]:
        whole.tries, whole.passed = whole.tries + other.tries, whole.passed + other.passed
        whole.failures += other.failures
        whole.seconds = max(whole.seconds, other.seconds)
        whole.counts += other.counts
        whole.note = max(whole.note, other.note)
    return whole


def table(outcomes: list[Outcome]) -> str:
    rows = ["| case | tries | passed | |", "|---|---|---|---|"]
    rows += [f"| {one.case} | {one.tries:,} | {one.passed:,} | {one.told()} |" for one in outcomes]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--short", action="store_true", help="a few tries of each case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    parser.add_argument("--folder", type=Path, help="work here, and keep what failed")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-")) if given.folder is None else given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    left_out = [name for name in given.only if not possible(CASES[name])]
    names = [name for name in given.only if name not in left_out]
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("fork")) as pool:
        shares = {
            name: [
                pool.submit(part, name, given.short, share, given.jobs, folder)
                for share in range(given.jobs if CASES[name].divides else 1)
            ]
            for name in names
        }
        for name, parts in shares.items():
            outcome = joined([one.result() for one in parts])
            outcomes.append(outcome)
            print(
                f"{name}: {outcome.passed} of {outcome.tries} in {outcome.seconds:.0f} s  {outcome.told()}", flush=True
            )
            for failure in outcome.failures[:5]:
                print(f"  FAILED {failure}", flush=True)
    if given.folder is None and not any(one.failures for one in outcomes):
        shutil.rmtree(folder, ignore_errors=True)
    took = time.monotonic() - begun
    head = f"{_versions()}, {datetime.date.today().isoformat()}; {took / 60:.1f} min with {given.jobs} at a time"
    told = "\n".join(
        [table(outcomes), "", head, *(f"left out, for want of a program or a setting: {name}" for name in left_out)]
    )
    print(f"\n{told}")
    if given.out is not None:
        given.out.write_text(told + "\n")
    return 1 if any(one.failures for one in outcomes) else 0


def _versions() -> str:
    import numpy
    import torch

    return f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}"


if __name__ == "__main__":
    sys.exit(main())
