"""The part `spread`: runs that have in common with no other part, and little with each other, what they are made of.

Model, lengths, batch, optimizer, schedule, clipping, decay and the number of evaluations are drawn for each run, each
in a range in which runs are sound; faults are drawn between their mild and their strong form. So are those of runs that
other loggers write.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, Final

from bank.scenario import Scenario

TOKENS: Final = 170_000
"""That a run may train on at most, of a model of some 50,000 parameters: two or three seconds."""
OF_TASK: Final = {"lm": 1.0, "mlp": 1.0, "cnn": 0.8, "classification": 0.35, "seq2seq": 0.8, "regression": 0.3}
"""The rate of a task as a part of that of language models."""
OPTIMIZERS: Final[dict[str, tuple[float, dict[str, Any]]]] = {
    "adamw": (1.0, {"weight_decay": 0.1}),
    "adamw_slow": (1.0, {"name": "adamw", "beta2": 0.999, "weight_decay": 0.01}),
    "adamw_plain": (0.7, {"name": "adamw", "beta2": 0.98, "weight_decay": 0.0}),
    "lion": (0.15, {"weight_decay": 0.3}),
    "muon": (1.0, {}),
}
"""Each with its rate as a part of AdamW's."""


def sizes_of(scenario: Scenario) -> dict[str, Any]:
    """What `bank.setup.SIZES` has for the other parts."""
    draw = scenario.draw("sizes")
    width = draw.choice([24, 32, 56, 64, 72, 88])
    layers = draw.choice([1, 2, 2, 3, 4])
    length, rows = draw.choice([32, 48, 56, 80, 96]), draw.choice([28, 44, 56])
    batch = draw.choice([4, 6, 10, 14, 20])
    of_rows = scenario.task in ("classification", "regression", "seq2seq")
    layers = min(layers, 2) if scenario.task == "seq2seq" else min(layers, max(1, 8_000 // width**2))
    rate = 5e-3 * (48 / width) * (2 / max(layers, 2)) ** 0.5
    weight = max(1.0, layers * width**2 / 5_000)
    least, most = (90, 260) if of_rows else (130, 300)
    steps = round(min(max(TOKENS / ((2 * rows if of_rows else length) * batch * weight), least), most))
    if of_rows:
        steps = min(steps, round(2_200 / batch))  # times twice the batch: two or three epochs
    return {
        "model": {
            "num_layers": layers,
            "hidden_size": width,
            "num_heads": draw.choice([2, 4]),
            "activation": draw.choice(["gelu", "gelu_tanh", "swiglu"]),
        },
        "width": width,
        "deeper": draw.choice([3, 4, 6]),
        "sequence_length": length,
        "row_length": rows,
        "tokenizer": draw.choice([{"name": "bytes"}, {"name": "bpe", "vocabulary_size": draw.choice([320, 640, 900])}]),
        "row_tokenizer": {"name": "bpe", "vocabulary_size": draw.choice([400, 800, 1_100])},
        "micro_batch_size": batch,
        "steps": steps,
        "rate": {task: rate * factor for task, factor in OF_TASK.items()},
        "schedule": _schedule(draw),
        "evaluations": draw.choice([6, 8, 14, 18]),
    }


def _schedule(draw: random.Random) -> dict[str, Any]:
    warmup = draw.choice([0.03, 0.05, 0.08, 0.12])
    return draw.choice(
        [
            {"name": "cosine", "warmup": warmup, "floor": draw.choice([0.0, 0.05, 0.1])},
            {"name": "linear", "warmup": warmup, "floor": draw.choice([0.0, 0.1])},
            {"name": "wsd", "warmup": warmup, "decay": draw.choice([0.15, 0.3])},
            {"name": "polynomial", "warmup": warmup, "power": 1.5},
            {"name": "inverse_square_root", "warmup": warmup},
            {"name": "constant", "warmup": warmup},
        ]
    )


def vary(scenario: Scenario, settings: dict[str, Any]) -> None:
    """Draw the optimizer, what its gradients are cut to, and the dropout of a language model."""
    draw = scenario.draw("vary")
    name = draw.choice(["adamw", "adamw", "adamw_slow", "adamw_plain", "lion", "muon"])
    factor, more = OPTIMIZERS[name]
    rate = settings.pop("optimizer.learning_rate") * factor
    settings["optimizer"] = {"name": name, **more}
    settings["optimizer"]["name"] = more.get("name", name)
    settings["optimizer.learning_rate"] = rate
    settings["evaluation"] |= {"max_tokens": min(settings["evaluation"]["max_tokens"], 3_000), "gap_tokens": 1_024}
    clip = draw.choice([0.5, 1.0, 1.0, 3.0])
    settings["gradients.clip"] = {"name": "norm", "threshold": clip}
    if draw.random() < 0.3 and "dropout" not in settings["model"]:
        settings["model"]["dropout"] = {"residual": 0.1, "feed_forward": 0.1}


def sizes_of_loop(scenario: Scenario) -> dict[str, Any]:
    """What `bank.experiment.SIZES` has for the other parts."""
    draw = scenario.draw("sizes")
    heads = draw.choice([2, 4])
    return {
        "width": heads * draw.choice([10, 12, 20, 24]),
        "layers": draw.choice([1, 2, 3]),
        "heads": heads,
        "length": draw.choice([28, 40, 56, 64]),
        "batch": draw.choice([8, 10, 16, 20]),
        "steps": draw.choice([160, 200, 280, 360]),
        "hidden": draw.choice([48, 72, 96, 128]),
        "maps": draw.choice([6, 10, 16]),
    }


def loop_of(scenario: Scenario) -> dict[str, Any]:
    """Schedule, betas, decay and clipping of an experiment that others drive, as fields of it."""
    draw = scenario.draw("vary")
    floor, tail = draw.choice([0.0, 0.05, 0.1, 0.2]), draw.choice([0.15, 0.3])
    shapes: list[Callable[[float], float]] = [
        lambda part: floor + (1.0 - floor) * (0.5 + 0.5 * math.cos(math.pi * part)),
        lambda part: 1.0 - (1.0 - floor) * part,
        lambda part: 1.0,
        lambda part: min(1.0, max(floor, (1.0 - part) / tail)),
    ]
    return {
        "shape": draw.choice(shapes),
        "warmup": draw.choice([2, 6, 15, 25]),
        "beta2": draw.choice([0.95, 0.98, 0.999]),
        "weight_decay": draw.choice([0.0, 0.01, 0.1]),
        "clip": draw.choice([None, 0.5, 1.0, 1.0, 5.0]),
        "dropout": draw.choice([0.0, 0.0, 0.1]),
    }


def between(scenario: Scenario, strong: Any, mild: Any) -> Any:
    """A number that is drawn between two, geometrically where that can be; else one of them, by the severity."""
    if isinstance(strong, bool) or not isinstance(strong, int | float) or not isinstance(mild, int | float):
        return strong if scenario.severity == "strong" else mild
    if min(strong, mild) <= 0:
        return strong if scenario.severity == "strong" else mild
    part = scenario.draw("severity").uniform(0.0, 0.5) + (0.5 if scenario.severity == "strong" else 0.0)
    found = mild * (strong / mild) ** part
    return round(found) if isinstance(strong, int) and isinstance(mild, int) else found


Plant = Callable[[Any], None]


def way_of(scenario: Scenario, ways: tuple[Plant, ...]) -> Plant:
    """How a fault is planted: in another way in each round."""
    return ways[scenario.round % len(ways)]
