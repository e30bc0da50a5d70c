"""Further sound practices of trimtab's own trainer, for the part `spread` alone: what the catalogue's oddities lack.

Each is a draw of that part, and one thing more that people do and are right to do, in a range in which it is sound.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bank import spread
from bank.ours_faults import use_dropout
from bank.setup import Setup
from bank.texts import read_rows

Practice = Callable[[Setup, random.Random], None]


@dataclass(frozen=True, slots=True)
class _Optimizer:
    """Its name, its rate as a part of AdamW's, and what else is said of it."""

    name: str
    factor: float
    more: dict[str, Any]


OPTIMIZERS: Final = (
    _Optimizer("adam", 1.0, {}),
    _Optimizer("adafactor", 1.0, {}),
    _Optimizer("lamb", 2.0, {}),
    _Optimizer("soap", 0.7, {}),
    _Optimizer("sophia", 0.3, {}),
    _Optimizer("schedule_free_adamw", 1.5, {}),
    _Optimizer("adamw_8bit", 1.0, {"min_size": 256}),
    _Optimizer("galore", 2.0, {"basis_every": 50}),
    _Optimizer("sgd", 25.0, {"nesterov": True}),
)


def _use(setup: Setup, name: str, factor: float, **more: Any) -> None:
    """Another optimizer, at the rate that AdamW would have, times `factor`."""
    now = setup.settings["optimizer"]["name"]
    was = next(rate for key, (rate, told) in spread.OPTIMIZERS.items() if told.get("name", key) == now)
    setup.rate *= factor / was
    setup.settings["optimizer"] = {"name": name, **more}


def another_optimizer(setup: Setup, draw: random.Random) -> None:
    one = OPTIMIZERS[setup.scenario.round % len(OPTIMIZERS)]
    _use(setup, one.name, one.factor, **one.more)
    if one.name == "schedule_free_adamw":
        setup.settings["schedule"] = {"name": "constant", "warmup": 0.05}


