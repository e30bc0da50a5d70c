"""Mistakes in a module, in what is around it, and on the machine."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final

from own_examiner.case import Case
from own_examiner.plant import Outcome, Plant, grows, jumps, lasts
from own_examiner.second.bases import COLUMNS
from own_examiner.second.faults_of_data import mostly_one
from own_examiner.second.faults_of_settings import TAGS, of

Random = random.Random
ROWS: Final = ("class-table", "class-images", "number-friedman", "number-series")


def outputs(case: Case) -> int:
    """What the head gives."""
    return {"class-table": 4, "class-majority": 4, "class-images": 10, "labels-subjects": 5, "tags-roles": 5,
            "text-topics": 257}.get(case.kind, 1)  # fmt: skip


def module(name: str, **more: Any) -> Any:
    """A plain module for rows of numbers in place of whatever was drawn."""

    def prepare(rng: Random, case: Case) -> Case:
        count = COLUMNS[case.kind]
        center, scale = (8.0, 6.0) if count == 64 else (45.0, 22.0)
        places = {"shift": center} if name == "residual" else {"center": center}
        return replace(case, module=(name, {"outputs": outputs(case), "count": count, "scale": scale} | places | more))

    return prepare


def recurrent(cell: str = "LSTM", **more: Any) -> Any:
    """A recurrent net, whatever was drawn."""

    def prepare(rng: Random, case: Case) -> Case:
        of_what = {"text-topics": "text", "tags-roles": "tags"}.get(case.kind, "one")
        count = COLUMNS.get(case.kind, 0)
        arguments = {"outputs": outputs(case), "of": of_what, "cell": cell, "count": count}
        settings = {"objective": {"name": "binary_cross_entropy"}} if case.kind == "labels-subjects" else {}
        case = case.but(model={"name": "decoder" if of_what == "text" else "encoder"}, **settings)
        return of(replace(case, module=("recurrent", arguments | more)), "adamw", 5e-3)

    return prepare


def distilbert(rng: Random, case: Case) -> Case:
    """A model of transformers within a module of the user's."""
    config = {"model_type": "distilbert", "dim": 40, "hidden_dim": 80, "n_layers": 2, "n_heads": 4, "vocab_size": 257,
              "max_position_embeddings": 96, "num_labels": outputs(case), "dropout": 0.4, "attention_dropout": 0.3,
              "seq_classif_dropout": 0.4, "initializer_range": 0.05}  # fmt: skip
    case = case.but(model={"name": "encoder"})
    return of(replace(case, module=("transformers", {"config": config, "of": "class"})), "adamw", 2e-3)


def around(**arguments: Any) -> Any:
    """Something around the module, as strong as the pair says."""

    def spoil(rng: Random, case: Case, strong: bool) -> Case:
        return case.with_whole(**{name: it[strong] if isinstance(it, list) else it for name, it in arguments.items()})

    return spoil


def within(**arguments: Any) -> Any:
    """Something within the module."""

    def spoil(rng: Random, case: Case, strong: bool) -> Case:
        return case.with_module(**{name: it[strong] if isinstance(it, list) else it for name, it in arguments.items()})

    return spoil


def cut_off(rng: Random, case: Case, strong: bool) -> Case:
    """`.detach()`, or `no_grad`, between the layers and the head."""
    assert case.module is not None
    return case.with_module(cut=rng.choice(("detach", "no_grad")) if case.module[0] == "recurrent" else True)


def no_rate(rng: Random, case: Case, strong: bool) -> Case:
    """A rate of nought for all but the head, left in from a first stage."""
    factors = {"*blocks*": 0.0, "*embedding*": 0.0} if strong else {"*blocks*": 0.0}
    return case.but(model__freeze=list(factors))


def wide(rng: Random, case: Case, strong: bool) -> Case:
    """`initializer_range` of 1 in a configuration of transformers."""
    model = case.settings["model"]
    return case.but(model=model | {"config": model["config"] | {"initializer_range": 1.5 if strong else 0.8}})


def offset(rng: Random, case: Case, strong: bool) -> Case:
    """A column such as a year: all values far from nought, their differences small."""
    return case.with_module(offset=300.0 if strong else 60.0)


def raw(rng: Random, case: Case, strong: bool) -> Case:
    """Images of 0 to 255 squared, or values as they are counted."""
    return case.with_module(scale=0.004 if strong else 0.02)


def no_clip(cell: Any) -> Any:
    """The same without clipping, by SGD."""

    def prepare(rng: Random, case: Case) -> Case:
        return of(cell(rng, case), "sgd", 0.02, momentum=0.9).but(gradients__clip={"name": "none"})

    return prepare


def half(rng: Random, case: Case) -> Case:
    """float16."""
    case = module("perceptron")(rng, case)
    return case.but(training__precision={"name": "fp16"}, lint__allow=["fp16-without-cuda"])


def killed(rng: Random, case: Case) -> Case:
    """Killed some steps behind a checkpoint."""
    return replace(case, killed_at=int(case.settings["evaluation.every"]) * rng.choice((4, 5)) + 9)


def resumed_at(case: Case) -> int | None:
    """Where it goes on."""
    every = int(case.settings["evaluation.every"])
    return None if case.killed_at is None else case.killed_at // every * every


def killed_mean(rng: Random, case: Case) -> Case:
    """A module with a running mean in an attribute, killed."""
    return killed(rng, case).with_whole(running=True)


