"""What one run is: a base that learns well, and what is done to it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, Final

PRESETS: Final = {
    "code": "gpt-1m",
    "prose": "gpt-1m",
    "packages": "encoder-1m",
    "digits": "encoder-1m",
    "numbers": "regression",
    "words": "translation",
}
LANGUAGE: Final = ("code", "prose")
CLASSES: Final = ("packages", "digits")


@dataclass(frozen=True, slots=True)
class Case:
    """One run as it is asked for; all of it is JSON."""

    kind: str
    seed: int
    data: dict[str, Any]
    settings: dict[str, Any]
    module: tuple[str, dict[str, Any]] | None = None
    whole: dict[str, Any] = field(default_factory=dict)
    """Arguments of `modules.Whole`, which is left out where nothing needs it."""
    killed_at: int | None = None
    """The process is killed at this step, and the run resumed."""
    resumed: dict[str, Any] = field(default_factory=dict)
    """What is edited between: settings, and `module` for its arguments."""
    pretrained: int = 0
    """Steps of a run before, from whose weights the module begins."""

    def but(self, **settings: Any) -> Case:
        """With other settings; `__` stands for the dot."""
        return replace(self, settings=self.settings | {name.replace("__", "."): it for name, it in settings.items()})

    def with_data(self, **options: Any) -> Case:
        """With other options of the data."""
        return replace(self, data=self.data | options)

    def with_module(self, **arguments: Any) -> Case:
        """With other arguments of the module."""
        assert self.module is not None
        return replace(self, module=(self.module[0], self.module[1] | arguments))

    def with_whole(self, **arguments: Any) -> Case:
        """With other arguments of what is around the module."""
        return replace(self, whole=self.whole | arguments)

    @property
    def steps(self) -> int:
        """Updates of the run."""
        return int(self.settings["training.steps"])

    @property
    def rate(self) -> float:
        """The full learning rate."""
        return float(self.settings["optimizer"]["learning_rate"])

    def at_rate(self, factor: float) -> Case:
        """With the learning rate times `factor`."""
        return self.but(optimizer=self.settings["optimizer"] | {"learning_rate": self.rate * factor})


def base(rng: random.Random, kinds: tuple[str, ...], *, own: bool | None = None) -> Case:
    """A run that learns well, all drawn. `own`: whether the module is the user's; None: drawn where both go."""
    kind = rng.choice(kinds)
    seed = rng.randrange(10_000)
    if kind in ("digits", "numbers"):
        own = True
    elif kind == "words":
        own = False
    elif own is None:
        own = rng.random() < 0.3
    case = MAKERS[kind](rng, seed, own)
    steps = case.steps
    return case.but(
        seed=seed,
        schedule=rng.choice(
            (
                {"name": "cosine", "warmup": 0.05, "floor": rng.choice((0.0, 0.1))},
                {"name": "wsd", "warmup": 0.05, "decay": 0.3},
                {"name": "linear", "warmup": 0.05},
            )
        ),
        evaluation__every=max(10, steps // rng.choice((8, 10, 12))),
        evaluation__gap_tokens=4096,
        **({} if kind in (*CLASSES, "numbers") else {"evaluation__samples__max_tokens": 4}),
        **({"evaluation__max_tokens": 10_000} if kind in LANGUAGE else {}),
        training__threads=1,
        training__device="cpu",
        stopping={"name": "none"},
    )


def _adam(rng: random.Random, low: float, high: float) -> dict[str, Any]:
    rate = round(low * (high / low) ** rng.random(), 6)
    return {"name": "adamw", "learning_rate": rate, "weight_decay": rng.choice((0.0, 0.01, 0.1))}


def _language(kind: str, rng: random.Random, seed: int, own: bool) -> Case:
    width = rng.choice((48, 64))
    settings = {
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": rng.choice((48, 64)),
        "training.micro_batch_size": rng.choice((8, 12)),
        "training.steps": rng.choice((300, 350, 400)),
        "optimizer": _adam(rng, 3e-3, 6e-3),
    }
    data = {"package": rng.choice(("sympy", "networkx", "torch", "numpy")), "characters": 400_000}
    if own:
        settings |= {"data.sequence_length": 32, "training.micro_batch_size": 8}
        return Case(kind, seed, data, settings, ("gru", {"vocabulary_size": 257, "width": 48}))
    settings |= {
        "model.num_layers": rng.choice((1, 2)),
        "model.hidden_size": width,
        "model.num_heads": 2,
        "model.initialization.standard_deviation": 0.05,
    }
    return Case(kind, seed, data, settings)


def _packages(rng: random.Random, seed: int, own: bool) -> Case:
    vocabulary = rng.choice((512, 1024))
    classes = rng.choice((3, 4, 5))
    settings: dict[str, Any] = {
        "task": {"name": "classification", "label": "label"},
        "data.tokenizer": {"name": "bpe", "vocabulary_size": vocabulary},
        "data.sequence_length": 80,
        "training.micro_batch_size": rng.choice((16, 32)),
        "training.steps": rng.choice((200, 250, 300, 400)),
        "optimizer": _adam(rng, 1e-3, 3e-3),
    }
    data = {"classes": classes, "rows": rng.choice((4000, 6000))}
    if own:
        settings["optimizer"] = _adam(rng, 4e-3, 8e-3)
        return Case("packages", seed, data, settings, ("bag", {"vocabulary_size": vocabulary, "classes": classes}))
    if rng.random() < 0.4:
        name, site = rng.choice((("cnn", "head"), ("mlp", "hidden")))
        settings["model"] = {"name": name, "dropout": {site: 0.2}}
    else:
        settings |= {"model.num_layers": 1, "model.hidden_size": 64, "model.num_heads": 2}
        settings |= {"model.dropout.residual": 0.1, "model.initialization.standard_deviation": 0.05}
    return Case("packages", seed, data, settings)


def _digits(rng: random.Random, seed: int, own: bool) -> Case:
    settings = {
        "task": {"name": "classification", "label": "label"},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 66,
        "training.micro_batch_size": rng.choice((32, 64)),
        "training.steps": rng.choice((250, 300, 400)),
        "optimizer": _adam(rng, 3e-3, 6e-3),
    }
    data = {"pixel_noise": rng.choice((2, 3, 4))}
    if rng.random() < 0.5:
        module = ("convolutions", {"norm": rng.random() < 0.6, "width": rng.choice((8, 16))})
        return Case("digits", seed, data, settings, module)
    layers = {"count": 64, "outputs": 10, "width": rng.choice((64, 128)), "depth": rng.choice((2, 3))}
    return Case("digits", seed, data, settings, ("layers", layers | {"activation": rng.choice(("relu", "gelu"))}))


def _numbers(rng: random.Random, seed: int, own: bool) -> Case:
    settings = {
        "task": {"name": "regression", "value": "value"},
        "objective": {"name": rng.choice(("mse", "mse", "huber"))},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 10,
        "training.micro_batch_size": rng.choice((16, 32, 64)),
        "training.steps": rng.choice((300, 500, 800)),
        "optimizer": _adam(rng, 3e-3, 8e-3),
    }
    layers = {"count": 8, "outputs": 1, "width": rng.choice((48, 64, 96)), "depth": rng.choice((2, 3))}
    layers |= {"center": 45.0, "scale": 25.0, "activation": rng.choice(("relu", "gelu"))}
    return Case("numbers", seed, {"noise": rng.choice((0.1, 0.2, 0.4))}, settings, ("layers", layers))


def _words(rng: random.Random, seed: int, own: bool) -> Case:
    settings = {
        "task": {"name": "seq2seq", "target_length": 12},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 12,
        "model.num_layers": 1,
        "model.hidden_size": 64,
        "model.num_heads": 2,
        "model.initialization.standard_deviation": 0.05,
        "training.micro_batch_size": 24,
        "training.steps": rng.choice((350, 450)),
        "optimizer": _adam(rng, 3e-3, 6e-3),
        "objective.label_smoothing": 0.0,
    }
    return Case("words", seed, {"shift": rng.randrange(1, 26)}, settings)


MAKERS: Final[dict[str, Any]] = {
    "code": lambda rng, seed, own: _language("code", rng, seed, own),
    "prose": lambda rng, seed, own: _language("prose", rng, seed, own),
    "packages": _packages,
    "digits": _digits,
    "numbers": _numbers,
    "words": _words,
}
