"""The default recipe against nanoGPT's: how many tokens, and how much time, until the same validation loss.

    python benchmarks/recipe.py CASE NANOGPT [--store FILE] [--part 0/3] [--table] [RECIPE ...]

NANOGPT is a clone of github.com/karpathy/nanoGPT. CASE is `small` (4 layers of width 256, 1,024 tokens a step: an hour
of two cores), `10m` or `124m` (a GPU). Both train the same number of layers, width, text, tokenizer, sequences and
tokens a step. nanoGPT: its model.py (compiled on a GPU), and the recipe of its train.py with what its
config/train_shakespeare_char.py says of small models: AdamW, beta2 0.99 (0.95 at 124m), warm-up, cosine to a tenth,
weight decay 0.1, clipping at 1, no dropout, no biases. Ours: the demo's recipe, and the same with other optimizers.
Learning rates are tuned alike, on a seed (and at 124m a fifth of the steps) that judges nothing. Each schedule ends at
its own budget. Both are judged on the same sequences, every token counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from trials import Store, Trial, arguments, interval, loss_of

from trimtab.config import Config, load_config
from trimtab.data import PreparedData, prepare_data
from trimtab.trainer import Trainer
from trimtab.training.execution import set_threads

# What the GPU machine has; those that are not there are left out.
PACKAGES = [
    "torch", "transformers", "jax", "jaxlib", "scipy", "sklearn", "sympy", "networkx", "mpmath", "numpy", "pandas",
    "matplotlib", "botorch", "gpytorch", "numpyro", "torchvision", "torchaudio", "torch_geometric", "accelerate",
    "sentence_transformers", "onnx", "onnxruntime", "onnxscript", "triton", "cupy", "lightning", "pytorch_lightning",
    "torchmetrics", "huggingface_hub", "flax", "optax", "IPython", "pip", "setuptools",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What both train."""

    layers: int
    width: int
    heads: int
    own_heads: int
    """Of width 128, which costs less time on a GPU; the number of parameters is the same."""
    length: int
    batch: int
    steps: int
    tuning_steps: int
    vocabulary: int
    rates: dict[str, tuple[float, ...]]
    parts: dict[str, tuple[float, ...]]
    """Of nanoGPT's tokens that are spent."""
    seeds: int = 3
    beta2: float = 0.99
    standard_deviation: float = 0.05


CASES = {
    "small": Case(
        4, 256, 2, 2, 128, 8, 1400, 1400, 8192,
        {"nanogpt": (5e-4, 1e-3, 2e-3, 4e-3), "adamw": (5e-4, 1e-3, 2e-3, 4e-3), "muon": (2e-3, 4e-3, 8e-3, 1.6e-2)},
        {"nanogpt": (1.0,), "adamw": (1.0, 0.8, 0.6), "muon": (1.0, 0.8, 0.6, 0.5)},
    ),
    "10m": Case(
        6, 384, 6, 3, 256, 64, 1500, 1500, 8192,
        {"nanogpt": (1e-3, 2e-3, 4e-3, 8e-3), "adamw": (1e-3, 2e-3, 4e-3, 8e-3), "muon": (4e-3, 8e-3, 1.6e-2, 3.2e-2)},
        {"nanogpt": (1.0,), "adamw": (1.0, 0.8, 0.6), "muon": (1.0, 0.6, 0.5, 0.4)},
    ),
    "124m": Case(
        12, 768, 12, 6, 1024, 32, 1500, 300, 32_768,
        {"nanogpt": (6e-4, 1.2e-3, 2.4e-3), "muon": (2e-3, 4e-3, 8e-3)},
        {"nanogpt": (1.0,), "muon": (0.5, 0.4, 0.3)},
        seeds=1, beta2=0.95, standard_deviation=0.02,
    ),
}  # fmt: skip


