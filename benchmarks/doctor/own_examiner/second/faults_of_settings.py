"""Mistakes in the configuration, and in what steers a run."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final

from own_examiner.case import Case
from own_examiner.plant import Plant, spikes
from own_examiner.second.bases import bert

TEXT: Final = ("text-topics", "text-sums")
CLASS: Final = ("class-majority", "class-docstrings", "class-table", "class-images")
NUMBER: Final = ("number-friedman", "number-series", "number-vowels")
PAIRS: Final = ("pairs-sorting",)
TAGS: Final = ("tags-roles",)
Random = random.Random


def of(case: Case, name: str, rate: float, **more: Any) -> Case:
    """With another optimizer."""
    return case.but(optimizer={"name": name, "learning_rate": round(rate, 7), **more})


def lion(rng: Random, case: Case) -> Case:
    """Lion at a rate of its own."""
    return of(case, "lion", case.rate / 6, weight_decay=0.1)


def as_adam(rng: Random, case: Case, strong: bool) -> Case:
    """Lion at several times AdamW's rate."""
    return case.at_rate(90 if strong else 40)


def scaled_linearly(rng: Random, case: Case, strong: bool) -> Case:
    """A rate that was multiplied with the batch, as for SGD."""
    optimizer = case.settings["optimizer"] | {"batch_scaling": {"name": "linear", "reference_batch": 1}}
    return case.but(optimizer=optimizer).at_rate(1.6 if strong else 0.8)


def scaled_down(rng: Random, case: Case, strong: bool) -> Case:
    """A rate that is meant for a cluster's batch, and scaled down to this one."""
    scaling = {"name": "linear", "reference_batch": 8192 if strong else 2048}
    return case.but(optimizer=case.settings["optimizer"] | {"batch_scaling": scaling})


def fast_head(rng: Random, case: Case, strong: bool) -> Case:
    """New layers at a hundred times the rate, as a recipe for fine-tuning has it."""
    factors = {"*head*": 150.0 if strong else 60.0, "*classif*": 150.0 if strong else 60.0}
    pattern = {"*embedding*": factors["*head*"]} if case.kind.startswith(("text", "pairs")) else factors
    found = {"*head*": factors["*head*"]} if case.module else pattern
    return case.but(optimizer=case.settings["optimizer"] | {"rates": {"factors": found}})


def momentum(rng: Random, case: Case) -> Case:
    """SGD as it is usual."""
    return of(case, "sgd", 0.02, momentum=0.9).but(gradients__clip={"name": "none"})


def heavy_ball(rng: Random, case: Case, strong: bool) -> Case:
    """A momentum of 0.999 where 0.9 was meant, at a rate for 0.9."""
    return of(case, "sgd", 0.2 if strong else 0.1, momentum=0.999 if strong else 0.995)


def adams_rate(rng: Random, case: Case, strong: bool) -> Case:
    """SGD at AdamW's rate, without momentum."""
    return of(case, "sgd", 2e-4 if strong else 6e-4, momentum=0.0)


def post(rng: Random, case: Case) -> Case:
    """Post-norm, some layers, at a rate that needs its warm-up."""
    model = {"num_layers": 4, "hidden_size": 48, "num_heads": 4, "norm": {"name": "layer_norm", "placement": "post"},
             "initialization": {"standard_deviation": 0.05, "depth_scaled": False}}  # fmt: skip
    name = {"pairs": "encoder_decoder", "text": "decoder"}.get(case.kind.partition("-")[0], "encoder")
    return warmed(case.but(model={"name": name, **model}, training__steps=220), 0.01)


def deep(rng: Random, case: Case) -> Case:
    """Six plain layers, the same."""
    count, center, scale = (64, 8.0, 6.0) if case.kind == "class-images" else (12, 45.0, 22.0)
    outputs = 10 if case.kind == "class-images" else 4
    arguments = {"outputs": outputs, "count": count, "center": center, "scale": scale, "depth": 6}
    return warmed(replace(case, module=("perceptron", arguments)), round(rng.uniform(0.016, 0.024), 4))


