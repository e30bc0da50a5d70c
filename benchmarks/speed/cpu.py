"""Trainers against each other on this processor, in turn: milliseconds a step, spread, and processor time.

    python benchmarks/speed/cpu.py small --rounds 20 ours bare bare-plain hf lightning

Trainers are those of on_cpu.py, and ours:SETTING=VALUE;... Only one trains at a time; each turn is some steps, and the
order is turned around in every round, so that what else the machine does falls on all alike. A ratio is that of two
turns of one round. Rounds in which other programs took much of the processor are seen in the spread, not left out;
--quiet LOAD waits before each round until the machine's load is below it. Processor time with one thread is what others
disturb least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def start(trainer: str, case: str, threads: int, log: Path) -> subprocess.Popen[str]:
    """The process of a trainer."""
    name, _, settings = trainer.partition(":")
    overrides = [part for part in settings.split(";") if part]
    return subprocess.Popen(
        [sys.executable, str(HERE / "on_cpu.py"), name, case, *overrides],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "1000"},
    )


def main() -> None:
    """Start all, let them train in turn, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case")
    parser.add_argument("trainers", nargs="+")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turn", type=int, default=0, help="steps in a turn; 0: the case's own number")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quiet", type=float, default=0.0, help="wait for a load below it, a minute at most; 0: not")
    parser.add_argument("--out", type=Path, default=Path("."))
    given = parser.parse_args()
    from gate import CASES

    turn = given.turn or CASES[given.case]["turn"]
    given.out.mkdir(parents=True, exist_ok=True)
    processes: dict[str, subprocess.Popen[str]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for trainer in given.trainers:
        log = given.out / f"cpu-{given.case}-{''.join(c if c.isalnum() else '-' for c in trainer)[:60]}.log"
        process = start(trainer, given.case, given.threads, log)
        answer = process.stdout.readline()  # type: ignore[union-attr]
        if not answer:
            print(f"{trainer} failed: see {log}")
            continue
        processes[trainer] = process
        rows[trainer] = {"ms": [], "cpu_ms": [], "ready_seconds": json.loads(answer)["ready_seconds"]}
        print(f"{trainer}: ready after {rows[trainer]['ready_seconds']:.0f} s", flush=True)
    loads = []
    for number in range(given.rounds):
        waited = time.monotonic()
        while given.quiet and os.getloadavg()[0] > given.quiet and time.monotonic() - waited < 60:
            time.sleep(2)
        loads.append(os.getloadavg()[0])
        order = list(processes) if number % 2 == 0 else list(processes)[::-1]
        for trainer in order:
            process = processes[trainer]
            process.stdin.write(f"go {turn}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answer = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            rows[trainer]["ms"].append(answer["ms"])
            rows[trainer]["cpu_ms"].append(answer["cpu_ms"])
    for process in processes.values():
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
    text = table(given.case, rows, turn, given.threads, loads)
    print(text)
    stem = given.out / f"cpu-{given.case}"
    stem.with_suffix(".json").write_text(json.dumps({"turn": turn, "loads": loads, "trainers": rows}, indent=1))
    stem.with_suffix(".md").write_text(text)


def table(case: str, rows: dict[str, dict[str, Any]], turn: int, threads: int, loads: list[float]) -> str:
    """Medians, quartiles, and each row's time over that of the first, as the median of the rounds."""
    first = next(iter(rows.values()))
    lines = [
        f"{case}: {len(loads)} rounds of {turn} steps, in turn, {threads} threads; load {min(loads):.1f} to "
        f"{max(loads):.1f}, median {statistics.median(loads):.1f}",
        "",
        "| trainer | ms a step | quartiles | takes … times the first (quartiles) | the same in processor time |",
        "|---|---|---|---|---|",
    ]
    for trainer, row in rows.items():
        low, middle, high = statistics.quantiles(row["ms"], n=4)
        a, b, c = statistics.quantiles([x / y for x, y in zip(row["ms"], first["ms"], strict=True)], n=4)
        p, q, r = statistics.quantiles([x / y for x, y in zip(row["cpu_ms"], first["cpu_ms"], strict=True)], n=4)
        lines.append(
            f"| {trainer} | {middle:.1f} | {low:.1f} to {high:.1f} | {b:.3f} ({a:.3f} to {c:.3f}) "
            f"| {q:.3f} ({p:.3f} to {r:.3f}) |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