def config_of(case: Case, *settings: str) -> Config:
    """The demo's recipe in this shape."""
    shape = [
        f"model.num_layers={case.layers}",
        f"model.hidden_size={case.width}",
        f"model.num_heads={case.own_heads}",
        f"model.initialization.standard_deviation={case.standard_deviation}",
        f"data.sequence_length={case.length}",
        f"data.tokenizer.vocabulary_size={case.vocabulary}",
        f"training.micro_batch_size={case.batch}",
        f"optimizer.beta2={case.beta2}",
        "evaluation.gap_tokens=1024",
        "evaluation.yardsticks=false",
        "evaluation.samples.prompts=[]",
        "stopping={name: none}",
        "checkpoint.every=1000000",
    ]
    if case is not CASES["small"]:
        there = [name for name in PACKAGES if importlib.util.find_spec(name) is not None]
        shape += [f"data.source.packages=[{', '.join(there)}]", "data.validation_fraction=0.01"]
        shape += ["training={precision: {name: bf16}, compile: whole}", "data.tokenizer.training_bytes=30_000_000"]
    return load_config("demo", [*shape, *settings])


@cache
def data(name: str) -> PreparedData:
    """The same for both."""
    config = config_of(CASES[name])
    return prepare_data(config.data, config.task, seed=config.seed, micro_batch_size=CASES[name].batch)


