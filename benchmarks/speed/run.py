"""Trainers against each other on one GPU, in turn: milliseconds a step, spread, and peak memory.

    python benchmarks/speed/run.py 124m --nanogpt FOLDER --rounds 10 ours nanogpt lightning

Trainers: ours, ours:SETTING=VALUE;..., nanogpt, nanogpt-eager, lightning, hf, hf-compiled, litgpt, litgpt:bf16-true,
bare, and Hugging Face's GPT-2 by our trainer: ours-hf, ours-hf:SETTING=VALUE;.... All stay in memory, so they must fit
together. Writes JSON and a Markdown table to --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def command(trainer: str, case: str, nanogpt: str) -> list[str]:
    """The process of a trainer."""
    name, _, settings = trainer.partition(":")
    match name:
        case "ours":
            arguments = ["ours.py", case, *(part for part in settings.split(";") if part)]
        case "nanogpt":
            arguments = ["nanogpt.py", case, nanogpt]
        case "nanogpt-eager":
            arguments = ["nanogpt.py", case, nanogpt, "--compile=False"]
        case "lightning":
            arguments = ["pytorch_lightning.py", case, nanogpt]
        case "ours-hf":
            arguments = ["huggingface_model.py", case, *(part for part in settings.split(";") if part)]
        case "hf":
            arguments = ["huggingface.py", case]
        case "hf-compiled":
            arguments = ["huggingface.py", case, "compile"]
        case "litgpt":
            arguments = ["lit_gpt.py", case, *settings.split()]
        case "bare":
            arguments = ["bare.py", case]
        case _:
            raise SystemExit(f"no such trainer: {trainer}")
    return [sys.executable, str(HERE / arguments[0]), *arguments[1:]]


def main() -> None:
    """Start all, let them train in turn, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case")
    parser.add_argument("trainers", nargs="+")
    parser.add_argument("--nanogpt", default="nanoGPT")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--turn", type=int, default=0, help="steps in a turn; 0: the case's own number")
    parser.add_argument("--out", type=Path, default=Path("."))
    given = parser.parse_args()
    from gate import CASES

    turn = given.turn or CASES[given.case]["turn"]
    given.out.mkdir(parents=True, exist_ok=True)
    logs = {trainer: (given.out / f"{_slug(given.case, trainer)}.log").open("w") for trainer in given.trainers}
    processes = {
        trainer: subprocess.Popen(
            command(trainer, given.case, given.nanogpt),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=logs[trainer],
            text=True,
        )
        for trainer in given.trainers
    }
    rows: dict[str, dict[str, Any]] = {}
    for trainer in list(processes):
        answer = processes[trainer].stdout.readline()  # type: ignore[union-attr]
        if not answer:
            print(f"{trainer} failed: see {logs[trainer].name}")
            del processes[trainer]
            continue
        rows[trainer] = {"ms": [], **json.loads(answer)}
        print(f"{trainer}: ready after {rows[trainer]['ready_seconds']:.0f} s", flush=True)
    for number in range(given.rounds):
        order = list(processes) if number % 2 == 0 else list(processes)[::-1]
        for trainer in order:
            process = processes[trainer]
            process.stdin.write(f"go {turn}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answer = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            rows[trainer]["ms"].append(answer.pop("ms"))
            rows[trainer] |= answer
    for process in processes.values():
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
    if not rows:
        raise SystemExit("no trainer came to train")
    text = table(given.case, rows, turn)
    print(text)
    stem = _slug(given.case, given.trainers[-1])
    (given.out / f"{stem}.json").write_text(json.dumps({"case": given.case, "turn": turn, "trainers": rows}, indent=1))
    (given.out / f"{stem}.md").write_text(text)


def table(case: str, rows: dict[str, dict[str, Any]], turn: int) -> str:
    """Medians, quartiles, and each row's time over that of the first, as the median of the rounds."""
    first = next(iter(rows.values()))["ms"]
    lines = [
        f"{case}: {len(first)} rounds of {turn} steps, in turn",
        "",
        "| trainer | ms a step | quartiles | takes … times the first (quartiles) | reserved, allocated GB |",
        "|---|---|---|---|---|",
    ]
    for trainer, row in rows.items():
        low, middle, high = statistics.quantiles(row["ms"], n=4)
        a, b, c = statistics.quantiles([ours / theirs for ours, theirs in zip(row["ms"], first, strict=True)], n=4)
        lines.append(
            f"| {trainer} | {middle:.3f} | {low:.3f} to {high:.3f} | {b:.4f} ({a:.4f} to {c:.4f}) "
            f"| {row.get('reserved_gb', 0.0):.1f}, {row.get('allocated_gb', 0.0):.1f} |"
        )
    return "\n".join(lines) + "\n"


def _slug(case: str, trainer: str) -> str:
    return f"{case}-" + "".join(letter if letter.isalnum() else "-" for letter in trainer)[:60]


if __name__ == "__main__":
    main()
