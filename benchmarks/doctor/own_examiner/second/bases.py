"""A run of the second set that learns well: all of it drawn."""

from __future__ import annotations

import random
from typing import Any, Final

from own_examiner.case import Case
from own_examiner.second.tasks import TASKS, family

CLASSES_OF: Final = {"class-majority": 4, "class-docstrings": 4, "class-table": 4, "class-images": 10}
COLUMNS: Final = {"class-table": 12, "class-images": 64, "number-friedman": 10, "number-series": 24}


def base(rng: random.Random, kinds: tuple[str, ...], *, own: bool | None = None) -> Case:
    """Drawn from the kinds; `own`: whether the module is the user's, None: where both go it is drawn."""
    kind, seed = rng.choice(kinds), rng.randrange(10_000)
    assert kind in TASKS
    if own is None:
        own = rng.random() < 0.5
    case = MAKERS[family(kind)](rng, kind, seed, own)
    steps = case.steps
    tokens = family(kind) in ("text", "masked")
    case = case.but(
        seed=seed,
        schedule=rng.choice((
            {"name": "cosine", "warmup": 0.08, "floor": rng.choice((0.0, 0.1))},
            {"name": "inverse_square_root", "warmup": 0.1},
            {"name": "polynomial", "warmup": 0.06, "power": 1.5},
            {"name": "linear", "warmup": 0.1},
        )),
        evaluation__every=max(10, steps // rng.choice((8, 10, 14))),
        evaluation__gap_tokens=4096,
        training__threads=1,
        training__device="cpu",
        stopping={"name": "none"},
    )  # fmt: skip
    if tokens:
        case = case.but(evaluation__max_tokens=10_000)
    return case.but(evaluation__samples__max_tokens=4) if family(kind) in ("text", "pairs") else case


def rate(rng: random.Random, low: float, high: float) -> float:
    """Drawn evenly in its logarithm."""
    return float(round(low * (high / low) ** rng.random(), 6))


def adamw(rng: random.Random, low: float, high: float) -> dict[str, Any]:
    """AdamW with a drawn rate."""
    return {"name": "adamw", "learning_rate": rate(rng, low, high), "weight_decay": rng.choice((0.0, 0.02, 0.05))}


def _decoder(rng: random.Random, *, positions: str = "") -> dict[str, Any]:
    """A built-in transformer with other options than the preset's."""
    return {
        "model.num_layers": rng.choice((1, 2)),
        "model.hidden_size": rng.choice((32, 48)),
        "model.num_heads": 4,
        "model.activation": rng.choice(("swiglu", "relu_squared", "gelu_tanh")),
        "model.norm": {"name": rng.choice(("rms_norm", "layer_norm"))},
        "model.qk_norm": rng.random() < 0.5,
        "model.positions": {"name": positions or rng.choice(("rotary", "learned", "sinusoidal"))},
        "model.initialization.standard_deviation": 0.05,
    }


def _gpt2(rng: random.Random, kind: str) -> dict[str, Any]:
    if kind == "llama":
        sizes: dict[str, Any] = {"hidden_size": 40, "intermediate_size": 96, "num_hidden_layers": 2,
                                 "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
        return {"model_type": "llama", "initializer_range": 0.05, "max_position_embeddings": 64} | sizes
    sizes = {"n_layer": 2, "n_embd": 40, "n_head": 4, "n_positions": 64, "initializer_range": 0.05}
    return {"model_type": "gpt2", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} | sizes


def bert(rng: random.Random, kind: str) -> dict[str, Any]:
    """A small BERT or DistilBERT."""
    if kind == "distilbert":
        return {"model_type": "distilbert", "dim": 40, "hidden_dim": 80, "n_layers": 2, "n_heads": 4,
                "max_position_embeddings": 96, "initializer_range": 0.05}  # fmt: skip
    sizes = {"hidden_size": 40, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {"model_type": "bert", "max_position_embeddings": 96, "initializer_range": 0.05} | sizes


def _text(rng: random.Random, kind: str, seed: int, own: bool) -> Case:
    settings: dict[str, Any] = {
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 32,
        "training.micro_batch_size": rng.choice((8, 10)),
        "training.steps": rng.choice((220, 260, 300)),
        "optimizer": adamw(rng, 3e-3, 6e-3),
    }
    if own and kind == "text-topics":
        arguments = {"outputs": 257, "of": "text", "cell": rng.choice(("LSTM", "GRU"))}
        return Case(kind, seed, {}, settings, ("recurrent", arguments))
    if own:
        config = _gpt2(rng, rng.choice(("gpt2", "llama")))
        return Case(kind, seed, {}, settings | {"model": {"name": "hugging_face", "config": config}})
    return Case(kind, seed, {}, settings | _decoder(rng))


def _masked(rng: random.Random, kind: str, seed: int, own: bool) -> Case:
    settings: dict[str, Any] = {
        "task": {"name": "masked_lm"},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 40,
        "training.micro_batch_size": rng.choice((8, 12)),
        "training.steps": rng.choice((220, 260)),
        "optimizer": adamw(rng, 4e-3, 7e-3),
    }
    return Case(kind, seed, {}, settings | _decoder(rng))


def _pairs(rng: random.Random, kind: str, seed: int, own: bool) -> Case:
    settings: dict[str, Any] = {
        "task": {"name": "seq2seq", "target_length": 12},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 12,
        "training.micro_batch_size": 24,
        "training.steps": rng.choice((260, 300)),
        "optimizer": adamw(rng, 4e-3, 7e-3),
        "objective.label_smoothing": 0.0,
    }
    data = {"how": rng.choice(("sort", "copy"))}
    return Case(kind, seed, data, settings | _decoder(rng, positions="learned") | {"model.num_layers": 1})


def _class(rng: random.Random, kind: str, seed: int, own: bool) -> Case:
    classes = CLASSES_OF[kind]
    settings: dict[str, Any] = {
        "task": {"name": "classification", "label": "label"},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": {"class-docstrings": 72, "class-images": 66}.get(kind, 28),
        "training.micro_batch_size": rng.choice((16, 24, 32)),
        "training.steps": rng.choice((220, 260, 300) if kind not in COLUMNS else (300, 400, 500)),
        "optimizer": adamw(rng, 2e-3, 4e-3),
    }
    if kind in COLUMNS:
        module = rng.choice((("mixer", {}), ("residual", {}), ("vit" if kind == "class-images" else "perceptron", {})))
        return Case(kind, seed, {}, settings, _rows(rng, kind, module[0], classes))
    if own:
        config = bert(rng, rng.choice(("bert", "distilbert")))
        settings |= {"model": {"name": "hugging_face", "config": config}, "optimizer": adamw(rng, 1.5e-3, 2.5e-3)}
        if kind == "class-docstrings":
            settings |= {"data.tokenizer": {"name": "bpe", "vocabulary_size": 1024}, "data.sequence_length": 32}
        return Case(kind, seed, {}, settings)
    if kind == "class-docstrings":
        settings["model"] = rng.choice(({"name": "cnn"}, {"name": "mlp"}))
        return Case(kind, seed, {}, settings | {"data.tokenizer": {"name": "bpe", "vocabulary_size": 1024}})
    name = rng.choice(("encoder", "decoder"))
    pooling = "mean" if name == "encoder" else "last"
    settings |= {"model": {"name": name, "pooling": pooling, "num_layers": 2, "hidden_size": 48, "num_heads": 4,
                           "initialization": {"standard_deviation": 0.05}}}  # fmt: skip
    return Case(kind, seed, {}, settings)


def _rows(rng: random.Random, kind: str, name: str, outputs: int) -> tuple[str, dict[str, Any]]:
    count = COLUMNS[kind]
    if name == "vit":
        config = {"model_type": "vit", "image_size": 8, "patch_size": 2, "num_channels": 1, "hidden_size": 48,
                  "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": outputs,
                  "initializer_range": 0.05}  # fmt: skip
        return "transformers", {"config": config, "of": "images"}
    center, scale = (8.0, 6.0) if count == 64 else (45.0, 22.0)
    if name == "residual":
        return name, {"outputs": outputs, "count": count, "scale": scale, "shift": center}
    return name, {"outputs": outputs, "count": count, "center": center, "scale": scale}


def _labels(rng: random.Random, kind: str, seed: int, own: bool) -> Case:
    case = _class(rng, "class-majority", seed, own)
    settings = case.settings | {
        "task": {"name": "classification", "label": "label", "multi_label": True},
        "objective": {"name": "binary_cross_entropy"},
        "data.tokenizer": {"name": "bpe", "vocabulary_size": 400},
        "data.sequence_length": 48,
    }
    return Case(kind, seed, {}, settings)


def _tags(rng: random.Random, kind: str, seed: int, own: bool) -> Case:
    settings: dict[str, Any] = {
        "task": {"name": "token_classification", "tags": "tags"},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 56,
        "training.micro_batch_size": rng.choice((8, 12)),
        "training.steps": rng.choice((220, 300)),
        "optimizer": adamw(rng, 2e-3, 4e-3),
    }
    if own:
        return Case(kind, seed, {}, settings, ("recurrent", {"outputs": 5, "of": "tags", "width": 32}))
    return Case(kind, seed, {}, settings | _decoder(rng))


def _number(rng: random.Random, kind: str, seed: int, own: bool) -> Case:
    settings: dict[str, Any] = {
        "task": {"name": "regression", "value": "value"},
        "objective": {"name": rng.choice(("mse", "huber", "log_cosh"))},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": {"number-series": 26, "number-friedman": 12}.get(kind, 20),
        "training.micro_batch_size": rng.choice((24, 32, 48)),
        "training.steps": rng.choice((350, 500, 700) if kind != "number-vowels" else (250, 350)),
        "optimizer": adamw(rng, 2e-3, 5e-3),
    }
    if kind == "number-vowels":
        settings["model"] = {"name": "encoder", "num_layers": 1, "hidden_size": 48, "num_heads": 4,
                             "initialization": {"standard_deviation": 0.05}}  # fmt: skip
        if own:
            settings["model"] = {"name": "hugging_face", "config": bert(rng, "distilbert")}
            settings["optimizer"] = adamw(rng, 1e-3, 2e-3)
        return Case(kind, seed, {}, settings)
    names = ("mixer", "residual", "perceptron", "recurrent") if kind == "number-series" else ("mixer", "perceptron")
    name = rng.choice(names)
    if name == "recurrent":
        return Case(kind, seed, {}, settings, (name, {"outputs": 1, "of": "one", "count": 24, "cell": "GRU"}))
    return Case(kind, seed, {}, settings, _rows(rng, kind, name, 1))


MAKERS: Final = {"text": _text, "masked": _masked, "pairs": _pairs, "class": _class, "labels": _labels,
                 "tags": _tags, "number": _number}  # fmt: skip
