"""How long `trimtab doctor` takes for a run of 100,000 steps: seconds of the processor, of a process of its own.

    python benchmarks/doctor/long_record.py --repeats 5

Writes the record of such a run (eight metrics in every step, windows of ten) and the same run as a CSV and as a
Hugging Face trainer_state.json with an entry every ten steps, and asks the doctor about each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from trimtab.events import EvaluationEnded, RunStarted, StepsEnded
from trimtab.runs.record import RecordWriter, lines_of

STEPS, WINDOW = 100_000, 10


def metrics(num: int = STEPS) -> dict[str, np.ndarray]:
    """Eight metrics of `num` steps: a run that goes well."""
    generator = np.random.default_rng(0)
    steps = np.arange(1, num + 1)
    noise = generator.standard_normal((3, num))
    return {
        "train/loss": 2.6 + 6.0 * (1 + steps / 50.0) ** -0.6 + 0.06 * noise[0],
        "learning_rate": 1e-3 * np.minimum(1.0, 100 * steps / num) * 0.5 * (1 + np.cos(np.pi * steps / num)),
        "grad_norm": 0.6 + 0.1 * noise[1] ** 2,
        "step_seconds": 0.1 + 0.001 * np.abs(noise[2]),
        "data_seconds": 0.001 + 0.0001 * np.abs(noise[2]),
        "tokens": np.full(num, 4096.0),
        "clipped": (noise[1] > 2.0).astype(float),
        "skipped": np.zeros(num),
    }


def write(folder: Path) -> dict[str, Path]:
    """The run in three forms."""
    columns = metrics()
    run = folder / "run"
    run.mkdir()
    writer = RecordWriter(run / "record.jsonl")
    writer.append(*lines_of(RunStarted(0, 1, 0, None, STEPS)))
    for first in range(1, STEPS + 1, WINDOW):
        part = {name: values[first - 1 : first - 1 + WINDOW] for name, values in columns.items()}
        last = first + WINDOW - 1
        writer.append(*lines_of(StepsEnded(first, last, part, {})))
        if last % 500 == 0:
            loss = float(columns["train/loss"][last - 100 : last].mean()) + 0.1
            writer.append(*lines_of(EvaluationEnded(last, {"validation/loss": loss}, 1.0)))
    writer.close()
    (run / "facts.json").write_text(json.dumps({"schema": 1, "identity": {}}))

    table = folder / "log.csv"
    names = ["step", *columns]
    rows = np.column_stack([np.arange(1, STEPS + 1), *columns.values()])
    np.savetxt(table, rows, delimiter=",", header=",".join(names), comments="", fmt="%.7g")

    history = [
        {"step": int(step), "loss": float(columns["train/loss"][step - 1]), "epoch": step / STEPS,
         "learning_rate": float(columns["learning_rate"][step - 1]), "grad_norm": float(columns["grad_norm"][step - 1])}
        for step in range(10, STEPS + 1, 10)
    ]  # fmt: skip
    state = folder / "trainer_state.json"
    state.write_text(json.dumps({"global_step": STEPS, "max_steps": STEPS, "log_history": history}))
    return {"own record": run, "CSV, every step": table, "trainer_state.json, every tenth": state}


def seconds(path: Path) -> tuple[float, float]:
    """Of the processor, and by the clock."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "trimtab.cli", "doctor", str(path)], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.perf_counter() - begun


def main() -> None:
    """Write, ask, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.keep:
            given.keep.mkdir(parents=True)
        for name, path in write(given.keep or Path(folder)).items():
            times = [seconds(path) for _ in range(given.repeats)]
            used, clock = (statistics.median(part) for part in zip(*times, strict=True))
            print(f"{name}: {used:.2f} s of the processor, {clock:.2f} s by the clock (medians of {given.repeats})")


if __name__ == "__main__":
    main()
