"""The odd but sound runs of trimtab's own trainer: one function an oddity, in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bank import models
from bank.ours_faults import _sgd, use_dropout
from bank.setup import Setup
from bank.texts import read_rows


def cosine(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.05, "floor": 0.0}


def wsd(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "wsd", "warmup": 0.05, "decay": 0.2}


def dropout(setup: Setup) -> None:
    use_dropout(setup, 0.15)


def small_batch(setup: Setup) -> None:
    setup.settings["training"]["micro_batch_size"] = 2 if not setup.is_rows else 4
    setup.rate /= 2.0
    setup.steps = round(setup.steps * 2.5)


def warm_restarts(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "warm_restarts", "period": 0.26, "floor": 0.02}


def step_decay(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "step", "warmup": 0.03, "every": 0.35, "factor": 0.2}


def constant(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "constant", "warmup": 0.05}
    setup.rate /= 2.0


def single_epoch(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "linear", "warmup": 0.05}


def fast_descent(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.03, "floor": 0.02}
    setup.rate *= 1.5
    setup.steps = round(setup.steps * 1.4)


def label_smoothing(setup: Setup) -> None:
    setup.settings["objective.label_smoothing"] = 0.1


def resumed(setup: Setup) -> None:
    setup.killed_at = round(setup.steps * 0.55)


def epoch_staircase(setup: Setup) -> None:
    if setup.is_rows:
        setup.use_rows(*_split(setup, 0.75))
        return
    text = (setup.data / "corpus.txt").read_text(encoding="utf-8")
    size = setup.steps * setup.batch * setup.sizes["sequence_length"] // 3
    setup.use_text(text[:size], text[size : size + 20_000])
    use_dropout(setup, 0.1)


def _split(setup: Setup, part: float) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """So much of the rows, and of the rest those whose texts are not among them: a sound run leaks none."""
    rows = read_rows(setup.data)
    cut = round(len(rows) * part)
    known = {row[name] for row in rows[:cut] for name in ("text", "signature")}
    return rows[:cut], [row for row in rows[cut:] if known.isdisjoint((row["text"], row["signature"]))]


def growing_gradients(setup: Setup) -> None:
    setup.settings["optimizer.weight_decay"] = 0.0
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.1, "floor": 0.05}
    setup.settings["gradients.clip"] = {"name": "norm", "threshold": 5.0}


def evaluation_noise(setup: Setup) -> None:
    setup.settings["evaluation"] |= {"max_tokens": 2_048, "gap_tokens": 1_024, "every": max(5, setup.steps // 30)}


def accumulation(setup: Setup) -> None:
    setup.settings["training"] |= {"micro_batch_size": max(1, setup.batch // 4), "accumulation": 4}


def one_cycle(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "one_cycle", "warmup": 0.3}


def post_norm(setup: Setup) -> None:
    setup.settings["model"] |= {"norm": {"name": "layer_norm", "placement": "post"}}
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.25, "floor": 0.1}
    setup.rate /= 2.0


def curriculum(setup: Setup) -> None:
    if setup.is_rows:
        setup.settings["data.curriculum"] = {"name": "length", "start": 0.3, "span": 0.4}
    else:
        setup.settings["data.curriculum"] = {"name": "rarity", "start": 0.3, "span": 0.4}


def averaging(setup: Setup) -> None:
    setup.settings["averaging"] = {"name": "ema", "decay": 0.98}


def patience(setup: Setup) -> None:
    regularize(setup)
    if setup.is_rows:
        setup.use_rows(*_split(setup, 0.5))
    else:
        text = (setup.data / "corpus.txt").read_text(encoding="utf-8")
        setup.use_text(text[:60_000], text[60_000:80_000])
    setup.steps = setup.steps * 2


def regularize(setup: Setup) -> None:
    """As little data want it."""
    setup.settings["stopping"] = {"name": "patience", "patience": 4}
    setup.settings["schedule"] = {"name": "constant", "warmup": 0.03}
    setup.rate /= 2.0
    use_dropout(setup, 0.1)


def foreign_model(setup: Setup) -> None:
    kind = models.WindowMlp if setup.scenario.round % 2 else models.CausalConvolutions
    setup.model = lambda vocabulary, seed: kind(vocabulary, setup.sizes["width"], seed=seed)


def masked(setup: Setup) -> None:
    setup.settings["task"] = {"name": "masked_lm"}
    setup.settings["model"]["name"] = "encoder"
    setup.steps = round(setup.steps * 1.3)


def regression(setup: Setup) -> None:
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.05, "floor": 0.1}


def imbalanced(setup: Setup) -> None:
    rows = read_rows(setup.data)
    classes = sorted({row["label"] for row in rows})
    kept = {label: 1.0 / (1 + index) for index, label in enumerate(classes)}
    seen: dict[str, int] = dict.fromkeys(classes, 0)
    chosen = []
    for row in rows:
        seen[row["label"]] += 1
        if seen[row["label"]] <= 250 * kept[row["label"]]:
            chosen.append(row)
    setup.use_rows(chosen)


def sgd(setup: Setup) -> None:
    setup.settings["optimizer.weight_decay"] = 0.0
    setup.make_optimizer = _sgd(setup, 0.3 if not setup.is_rows else 0.1)


def short(setup: Setup) -> None:
    setup.steps = 110
    setup.settings["schedule"] = {"name": "cosine", "warmup": 10, "floor": 0.05}


def easy(setup: Setup) -> None:
    rows = read_rows(setup.data)
    two = sorted({row["label"] for row in rows})[:2]
    setup.use_rows([row for row in rows if row["label"] in two])
    setup.steps = round(setup.steps * 0.6)


TURN: Final[dict[str, Callable[[Setup], None]]] = {
    "cosine": cosine,
    "wsd": wsd,
    "dropout": dropout,
    "small-batch": small_batch,
    "warm-restarts": warm_restarts,
    "step-decay": step_decay,
    "constant": constant,
    "single-epoch": single_epoch,
    "fast-descent": fast_descent,
    "label-smoothing": label_smoothing,
    "resumed": resumed,
    "epoch-staircase": epoch_staircase,
    "growing-gradients": growing_gradients,
    "evaluation-noise": evaluation_noise,
    "accumulation": accumulation,
    "one-cycle": one_cycle,
    "post-norm": post_norm,
    "curriculum": curriculum,
    "averaging": averaging,
    "patience": patience,
    "foreign-model": foreign_model,
    "masked": masked,
    "regression": regression,
    "imbalanced": imbalanced,
    "sgd": sgd,
    "short": short,
    "easy": easy,
}