def other_labels(rng: Random, case: Case, strong: bool) -> Case:
    """The file was written anew before it was resumed, and classes, or units, are others."""
    return replace(case, resumed={"data": {"moved": 3}, "settings": {"seed": case.settings["seed"]}})


def as_is(rng: Random, case: Case, strong: bool) -> Case:
    """Nothing but what is there already."""
    return replace(case, resumed={"settings": {"seed": case.settings["seed"]}})


def broken(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The loss is no number, for many steps or to the end."""
    lost = sum(not abs(loss) < 1e9 for _, loss in bad["train"])
    return f"no number in {lost} steps; {bad['status']}" if lost or bad["status"] == "failed" else ""


def constant_rows(rng: Random, case: Case, strong: bool) -> Case:
    """Rows of one number throughout, of which the deviation is nought."""
    return case.with_data(constant_rows=0.1 if strong else 0.02)


def tagger(rng: Random, case: Case) -> Case:
    """A tagger with strong dropout."""
    return recurrent()(rng, case).with_module(dropout=rng.choice((0.4, 0.5)))


P = Plant
PLANTS: Final = (
    P("softmax-tags", "double-softmax", (*TAGS, "text-topics"), around(squash="softmax"), prepare=recurrent()),
    P("sigmoid-labels", "double-softmax", ("labels-subjects",), around(squash="sigmoid"), prepare=recurrent()),
    P("always-drops", "evaluated-in-training-mode", (*TAGS, "text-topics", "number-series"), within(always=True),
      prepare=tagger),
    P("never-evaluates", "evaluated-in-training-mode", ("class-majority",), within(stays=True), prepare=distilbert),
    P("cut-off", "frozen-parameters", (*TAGS, "text-topics", "number-series"), cut_off, prepare=recurrent()),
    P("cut-off-mixer", "frozen-parameters", ("class-table", "class-images", "number-friedman"), cut_off,
      prepare=module("mixer")),
    P("stage-one", "frozen-parameters", ("text-sums", "pairs-sorting", "masked-topics"), no_rate, own=False),
    P("wide-start", "bad-initialization", ("class-majority", "number-vowels"), wide, own=True),
    P("orthogonal", "bad-initialization", ("number-friedman", "class-table"), within(weights="gain"),
      prepare=module("perceptron", depth=5)),
    P("tiny-start", "vanishing-gradients", ("number-friedman", "class-table", "class-images"), within(weights="tiny"),
      prepare=module("perceptron", depth=6), also=("bad-initialization",)),
    P("plain-convolutions", "vanishing-gradients", ("class-images", "number-series"),
      within(activation="Sigmoid", residual=False, norm="none"), prepare=module("residual", blocks=7)),
    P("shifted-norms", "dead-units", ("class-images", "class-table"), within(beta=[-3.0, -6.0]),
      prepare=module("residual", blocks=3, residual=False), also=("bad-initialization",)),
    P("negative-weights", "dead-units", ("class-images", "class-table"), within(weights="negative", offset=6.0),
      prepare=module("perceptron", depth=2), also=("bad-initialization",)),
    P("far-from-nought", "unscaled-inputs", ("class-table", "number-friedman"), offset, prepare=module("perceptron")),
    P("raw-values", "unscaled-inputs", ("class-images", "number-series"), raw, prepare=module("residual")),
    P("grown-cells", "exploding-gradients", ("number-series",), within(gain=[1.5, 2.0]),
      prepare=no_clip(recurrent("RNN")), also=("divergence", "bad-initialization", "nan-loss")),
    P("kept-by-hook", "gradients-not-cleared", (*ROWS, *TAGS), around(not_cleared=[0.98, 1.0]),
      own=True),
    P("empty-deviation", "nan-loss", ("class-table",), constant_rows, harm=broken,
      prepare=lambda rng, case: module("perceptron")(rng, case).with_whole(row_scale=True)),
    P("log-by-hand", "nan-loss", ROWS, around(explodes_after=[220, 160]), harm=broken,
      also=("divergence",), onset=lambda case: int(case.whole["explodes_after"])),
    P("norm-in-half", "loss-scale-collapse", ("class-table", "number-friedman"), around(half=[3000.0, 20000.0]),
      prepare=half),
    P("cached-batches", "memory-leak", ("class-images", "number-series"), around(caches=[1, 200]),
      harm=grows, has_twin=False),
    P("film", "memory-leak", (*ROWS, *TAGS), around(keeps_weights=[1.0, 3.0]), harm=grows, has_twin=False),
    P("writes-all", "throughput-decay", ROWS, around(rewrites=[100, 250]), harm=lasts("grows", 1.8),
      has_twin=False),
    P("attribute", "resume-discontinuity", ("class-table", "class-images"), as_is, harm=jumps, prepare=killed_mean,
      onset=resumed_at, has_twin=False, own=True),
    P("other-file", "resume-discontinuity", ("class-table", "class-images", "number-friedman"), other_labels,
      harm=jumps, prepare=killed, onset=resumed_at, has_twin=False, own=True),
    P("reads-padding", "class-collapse", ("class-majority",), within(inverted=True), prepare=distilbert,
      harm=mostly_one),
    P("reads-first", "class-collapse", ("class-table",), within(first=True), prepare=recurrent(), harm=mostly_one),
    P("biased-head", "class-collapse", ("class-table", "class-majority"), around(bias=[30.0, 100.0]),
      prepare=lambda rng, case: recurrent()(rng, case).at_rate(0.2), harm=mostly_one, also=("bad-initialization",)),
)  # fmt: skip
