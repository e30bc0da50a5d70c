"""What a run is made of, and how a careful stranger would choose it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

WORDS = ("dyck", "sums", "source", "grammar", "walk")
TASKS = {
    "lm": WORDS,
    "mlm": ("source", "grammar", "walk", "dyck"),
    "cls": ("chains", "module", "majority", "mixture", "shapes", "sets", "waves"),
    "tag": ("depth", "tokens", "states"),
    "s2s": ("reverse", "sort", "add"),
    "reg": ("tabular", "forecast", "spread"),
}
"""Tasks by their kind."""
FLOATS = ("mixture", "shapes", "sets", "waves", "tabular", "forecast", "spread")
FIELD = {
    "lm": "causal_lm",
    "mlm": "masked_lm",
    "cls": "classification",
    "tag": "token_classification",
    "s2s": "seq2seq",
    "reg": "regression",
}
"""The kinds by their names in the field."""
HF_NETS = {"lm": ("gpt2", "llama"), "s2s": ("gpt2", "llama")}
VOICES = ("nanogpt", "kerastext", "kerascsv", "wandb", "wandbtable", "jsonl", "logging", "titan", "examples")
BY_EPOCH = ("kerastext", "kerascsv")


@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on."""

    seed: int
    engine: str
    voice: str
    kind: str
    task: str
    net: str
    width: int
    depth: int
    optimizer: str
    lr: float
    batch: int
    steps: int
    rows: int = 6000
    held: int = 512
    """Samples of validation."""
    length: int = 32
    dropout: float = 0.0
    norm: str = "pre"
    act: str = "gelu"
    wd: float = 0.01
    clip: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.05
    floor: float = 0.0
    smoothing: float = 0.0
    accumulate: int = 1
    log_every: int = 10
    eval_every: int = 50
    average: bool = True
    columns: tuple[str, ...] = ("lr", "gnorm", "acc")
    plant: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Recipe:
        """The same with changes; `plant` is added to."""
        plant = {**self.plant, **changes.pop("plant", {})}
        return replace(self, plant=plant, **changes)

    def has(self, *columns: str) -> Recipe:
        """With these columns logged."""
        return replace(self, columns=tuple(dict.fromkeys((*self.columns, *columns))))


def draw(rng: Random, engines: tuple[str, ...], kinds: tuple[str, ...], voices: tuple[str, ...] = VOICES) -> Recipe:
    """A sound recipe of one of these kinds for one of these engines ("plain", "hf", "csv", "tb")."""
    engine = rng.choice(engines)
    kind = rng.choice(kinds)
    task = rng.choice(TASKS[kind])
    flat = task in FLOATS
    if task == "shapes":
        net = "cnn"
    elif task in ("sets", "spread"):
        net = "set"
    elif flat:
        net = rng.choice(("mlp", "mlp", "gru")) if task in ("waves", "forecast") else "mlp"
    elif engine == "hf":
        net = rng.choice(HF_NETS.get(kind, ("bert", "distilbert", "electra")))
    else:
        net = rng.choice(("transformer", "transformer", "gru", "lstm")) if kind != "mlm" else "transformer"
    slow = net in ("transformer", "gru", "lstm") or not flat
    steps = rng.randrange(200, 300, 20) if engine == "hf" or slow else rng.randrange(400, 1000, 50)
    if engine == "plain" and slow:
        steps = rng.randrange(320, 480, 20)
    optimizer = rng.choice(("adamw", "adamw", "adam")) if slow else rng.choice(("adamw", "adam", "sgd"))
    lr = {"adamw": rng.uniform(1.5e-3, 3e-3), "adam": rng.uniform(1e-3, 3e-3), "sgd": rng.uniform(0.03, 0.08)}[
        optimizer
    ]
    if net in ("gru", "lstm"):
        lr *= 2.5
    every = rng.choice((1, 2, 5, 10)) if engine != "hf" else rng.choice((1, 5, 10))
    columns = [one for one in ("lr", "gnorm", "acc", "dt") if rng.random() < 0.65]
    return Recipe(
        rng.randrange(1 << 30),
        engine,
        rng.choice(voices) if engine == "plain" else engine,
        kind,
        task,
        net,
        rng.choice((32, 40, 48)) if slow else rng.choice((48, 64, 96)),
        2 if slow else rng.choice((2, 3)),
        optimizer,
        float(f"{lr:.2g}"),
        rng.choice((16, 24, 32)) if slow else rng.choice((32, 64, 100)),
        steps,
        rows=rng.randrange(5000, 9000, 250),
        held=rng.choice((300, 400, 512)),
        length=rng.choice((20, 24, 32)),
        dropout=rng.choice((0.0, 0.0, 0.05, 0.1)),
        schedule=rng.choice(("cosine", "linear", "wsd", "cosine", "onecycle")),
        warmup=rng.choice((0.05, 0.1)),
        wd=rng.choice((0.01, 0.05, 0.1)) if optimizer == "adamw" else 0.0,
        log_every=every,
        eval_every=max(every, steps // rng.choice((10, 12, 16, 20)) // every * every),
        average=rng.random() < 0.6,
        columns=tuple(columns),
    )