class Clock:
    """Takes down when windows of steps ended."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def observe(self, event: Any) -> None:
        """Of one kind."""
        if type(event).__name__ in ("StepsEnded", "EvaluationEnded"):
            self.seconds.append(time.perf_counter())


def train_ours(trial: Trial) -> dict[str, Any]:
    """The demo's recipe with this optimizer and rate."""
    settings = [
        f"training.steps={trial['steps']}",
        f"optimizer.learning_rate={trial['rate']}",
        f"seed={trial['seed']}",
        f"evaluation.every={trial['steps']}",
        f"training.threads={trial['threads']}",
    ]
    if trial["recipe"] != "adamw":
        settings.append(f"optimizer.name={trial['recipe']}")
    clock, begun = Clock(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(CASES[trial["case"]], *settings)
        result = Trainer(config, run=Path(folder) / "run", monitors=[clock]).fit()
    if result.status == "interrupted":
        raise SystemExit(75)
    return {
        "loss": result.metrics["validation/loss"],
        "seconds": clock.seconds[-1] - clock.seconds[0],
        "whole_seconds": time.perf_counter() - begun,
    }


def train_nanogpt(trial: Trial, folder: Path) -> dict[str, Any]:
    """Its model, its batches, its schedule, its optimizer."""
    set_threads(trial["threads"])
    case, begun = CASES[trial["case"]], time.perf_counter()
    specification = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["nanogpt_model"] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1337 + trial["seed"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    shape = {"n_layer": case.layers, "n_head": case.heads, "n_embd": case.width, "block_size": case.length}
    with contextlib.redirect_stdout(io.StringIO()):
        size = data(trial["case"]).vocabulary_size
        model = module.GPT(module.GPTConfig(vocab_size=size, bias=False, dropout=0.0, **shape)).to(kind)
        optimizer = model.configure_optimizers(0.1, trial["rate"], (0.9, case.beta2), kind)
    running = torch.compile(model) if kind == "cuda" else model
    stream: Any = data(trial["case"]).training
    tokens, steps, warmup, seconds = stream.tokens, trial["steps"], 100, 0.0

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(tokens) - case.length, (case.batch,))
        rows = torch.stack([torch.from_numpy(tokens[i : i + case.length + 1].astype(np.int64)) for i in starts])
        x, y = rows[:, :-1], rows[:, 1:].contiguous()
        if kind == "cpu":
            return x, y
        return x.pin_memory().to(kind, non_blocking=True), y.pin_memory().to(kind, non_blocking=True)

    x, y = batch()
    for step in range(steps):
        if step < warmup:
            rate = trial["rate"] * (step + 1) / (warmup + 1)
        else:
            part = (step - warmup) / max(steps - warmup, 1)
            rate = trial["rate"] * (0.1 + 0.45 * (1 + math.cos(math.pi * part)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(kind, torch.bfloat16):
            _, loss = running(x, y)
        x, y = batch()  # while the device computes
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step == 0:
            loss.item()
            seconds = -time.perf_counter()
    loss.item()
    seconds += time.perf_counter()
    whole = time.perf_counter() - begun
    return {"loss": judge_nanogpt(model, trial["case"]), "seconds": seconds, "whole_seconds": whole}


@torch.no_grad()
def judge_nanogpt(model: torch.nn.Module, name: str) -> float:
    """Nats a token over the whole validation set."""
    model.eval()
    kind = next(model.parameters()).device
    validation, total, count = data(name).validation, 0.0, 0
    for first in range(0, len(validation), 32):
        batch = validation.batch(np.arange(first, min(first + 32, len(validation)))).to(kind)
        with torch.autocast(kind.type, torch.bfloat16):
            logits, _ = model(batch.tokens_BT, batch.targets.clamp(min=0))  # without targets it gives the last alone
        losses = functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), reduction="sum")
        total, count = total + float(losses), count + batch.count
    return total / count


def tuning(name: str, recipe: str, threads: int) -> list[Trial]:
    """Each rate once."""
    case = CASES[name]
    return [
        {"case": name, "recipe": recipe, "rate": rate, "seed": 9, "steps": case.tuning_steps, "threads": threads}
        for rate in case.rates[recipe]
    ]


def judging(name: str, recipe: str, part: float, threads: int, store: Store) -> list[Trial]:
    """The best rate, for each seed, over a part of the budget."""
    best = min(tuning(name, recipe, threads), key=lambda trial: loss_of(store.get(trial)))
    steps = round(part * CASES[name].steps)
    return [{**best, "seed": seed, "steps": steps} for seed in range(CASES[name].seeds)]


def table(name: str, threads: int, store: Store) -> str:
    """What is known."""
    rows = [
        "| recipe | tokens, of nanoGPT's | learning rate | validation loss | seconds of steps | in all |",
        "|---|---|---|---|---|---|",
    ]
    for recipe, parts in CASES[name].parts.items():
        for part in parts:
            trials = judging(name, recipe, part, threads, store)
            results = [store.get(trial) for trial in trials]
            if any(result is None for result in results):
                continue
            losses = [loss_of(result) for result in results]
            mean, half = interval(losses) if len(losses) > 1 else (losses[0], math.nan)
            spread = f" ± {half:.3f}" if len(losses) > 1 else ""
            quickest = min((result for result in results if result), key=lambda result: result["seconds"])
            rows.append(
                f"| {recipe} | {part:.0%} | {trials[0]['rate']:g} | {mean:.3f}{spread} | {quickest['seconds']:.1f} "
                f"| {quickest['whole_seconds']:.1f} |"
            )
    return "\n".join(rows)


def main() -> None:
    """Tune, judge, print."""
    parser = arguments(__doc__, "recipe.jsonl")
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("recipes", nargs="*")
    given = parser.parse_args()
    store, case = Store(given.store), CASES[given.case]

    def run(trial: Trial) -> dict[str, Any]:
        return train_nanogpt(trial, given.nanogpt) if trial["recipe"] == "nanogpt" else train_ours(trial)

    if not given.table:
        index, of = map(int, given.part.split("/"))
        for number, recipe in enumerate(given.recipes or case.rates):
            if number % of == index:
                store.run(tuning(given.case, recipe, given.threads), run)
                for part in case.parts[recipe]:
                    store.run(judging(given.case, recipe, part, given.threads, store), run)
        tokens = getattr(data(given.case).training, "num_tokens", 0)
        print(f"text: {tokens:,} tokens, seen {case.steps * case.batch * case.length / max(1, tokens):.2f} times")
    store.read()
    print(table(given.case, given.threads, store))


if __name__ == "__main__":
    main()
