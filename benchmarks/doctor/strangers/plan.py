# ruff: noqa: E501
"""What a run is set to, sound as it is drawn: faults change a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .data import Data, tasks


@dataclass
class Plan:
    """Settings, and below them what only faults and oddities set."""

    seed: int
    task: str
    kind: str
    inputs: str
    n: int
    valid: int
    family: str
    width: int
    depth: int
    norm: str
    act: str
    drop: float
    post: bool
    residual: bool
    optimizer: str
    rate: float
    decay: float
    clip: float
    schedule: str
    warmup: int
    steps: int
    batch: int
    smoothing: float
    evaluations: int
    every: int
    momentum: float = 0.9

    # What is done to data, model, batches, rates and gradients, in the order in which a step meets it
    of_data: list[Callable[[Data, np.random.RandomState], Data]] = field(default_factory=list)
    of_model: list[Callable[[Any], None]] = field(default_factory=list)
    of_batch: list[Callable[..., Any]] = field(default_factory=list)
    of_rate: list[Callable[[int, float], float]] = field(default_factory=list)
    of_gradient: list[Callable[..., None]] = field(default_factory=list)
    after: list[Callable[..., None]] = field(default_factory=list)
    order: str = "shuffled"
    horizon: float = 1.0
    peek: bool = False
    no_positions: bool = False
    frozen: tuple[str, ...] = ()
    softmax: str = ""
    times: float = 1.0
    """What the loss is multiplied by, as one that is summed over parts is."""
    tells_times: bool = False
    clear_every: int = 1
    training_mode: bool = False
    drawn_valid: int = 0
    """So many samples are drawn anew for each evaluation."""
    class_weights: Any = None
    sample_weights: Any = None
    robust: bool = False
    scaled: bool = False
    """There is a loss scale, as with half precision."""
    teacher: bool = False
    second_task: float = 0.0
    penalty: Callable[[int], float] | None = None
    averaged: float = 0.0
    warm_start: int = 0
    ends_at: int = 0
    """The step at which the log was cut, because the run still goes on."""
    clock: dict[str, float] = field(default_factory=dict)
    layers: bool = False

    def copy(self, **changes: Any) -> Plan:
        lists = ("of_data", "of_model", "of_batch", "of_rate", "of_gradient", "after")
        own = {name: list(getattr(self, name)) for name in lists} | {"clock": dict(self.clock)}
        return replace(self, **{**own, **changes})


RATES = {"trf": (1.5e-3, 4e-3), "gru": (4e-3, 1e-2), "lstm": (4e-3, 1e-2), "cnn": (2e-3, 6e-3), "mlp": (2e-3, 6e-3)}
"""For Adam at a batch of 32, lowest and highest."""
OPTIMIZERS = ("adamw", "adamw", "adam", "adam", "rmsprop", "sgd", "sgd", "nadam")
SCHEDULES = ("cosine", "cosine", "linear", "wsd", "step", "rsqrt", "restarts", "constant", "onecycle")


def draw(
    rng: np.random.RandomState, kinds: tuple[str, ...] = (), only: Callable[[str, Any], bool] | None = None
) -> Plan:
    """A sound plan, for a task of one of these kinds."""
    table = {k: t for k, t in tasks().items() if (not kinds or t.kind in kinds) and (only is None or only(k, t))}
    groups = sorted({(t.kind, t.inputs) for t in table.values()})
    group = groups[rng.randint(len(groups))]
    name = str(rng.choice([k for k, t in table.items() if (t.kind, t.inputs) == group]))
    task = table[name]
    sequence = task.inputs == "tokens"
    if name == "neighbours":
        family = "mlp"
    elif sequence:
        family = str(rng.choice(["trf", "trf", "gru", "lstm", "cnn"] + (["mlp"] if task.kind == "cls" else [])))
    else:
        family = {
            "vector": "mlp",
            "image": str(rng.choice(["cnn", "cnn", "mlp"])),
            "series": str(rng.choice(["gru", "cnn", "mlp"])),
        }[task.inputs]
    slow = family != "mlp"
    width = int(rng.choice([24, 32, 48] if slow else [32, 48, 64, 96]))
    if family == "trf":
        width = 32
    if task.inputs == "image" and family == "cnn":
        width = int(rng.choice([16, 24, 32]))
    depth = {"trf": 2, "gru": 1, "lstm": 1, "cnn": 2, "mlp": int(rng.choice([1, 2, 3]))}[family]
    optimizer = str(rng.choice(OPTIMIZERS))
    batch = round(2 ** rng.uniform(*((3, 5.2) if slow else (3.5, 9))))
    low, high = RATES[family]
    rate = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * float(np.clip((batch / 32) ** 0.5, 0.6, 2))
    if family == "mlp" and sequence:
        rate *= 2
    if optimizer == "rmsprop":
        rate *= 0.4
    if optimizer == "sgd":
        rate = (
            float(rng.uniform(0.03, 0.08))
            * float(np.clip(batch / 32, 0.7, 2))
            * (5 if family in ("gru", "lstm", "trf") else 1)
        )
        if task.kind == "reg":
            rate *= 0.3
    most = (340 if family in ("trf", "lstm", "gru") else 420) if slow else 1400
    steps = int(rng.randint(int(most * 0.55), most)) if batch <= 128 else int(rng.randint(300, 700))
    return Plan(
        seed=int(rng.randint(2**31 - 1)), task=name, kind=task.kind, inputs=task.inputs,
        n=task.many if not slow else min(task.many, 6000), valid=int(rng.choice([150, 250] if slow else [400, 800])),
        family=family, width=width, depth=depth,
        norm=str(rng.choice(["none", "none", "layer", "batch"] if batch >= 32 else ["none", "layer"])) if not sequence else "none",
        act=str(rng.choice(["relu", "relu", "gelu", "silu", "tanh"])), drop=float(rng.choice([0, 0, 0, 0.05, 0.1])) if task.kind != "reg" else 0.0,
        post=bool(rng.rand() < 0.2), residual=bool(rng.rand() < 0.4), optimizer=optimizer, rate=float(f"{rate:.2g}"),
        decay=float(rng.choice([0, 1e-4, 0.01, 0.1] if optimizer == "adamw" else [0, 0, 1e-5, 1e-4])),
        clip=float(rng.choice([0, 1, 1, 5])) if family not in ("gru", "lstm") or optimizer != "sgd" else 1.0,
        schedule=str(rng.choice(SCHEDULES if family != "trf" else SCHEDULES[:5])),
        warmup=int(steps * rng.choice([0.03, 0.06, 0.1])) if family == "trf" or rng.rand() < 0.5 else 0,
        steps=steps, batch=batch, smoothing=float(rng.choice([0, 0, 0, 0, 0.1])) if task.kind in ("lm", "cls", "tag") else 0.0,
        evaluations=round(2 ** rng.uniform(2.3, 5)), every=int(rng.choice([1, 2, 5, 10, 10, 20, 25, 50])),
    )  # fmt: skip


def factor(plan: Plan, step: int) -> float:
    """What the rate is multiplied by at a step, counted from zero."""
    if plan.warmup and step < plan.warmup:
        return (step + 1) / plan.warmup
    q = min(1.0, (step - plan.warmup) / max(1.0, plan.horizon * plan.steps - plan.warmup))
    half = 0.5 * (1 + np.cos(np.pi * q))
    table = {
        "cosine": lambda: 0.02 + 0.98 * half,
        "linear": lambda: 1 - 0.99 * q,
        "wsd": lambda: 1.0 if q < 0.75 else 1 - 0.97 * (q - 0.75) / 0.25,
        "step": lambda: 0.2 ** int(min(q, 0.999) * 3),
        "rsqrt": lambda: 1 / (1 + 12 * q) ** 0.5,
        "restarts": lambda: 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * ((q * 3) % 1 if q < 1 else 1.0))),
        "onecycle": lambda: 0.1 + 0.9 * q / 0.3 if q < 0.3 else 0.5 * (1 + np.cos(np.pi * (q - 0.3) / 0.7)) + 0.001,
        "constant": lambda: 1.0,
        "plateau": lambda: 1.0,  # the loop lowers it
        "bounce": lambda: 0.0,
    }
    return float(table[plan.schedule]())