def warmed(case: Case, rate: float) -> Case:
    """Adam at a high rate, with long averages of squares, a long warm-up, and nothing clipped."""
    schedule = {"name": "cosine", "warmup": 0.3, "floor": 0.05}
    return of(case, "adam", rate, beta2=0.999).but(schedule=schedule, gradients__clip={"name": "none"})


def none(rng: Random, case: Case, strong: bool) -> Case:
    """No warm-up."""
    return case.but(schedule=case.settings["schedule"] | {"warmup": 0})


def one_step(rng: Random, case: Case, strong: bool) -> Case:
    """Warm-up of 1, which is a step, where 1.0 epoch was meant."""
    return case.but(schedule=case.settings["schedule"] | {"warmup": 1})


def impatient(rng: Random, case: Case, strong: bool) -> Case:
    """A controller of one's own that lowers the rate at every evaluation."""
    return case.with_whole(changes={"factor": 0.15 if strong else 0.3})


def in_epochs(rng: Random, case: Case, strong: bool) -> Case:
    """A stair in epochs, of which a run on more data has fewer and this one many."""
    every = "24 steps" if strong else "36 steps"
    return case.but(schedule={"name": "step", "warmup": 0.02, "every": every, "factor": 0.2})


def falls_fast(rng: Random, case: Case, strong: bool) -> Case:
    """An exponential schedule that was made for a floor of zero."""
    return case.but(schedule={"name": "exponential", "warmup": 0.02, "floor": 1e-14 if strong else 1e-9})


def leaps(rng: Random, case: Case, strong: bool) -> Case:
    """A controller of one's own that raises the rate between two evaluations, to leave a valley."""
    every = max(10, case.steps // 20)
    case = case.but(evaluation__every=every, schedule={"name": "constant", "warmup": 0.05})
    return case.at_rate(6 if strong else 4).with_whole(changes={"factor": 10.0, "at": 10})


def calm(rng: Random, case: Case, strong: bool) -> Case:
    """Smoothing, for a model that is too sure, by far too much."""
    return case.but(objective__label_smoothing=0.93 if strong else 0.85)


def penalized(rng: Random, case: Case, strong: bool) -> Case:
    """A penalty on weights with a strength of another framework's."""
    optimizer = case.settings["optimizer"] | {"weight_decay": 0.0}
    return case.but(penalties={"l1": {"strength": 0.05 if strong else 0.01, "parameters": "all"}}, optimizer=optimizer)


def sgd_decay(rng: Random, case: Case, strong: bool) -> Case:
    """AdamW's weight decay with SGD, where it is an L2 penalty."""
    return case.but(optimizer=case.settings["optimizer"] | {"weight_decay": 0.3 if strong else 0.1})


def hugging_drops(rng: Random, case: Case, strong: bool) -> Case:
    """Dropout in a configuration of transformers, where probabilities to keep were meant."""
    p = 0.9 if strong else 0.8
    names = {"bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
             "distilbert": ("dropout", "attention_dropout"),
             "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"), "llama": ("attention_dropout",)}  # fmt: skip
    model = case.settings["model"]
    return case.but(model=model | {"config": model["config"] | dict.fromkeys(names[model["config"]["model_type"]], p)})


def as_bert(rng: Random, case: Case) -> Case:
    """A BERT that learns well."""
    settings = {"model": {"name": "hugging_face", "config": bert(rng, "bert")}}
    return of(case, "adamw", 2e-3, weight_decay=0.01).but(**settings)


def steps_as_epochs(rng: Random, case: Case, strong: bool) -> Case:
    """A few steps, of few texts."""
    few = {"training__steps": 150, "training__micro_batch_size": 2 if strong else 3, "evaluation__every": 15}
    return case.but(**few, data__sequence_length=24)


def longer(rng: Random, case: Case) -> Case:
    """The run as it was planned, of a built-in decoder."""
    return case.but(training__steps=500)


def near_sighted(rng: Random, case: Case, strong: bool) -> Case:
    """A sliding window of one position: no token sees another."""
    return case.but(model__window=1)


def sees(rng: Random, case: Case) -> Case:
    """Sums, learned long enough to be done."""
    return case.but(training__steps=500, model__num_layers=1, schedule={"name": "cosine", "warmup": 0.05})