def batch_ramp(setup: Setup, draw: random.Random) -> None:
    setup.settings["training"]["accumulation_schedule"] = draw.choice(
        [{"factors": [1, 2], "lengths": [0.5]}, {"factors": [1, 2, 4], "lengths": [0.3, 0.3]}]
    )
    setup.settings["training"]["micro_batch_size"] = max(1, setup.batch // 2)


def noise_scale_batch(setup: Setup, draw: random.Random) -> None:
    setup.settings["logging.noise_scale"] = {"every": 10}
    setup.settings["training"] |= {"micro_batch_size": max(1, setup.batch // 2), "accumulation": 2}
    setup.settings["batch_control"] = {"name": "noise_scale", "most": 16 * setup.batch, "wait": 40}


def stochastic_depth(setup: Setup, draw: random.Random) -> None:
    setup.settings["model"]["dropout"] = {"layer": draw.choice([0.1, 0.2])}


def r_drop(setup: Setup, draw: random.Random) -> None:
    use_dropout(setup, 0.1)
    setup.settings["procedure"] = {"name": "r_drop", "alpha": draw.choice([0.5, 1.0])}


def adversarial(setup: Setup, draw: random.Random) -> None:
    setup.settings["procedure"] = draw.choice(
        [  # an embedding of small weights has a norm of about 1 over a whole text
            {"name": "fgm", "radius": 0.1},
            {"name": "pgd", "steps": 2, "radius": 0.1, "step_size": 0.05},
            {"name": "free_lb", "radius": 0.05, "step_size": 0.02, "initial": 0.02},
        ]
    )


def sharpness_aware(setup: Setup, draw: random.Random) -> None:
    setup.settings["sharpness"] = draw.choice([{"name": "sam"}, {"name": "asam"}])


def embedding_mixup(setup: Setup, draw: random.Random) -> None:
    setup.settings["embedding"] = {"mixup": {"alpha": draw.choice([0.2, 0.4])}}


def embedding_cutout(setup: Setup, draw: random.Random) -> None:
    setup.settings["embedding"] = {"cutout": {"rate": 0.1, "kind": draw.choice(["span", "token", "feature"])}}


def noisy_embeddings(setup: Setup, draw: random.Random) -> None:
    setup.settings["embedding"] = {"noise": {"alpha": 5.0}}


def augmented(setup: Setup, draw: random.Random) -> None:
    setup.settings["data.augmentation"] = draw.choice(
        [{"token_dropout": 0.1}, {"replacement": 0.05}, {"span_masking": {"rate": 0.1}}]
    )


def only_the_average_judged(setup: Setup, draw: random.Random) -> None:
    setup.settings["averaging"] = draw.choice(
        [
            {"name": "ema", "decay": 0.99, "evaluate": "average"},
            {"name": "ema", "decay": 0.95},
            {"name": "swa", "start": 0.6, "evaluate": "average"},
            {"name": "swa", "start": 0.7},
        ]
    )


def long_warmup(setup: Setup, draw: random.Random) -> None:
    setup.settings["schedule"] = {"name": "cosine", "warmup": draw.choice([0.4, 0.5, 0.6]), "floor": 0.05}


def other_schedule(setup: Setup, draw: random.Random) -> None:
    setup.settings["schedule"] = draw.choice(
        [
            {"name": "triangular", "rise": 0.1, "fall": 0.1},
            {"name": "exp_range", "rise": 0.1, "fall": 0.1},
            {"name": "exponential", "warmup": 0.05, "floor": 0.02},
            {"name": "piecewise", "warmup": 0.05, "levels": [1.0, 0.3, 0.1], "lengths": [0.5, 0.3]},
            {"name": "polynomial", "warmup": 0.05, "power": 1.0, "floor": 0.05},
            {"name": "step", "warmup": 0.05, "every": 0.3, "factor": 0.1},
            {"name": "warm_restarts", "period": 0.2, "growth": 2, "floor": 0.05},
        ]
    )


def rate_at_plateaus(setup: Setup, draw: random.Random) -> None:
    setup.settings["schedule"] = {"name": "constant", "warmup": 0.05}
    setup.settings["control"] = {"learning_rate": {"name": "plateau", "patience": 2, "factor": 0.5}}


def another_clip(setup: Setup, draw: random.Random) -> None:
    setup.settings["gradients.clip"] = draw.choice(
        [{"name": "agc", "threshold": 0.1}, {"name": "quantile"}, {"name": "z_score"}, {"name": "none"}]
    )


def gradient_noise(setup: Setup, draw: random.Random) -> None:
    setup.settings["gradients.noise"] = {"scale": 0.001}
    setup.settings["gradients.centralize"] = draw.random() < 0.5


def rates_by_layer(setup: Setup, draw: random.Random) -> None:
    setup.settings["optimizer"]["rates"] = draw.choice([{"layers": 0.8}, {"factors": {"*embedding*": 0.3}}])


def other_optimizer_later(setup: Setup, draw: random.Random) -> None:
    rate = setup.rate
    setup.settings["optimizer_switch"] = {"to": {"name": "sgd", "learning_rate": 5.0 * rate}, "at": 0.6}
    if setup.settings["optimizer"]["name"] == "sgd":
        _use(setup, "adamw", 1.0)


def other_body(setup: Setup, draw: random.Random) -> None:
    setup.settings["model"] |= draw.choice(
        [
            {"activation": "relu_squared", "qk_norm": True},
            {"positions": {"name": "learned"}, "norm": {"name": "layer_norm"}, "bias": True},
            {"positions": {"name": "sinusoidal"}, "qk_norm": True},
            {"qk_norm": True, "initialization": {"matrices": "xavier_uniform"}},
        ]
    )


def sandwiched_post_norm(setup: Setup, draw: random.Random) -> None:
    setup.settings["model"] |= {"norm": {"name": "rms_norm", "placement": "post"}}
    setup.settings["schedule"] = {"name": "linear", "warmup": 0.2}
    setup.rate /= 2.0


def low_precision(setup: Setup, draw: random.Random) -> None:
    setup.settings["training"]["precision"] = {"name": "bf16"}


def quantized(setup: Setup, draw: random.Random) -> None:
    setup.settings["training"]["quantize"] = {"name": "int8", "start": draw.choice([0.6, 0.8])}


def penalized(setup: Setup, draw: random.Random) -> None:
    _use(setup, "sgd", 25.0, nesterov=True)
    setup.settings["penalties"] = {"l2": {"strength": draw.choice([1e-5, 1e-4])}}


def z_loss(setup: Setup, draw: random.Random) -> None:
    setup.settings["objective"] = {"name": "cross_entropy", "z_loss": 1e-4}


def mixed_sources(setup: Setup, draw: random.Random) -> None:
    sources = [{"name": "text", "path": str(setup.data / name)} for name in ("corpus.txt", "other.txt")]
    setup.settings["data.source"] = {
        "name": "mixture",
        "sources": dict(zip(("main", "other"), sources, strict=True)),
        "weights": {"main": 0.7, "other": 0.3},
    }


def large_batch(setup: Setup, draw: random.Random) -> None:
    setup.settings["training"] |= {"micro_batch_size": 2 * setup.batch, "accumulation": 2}
    setup.rate *= 1.4
    setup.steps = max(80, setup.steps // 2)


def one_row_accumulated(setup: Setup, draw: random.Random) -> None:
    setup.settings["training"] |= {"micro_batch_size": 1, "accumulation": setup.batch}
    setup.steps = max(80, setup.steps // 2)


def judged_all_the_time(setup: Setup, draw: random.Random) -> None:
    setup.settings["evaluation"] |= {"every": max(2, setup.steps // 60)}


def judged_seldom(setup: Setup, draw: random.Random) -> None:
    setup.settings["evaluation"] |= {"every": setup.steps // 2}


def small_evaluation(setup: Setup, draw: random.Random) -> None:
    setup.settings["evaluation"] |= {"max_tokens": 1_536, "gap_tokens": 1_024}


def longer(setup: Setup, draw: random.Random) -> None:
    setup.steps = 3 * setup.steps
    if setup.is_rows:
        use_dropout(setup, 0.25)
        setup.settings["stopping"] = {"name": "patience", "patience": 4}


def sampled_from_a_pattern(setup: Setup, draw: random.Random) -> None:
    """A text that is easy: most of each line follows from its beginning."""
    nouns = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]
    lines = []
    for _ in range(9_000):
        one, other = draw.choice(nouns), draw.choice(nouns)
        lines.append(f"{one} sees {other} and {other} sees {one} because {one} is {one[::-1]}")
    cut = len(lines) * 9 // 10
    setup.use_text("\n".join(lines[:cut]), "\n".join(lines[cut:]))


def weighted_classes(setup: Setup, draw: random.Random) -> None:
    rows = read_rows(setup.data)
    classes = sorted({row["label"] for row in rows})
    rare = set(classes[1::2])
    setup.use_rows([row for index, row in enumerate(rows) if row["label"] not in rare or index % 4 == 0])
    setup.settings["task"]["class_weights"] = "balanced"


def focal(setup: Setup, draw: random.Random) -> None:
    setup.settings["objective"] = {"name": "focal", "gamma": draw.choice([1.0, 2.0])}


def several_labels(setup: Setup, draw: random.Random) -> None:
    rows = read_rows(setup.data)
    for row in rows:
        more = [name for name, letters in (("long", len(row["text"]) > 90), ("dotted", "." in row["text"])) if letters]
        row["label"] = "|".join([row["label"], *more])
    setup.use_rows(rows)
    setup.settings["task"] |= {"multi_label": True}
    setup.settings["objective"] = {"name": "binary_cross_entropy"}


def many_classes(setup: Setup, draw: random.Random) -> None:
    """Tens of classes: which letter a signature begins with."""
    rows = [row | {"label": row["signature"][0].lower()} for row in read_rows(setup.data)]
    setup.use_rows([row | {"text": row["signature"]} for row in rows if row["label"].isalpha()])


def tagged_words(setup: Setup, draw: random.Random) -> None:
    """How long a word is, and whether it begins with a vowel."""
    rows = []
    for row in read_rows(setup.data):
        words = row["text"].split()[:20]
        tags = ["vowel" if word[0].lower() in "aeiou" else "long" if len(word) > 5 else "short" for word in words]
        rows.append({"text": " ".join(words), "tags": " ".join(tags)})
    setup.use_rows(rows)
    setup.settings["task"] = {"name": "token_classification"}


def vectors(setup: Setup, draw: random.Random) -> None:
    rows = [{"text": row["signature"], "second": row["text"]} for row in read_rows(setup.data)]
    setup.use_rows(rows)
    setup.settings["task"] = {"name": "contrastive"}
    setup.settings["objective"] = {"name": "info_nce", "temperature": 0.1}
    setup.rate /= 4.0  # gradients are ten times those of a cross-entropy
    setup.settings["evaluation"].pop("gap_tokens", None)


def small_network(setup: Setup, draw: random.Random) -> None:
    kind = draw.choice(["mlp", "cnn"])
    setup.settings["model"] = {"name": kind, "hidden_size": 48}
    if draw.random() < 0.5:
        setup.settings["model"]["batch_norm"] = {}


def other_error_of_numbers(setup: Setup, draw: random.Random) -> None:
    setup.settings["objective"] = {"name": draw.choice(["mae", "huber", "log_cosh", "rmse", "quantile"])}


def smoothed_and_dropped(setup: Setup, draw: random.Random) -> None:
    use_dropout(setup, 0.1)  # of one pass over the data: as in the first transformers
    setup.settings["objective.label_smoothing"] = draw.choice([0.05, 0.1])


def spikes_watched(setup: Setup, draw: random.Random) -> None:
    setup.settings["recovery"] = {"spikes": {"name": draw.choice(["skip", "report"])}}


def hardest_last(setup: Setup, draw: random.Random) -> None:
    setup.settings["data.curriculum"] = {
        "name": draw.choice(["rarity", "length"]) if setup.is_rows else "rarity",
        "start": 0.2,
        "span": 0.5,
        "pacing": draw.choice([{"name": "step"}, {"name": "root"}, {"name": "competence"}]),
    }


def low_rate_of_decay(setup: Setup, draw: random.Random) -> None:
    """As large models are trained: a high decay, a second moment that is short, a floor of a tenth."""
    _use(setup, "adamw", 0.8, weight_decay=0.1, beta2=0.95)
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.02, "floor": 0.1}
    setup.settings["model"].pop("dropout", None)


def resumed_often(setup: Setup, draw: random.Random) -> None:
    setup.killed_at = round(setup.steps * draw.choice([0.2, 0.8]))
    setup.settings["checkpoint"]["every"] = max(5, setup.steps // 10)


PRACTISE: Final[dict[str, Practice]] = {
    "another-optimizer": another_optimizer,
    "batch-ramp": batch_ramp,
    "noise-scale-batch": noise_scale_batch,
    "stochastic-depth": stochastic_depth,
    "r-drop": r_drop,
    "adversarial": adversarial,
    "sharpness-aware": sharpness_aware,
    "embedding-mixup": embedding_mixup,
    "embedding-cutout": embedding_cutout,
    "noisy-embeddings": noisy_embeddings,
    "augmented": augmented,
    "average-judged": only_the_average_judged,
    "long-warmup": long_warmup,
    "other-schedule": other_schedule,
    "rate-at-plateaus": rate_at_plateaus,
    "another-clip": another_clip,
    "gradient-noise": gradient_noise,
    "rates-by-layer": rates_by_layer,
    "other-optimizer-later": other_optimizer_later,
    "other-body": other_body,
    "rms-post-norm": sandwiched_post_norm,
    "bf16": low_precision,
    "quantized": quantized,
    "penalized": penalized,
    "z-loss": z_loss,
    "mixed-sources": mixed_sources,
    "large-batch": large_batch,
    "one-row-accumulated": one_row_accumulated,
    "judged-often": judged_all_the_time,
    "judged-seldom": judged_seldom,
    "small-evaluation": small_evaluation,
    "longer": longer,
    "pattern": sampled_from_a_pattern,
    "weighted-classes": weighted_classes,
    "focal": focal,
    "several-labels": several_labels,
    "many-classes": many_classes,
    "tagged-words": tagged_words,
    "vectors": vectors,
    "small-network": small_network,
    "other-numbers": other_error_of_numbers,
    "smoothed-and-dropped": smoothed_and_dropped,
    "spikes-watched": spikes_watched,
    "curriculum-paced": hardest_last,
    "as-large-models": low_rate_of_decay,
    "resumed-often": resumed_often,
}
