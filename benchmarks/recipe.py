"""The default recipe against nanoGPT's: how many tokens until the same validation loss.

    python benchmarks/recipe.py NANOGPT [--store FILE] [--steps 1400] [--part 0/2] [--table]

NANOGPT is a clone of github.com/karpathy/nanoGPT. Both train 4 layers of width 256 with 2 heads (3.1 M parameters in
them) on the demo's text, tokenizer, sequences of 128 and 1,024 tokens a step. nanoGPT: its model.py, and the recipe of
its train.py with what its config/train_shakespeare_char.py says of small models: AdamW, beta2 0.99, 100 steps of
warm-up, cosine to a tenth, weight decay 0.1, clipping at 1, no dropout (less than an epoch is seen), no biases. Ours:
the demo's recipe, and the same with other optimizers. Learning rates are tuned alike, four for each, on seed 9; then
three seeds. Each schedule ends at its own budget. Both are judged on the same sequences, every token counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from trials import Store, Trial, arguments, interval, loss_of

from trimtab.config import load_config
from trimtab.data import PreparedData, prepare_data
from trimtab.trainer import Trainer
from trimtab.training.execution import set_threads

RATES = {
    "nanogpt": (5e-4, 1e-3, 2e-3, 4e-3),
    "adamw": (5e-4, 1e-3, 2e-3, 4e-3),
    "muon": (2e-3, 4e-3, 8e-3, 1.6e-2),
}
PARTS = {"nanogpt": (1.0,), "adamw": (1.0, 0.8, 0.6), "muon": (1.0, 0.8, 0.6, 0.5)}
"""Of nanoGPT's tokens that are spent."""
SEEDS, BATCH, LENGTH = 3, 8, 128


@cache
def data() -> PreparedData:
    """The demo's."""
    config = load_config("demo")
    return prepare_data(config.data, config.task, seed=config.seed, micro_batch_size=BATCH)


def train_ours(trial: Trial) -> dict[str, Any]:
    """The demo's recipe with this optimizer and rate."""
    settings = [
        f"training.steps={trial['steps']}",
        f"optimizer.learning_rate={trial['rate']}",
        f"seed={trial['seed']}",
        f"evaluation.every={trial['steps']}",
        "evaluation.gap_tokens=1024",
        "evaluation.yardsticks=false",
        "evaluation.samples.prompts=[]",
        "stopping={name: none}",
        f"training.threads={trial['threads']}",
    ]
    if trial["recipe"] != "adamw":
        settings.append(f"optimizer.name={trial['recipe']}")
    with tempfile.TemporaryDirectory() as folder:
        result = Trainer(load_config("demo", settings), run=Path(folder) / "run").fit()
    if result.status == "interrupted":
        raise SystemExit(75)
    return {"loss": result.metrics["validation/loss"]}


def train_nanogpt(trial: Trial, folder: Path) -> dict[str, Any]:
    """Its model, its batches, its schedule, its optimizer."""
    set_threads(trial["threads"])
    specification = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["nanogpt_model"] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    torch.manual_seed(1337 + trial["seed"])
    shape = {"n_layer": 4, "n_head": 2, "n_embd": 256, "block_size": LENGTH, "bias": False, "dropout": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        model = module.GPT(module.GPTConfig(vocab_size=data().vocabulary_size, **shape))
        optimizer = model.configure_optimizers(0.1, trial["rate"], (0.9, 0.99), "cpu")
    stream: Any = data().training
    tokens, steps, warmup = stream.tokens, trial["steps"], 100
    for step in range(steps):
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,))
        rows = torch.stack([torch.from_numpy(tokens[i : i + LENGTH + 1].astype(np.int64)) for i in starts])
        if step < warmup:
            rate = trial["rate"] * (step + 1) / (warmup + 1)
        else:
            part = (step - warmup) / max(steps - warmup, 1)
            rate = trial["rate"] * (0.1 + 0.45 * (1 + math.cos(math.pi * part)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            _, loss = model(rows[:, :-1], rows[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {"loss": judge_nanogpt(model)}


@torch.no_grad()
def judge_nanogpt(model: torch.nn.Module) -> float:
    """Nats a token over the whole validation set."""
    model.eval()
    validation, total, count = data().validation, 0.0, 0
    for first in range(0, len(validation), 32):
        batch = validation.batch(np.arange(first, min(first + 32, len(validation))))
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = model(batch.tokens_BT, batch.targets.clamp(min=0))  # without targets it gives the last alone
        losses = functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), reduction="sum")
        total, count = total + float(losses), count + batch.count
    return total / count


def tuning(recipe: str, steps: int, threads: int) -> list[Trial]:
    """Each rate once, at the whole budget."""
    return [{"recipe": recipe, "rate": r, "seed": 9, "steps": steps, "threads": threads} for r in RATES[recipe]]


def judging(recipe: str, part: float, steps: int, threads: int, store: Store) -> list[Trial]:
    """The best rate, for each seed, over a part of the budget."""
    best = min(tuning(recipe, steps, threads), key=lambda trial: loss_of(store.get(trial)))
    return [{**best, "seed": seed, "steps": round(part * steps)} for seed in range(SEEDS)]


def table(steps: int, threads: int, store: Store) -> str:
    """What is known."""
    rows = ["| recipe | tokens, of nanoGPT's | learning rate | validation loss |", "|---|---|---|---|"]
    for recipe, parts in PARTS.items():
        for part in parts:
            trials = judging(recipe, part, steps, threads, store)
            if any(store.get(trial) is None for trial in trials):
                continue
            mean, half = interval([loss_of(store.get(trial)) for trial in trials])
            rows.append(f"| {recipe} | {part:.0%} | {trials[0]['rate']:g} | {mean:.3f} ± {half:.3f} |")
    return "\n".join(rows)


def main() -> None:
    """Tune, judge, print."""
    parser = arguments(__doc__, "recipe.jsonl")
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("recipes", nargs="*", default=list(RATES))
    given = parser.parse_args()
    store = Store(given.store)

    def run(trial: Trial) -> dict[str, Any]:
        return train_nanogpt(trial, given.nanogpt) if trial["recipe"] == "nanogpt" else train_ours(trial)

    if not given.table:
        index, of = map(int, given.part.split("/"))
        for number, recipe in enumerate(given.recipes):
            if number % of == index:
                store.run(tuning(recipe, given.steps, given.threads), run)
                for part in PARTS[recipe]:
                    store.run(judging(recipe, part, given.steps, given.threads, store), run)
    store.read()
    print(table(given.steps, given.threads, store))


if __name__ == "__main__":
    main()