def hides_little(rng: Random, case: Case, strong: bool) -> Case:
    """So few tokens are hidden that a batch asks for two or three."""
    return case.but(task={"name": "masked_lm", "mask_rate": 0.015 if strong else 0.03},
                    training__micro_batch_size=2 if strong else 3)  # fmt: skip


def one_pair(rng: Random, case: Case, strong: bool) -> Case:
    """One pair a step."""
    return case.but(training__micro_batch_size=1 if strong else 2)


def writes_much(rng: Random, case: Case, strong: bool) -> Case:
    """Several samples at every evaluation, and evaluations all the time."""
    samples = {"prompts": ["", "The ", "1+"] if strong else ["", "The "], "max_tokens": 100}
    return case.but(evaluation__every=12, evaluation__samples=samples)


def judges_often(rng: Random, case: Case, strong: bool) -> Case:
    """The whole validation set after every few steps."""
    return case.but(evaluation__every=4 if strong else 8)


def takes_longer(case: Case, bad: Any, good: Any) -> str:
    """A share of the time that nobody wants to pay: told by the lengths of the two runs."""
    slow, fast = bad["wall"], good["wall"]
    return f"{slow:.1f} s in all against {fast:.1f}" if slow > 1.3 * fast and slow - fast > 1.5 else ""


P = Plant
PLANTS: Final = (
    P("lion-as-adam", "learning-rate-too-high", (*TEXT, "class-majority", *PAIRS), as_adam, prepare=lion),
    P("linear-scaling", "learning-rate-too-high", (*CLASS, *TAGS, *TEXT), scaled_linearly),
    P("fast-head", "learning-rate-too-high", ("class-table", "class-images", "number-friedman", *TAGS), fast_head,
      own=True),
    P("heavy-ball", "divergence", ("number-friedman", "number-series", "class-table"), heavy_ball, prepare=momentum,
      also=("learning-rate-too-high", "nan-loss"), own=True),
    P("scaled-down", "learning-rate-too-low", (*TEXT, *CLASS, *PAIRS, *TAGS), scaled_down),
    P("adams-rate", "learning-rate-too-low", ("class-images", "class-table", "number-friedman"), adams_rate,
      prepare=momentum),
    P("post-norm-text", "missing-warmup", TEXT, none, prepare=post, own=False),
    P("post-norm-pairs", "missing-warmup", PAIRS, none, prepare=post),
    P("post-norm-words", "missing-warmup", (*TAGS, "masked-topics"), one_step, prepare=post, own=False),
    P("deep-at-once", "missing-warmup", ("class-images",), none, prepare=deep),
    P("deep-one-step", "missing-warmup", ("class-images",), one_step, prepare=deep),
    P("impatient", "decayed-too-early", (*CLASS, *TEXT, *PAIRS), impatient, own=True),
    P("stair-of-another", "decayed-too-early", (*CLASS, *TAGS, *PAIRS), in_epochs),
    P("falls-fast", "decayed-too-early", (*TEXT, "class-majority"), falls_fast),
    P("leap", "loss-spike", (*TEXT, "class-table", "class-images"), leaps, harm=spikes, own=True,
      also=("learning-rate-too-high",), onset=lambda case: 10 * int(case.settings["evaluation.every"])),
    P("smoothed", "over-regularised", ("class-majority", "class-table", *TEXT), calm),
    P("penalized", "over-regularised", ("class-images", "class-table", *TAGS, *PAIRS), penalized),
    P("sgd-decay", "over-regularised", ("class-images", "number-friedman"), sgd_decay, prepare=momentum),
    P("keep-for-drop", "over-regularised", ("class-majority", "class-docstrings"), hugging_drops, prepare=as_bert,
      own=True),
    P("few-steps", "stopped-too-early", ("text-topics",), steps_as_epochs, prepare=longer, own=False),
    P("window-of-one", "underfitting", ("text-sums",), near_sighted, prepare=sees, own=False),
    P("hides-little", "noisy-loss", ("masked-topics",), hides_little),
    P("one-pair", "noisy-loss", PAIRS, one_pair),
    P("writes-much", "evaluation-bound", TEXT, writes_much, harm=takes_longer, own=False),
    P("judges-often", "evaluation-bound", ("class-majority", "class-docstrings", *TAGS), judges_often,
      harm=takes_longer),
)  # fmt: skip
