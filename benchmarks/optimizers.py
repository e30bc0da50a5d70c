"""Every optimizer on the same work: validation loss after equal tokens, at a learning rate tuned with equal trials.

    python benchmarks/optimizers.py [--store FILE] [--part 0/2] [--steps 300] [--width 128] [--batch 8] [--table] [NAME]

A decoder of 4 layers (0.8 M parameters without embeddings at width 128), `batch` x 128 tokens a step, linear decay to
zero (schedule-free: constant).
Rates are tuned on sympy's text: six for each, half a decade apart, from a tenth to thirty times the default. The best
then trains on networkx's and mpmath's text, which no rate was tuned on, with three seeds. Everything else is the
optimizer's default. Losses do not depend on what else the machine does; the seconds of a run do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from trials import Store, Trial, arguments, interval, loss_of

from trimtab.config import load_config
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.errors import TrimtabError
from trimtab.trainer import Trainer

SEEDS = 3
TUNING, JUDGING = ["sympy"], ["networkx", "mpmath"]
MORE = {"soap": ", max_side: 2048"}  # the embedding's 4,096 rows would take 13 times the time
EXPONENTS = (-2, -1, 0, 1, 2, 3)
MODEL = (
    "{{name: decoder, num_layers: 4, hidden_size: {width}, num_heads: 2, activation: relu_squared, qk_norm: true, "
    "norm: {{name: rms_norm}}, positions: {{name: rotary}}, initialization: {{standard_deviation: 0.05}}}}"
)


def run(trial: Trial) -> dict[str, Any]:
    """One training; the validation loss at its end, and milliseconds a step."""
    name, steps = trial["optimizer"], trial["steps"]
    schedule = "constant" if name == "schedule_free_adamw" else "linear"
    settings = [
        f"optimizer={{name: {name}, learning_rate: {trial['rate']}{MORE.get(name, '')}}}",
        f"schedule={{name: {schedule}, warmup: 0.05}}",
        f"data.source.packages={trial['packages']}",
        f"seed={trial['seed']}",
        f"training.steps={steps}",
        f"model={MODEL.format(width=trial['width'])}",
        "data.sequence_length=128",
        f"data.validation_fraction={trial['held_out']}",
        "data.tokenizer={name: bpe, vocabulary_size: 4096, training_bytes: 3_000_000}",
        f"training={{micro_batch_size: {trial['batch']}, compile: 'off', threads: 1, precision: {{name: auto}}}}",
        f"evaluation={{every: {steps}, batch_size: 32, gap_tokens: 1024, yardsticks: false, samples: {{prompts: []}}}}",
        "stopping={name: none}",
        "checkpoint={every: 1000000}",
    ]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = Trainer(load_config("gpt-1m", settings), run=Path(folder) / "run").fit()
        except TrimtabError as error:
            return {"loss": None, "error": str(error).splitlines()[0]}
    if result.status == "interrupted":
        raise SystemExit(75)
    loss = result.metrics.get("validation/loss")
    return {"loss": loss, "seconds": round(time.perf_counter() - begun, 1)}


def tuning(name: str, given: argparse.Namespace) -> list[Trial]:
    """The rates to try: half a decade apart, around the optimizer's own default."""
    default = load_config("gpt-1m", [f"optimizer={{name: {name}}}"]).optimizer.learning_rate
    rates = [float(f"{default * 10 ** (exponent / 2):.3g}") for exponent in EXPONENTS]
    size = {"steps": given.steps, "width": given.width, "batch": given.batch}
    return [
        {"optimizer": name, "rate": rate, "seed": 0, **size, "packages": TUNING, "held_out": 0.01} for rate in rates
    ]


def judging(name: str, given: argparse.Namespace, store: Store) -> list[Trial]:
    """The best rate, on other text, with every seed."""
    best = min(tuning(name, given), key=lambda trial: loss_of(store.get(trial)))
    return [{**best, "seed": seed, "packages": JUDGING, "held_out": 0.05} for seed in range(SEEDS)]


def table(names: list[str], given: argparse.Namespace, store: Store) -> str:
    """What is known, the best first."""
    rows = []
    for name in names:
        tried = tuning(name, given)
        results = [store.get(trial) for trial in judging(name, given, store)]
        if any(store.get(trial) is None for trial in tried) or None in results:
            continue
        mean, half = interval([loss_of(result) for result in results])
        best = min(tried, key=lambda trial: loss_of(store.get(trial)))
        edge = " (at the edge)" if best in (tried[0], tried[-1]) else ""
        seconds = min(result["seconds"] for result in results if result)
        rows.append((mean, f"| {name} | {best['rate']:g}{edge} | {mean:.3f} ± {half:.3f} | {seconds:.0f} |"))
    head = ["| optimizer | learning rate | validation loss | seconds, the quickest |", "|---|---|---|---|"]
    return "\n".join([*head, *(row for _, row in sorted(rows))])


def main() -> None:
    """Tune, judge, print."""
    parser = arguments(__doc__, "optimizers.jsonl")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    names = given.names or [name for name in OPTIMIZERS if name != "custom"]
    index, of = map(int, given.part.split("/"))
    store = Store(given.store)
    if not given.table:
        for number, name in enumerate(names):  # an optimizer is one process's: what it judges needs what it tuned
            if number % of == index:
                store.run(tuning(name, given), run)
                store.run(judging(name, given, store), run)
    store.read()
    print(table(names, given, store))


if __name__ == "__main__":
    main()
