"""What putting texts of one length together costs where the target goes with the length, and the padding it saves.

    python benchmarks/bucketing.py [--seeds 3] [--steps 300]

A made worst case: 3,000 descriptions of houses, in bytes, made longer with their price. The padding is also counted,
without training, for 100,000 texts of any length from 5 to 128 tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab import Trainer, load_config
from trimtab.data.order import Order

BUCKETING = (1, 4, 8, 64)
BATCH, MULTIPLE = 32, 8


def write_houses(path: Path, number: int = 3_000) -> None:
    """Rows with a text and a value, the text with a word more for each ninth of a million."""
    draw = random.Random(1)
    with path.open("w") as file:
        for _ in range(number):
            area, rooms, city = draw.randint(20, 300), draw.randint(1, 9), draw.choice(["york", "leeds", "bath"])
            value = area * 2500 * {"york": 1.0, "leeds": 0.8, "bath": 1.4}[city] + rooms * 10_000 + draw.gauss(0, 8000)
            more = max(0, round(value / 1e6 * 9 + draw.gauss(0, 0.7)))
            text = f"{area} m2, {rooms} rooms, {city}" + " yard" * more
            print(json.dumps({"text": text, "value": round(value)}), file=file)


def padding(order: Order, lengths: NDArray[np.int64]) -> float:
    """The part of all positions that is padding, in a pass over the rows."""
    batches = order.sequences_at(np.arange(len(lengths) // BATCH * BATCH)).reshape(-1, BATCH)
    positions = sum(-(-int(lengths[one].max()) // MULTIPLE) * MULTIPLE * BATCH for one in batches)
    return 1.0 - float(lengths[batches].sum()) / positions


def trained(folder: Path, bucketing: int, seed: int, steps: int) -> tuple[float, float]:
    """R² on a fifth of the rows, and the padding."""
    settings = [
        f"data={{source: {{name: jsonl, path: {folder / 'houses.jsonl'}, field: text}}, tokenizer: {{name: bytes}}}}",
        "data.sequence_length=88",
        "data.validation_fraction=0.2",
        "model={num_layers: 2, hidden_size: 64, num_heads: 2}",
        f"training={{steps: {steps}, micro_batch_size: {BATCH}, threads: 1, compile: 'off', device: cpu}}",
        f"evaluation.every={steps}",
        f"task.bucketing={bucketing}",
        f"seed={seed}",
        "stopping.name=none",
    ]
    config = load_config("regression", settings, environment={})
    trainer = Trainer(config, run=folder / f"{bucketing}-{seed}")
    metrics = trainer.fit().metrics
    data = trainer.trained()[1]
    return metrics["validation/r2"], padding(data.order, data.training.lengths)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    lengths = np.random.default_rng(0).integers(5, 129, 100_000)
    widths = -(-lengths // MULTIPLE) * MULTIPLE
    rows = ["| `task.bucketing` | R² | of these padding | of 100,000 texts |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_houses(folder / "houses.jsonl")
        for bucketing in BUCKETING:
            found = [trained(folder, bucketing, seed, given.steps) for seed in range(given.seeds)]
            r2, padded = (float(np.mean(one)) for one in zip(*found, strict=True))
            order = Order(len(lengths), seed=0, lengths=widths, block=BATCH, bucketing=bucketing)
            rows.append(f"| {bucketing} | {r2:.3f} | {padded:.0%} | {padding(order, lengths):.0%} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
