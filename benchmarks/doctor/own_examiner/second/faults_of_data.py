"""Mistakes in the data."""

from __future__ import annotations

import random
from typing import Final

from own_examiner.case import Case
from own_examiner.plant import Outcome, Plant, better, collapsed, explains_less, overfits, scatters, spikes
from own_examiner.second.faults_of_settings import CLASS, NUMBER, PAIRS, TAGS, TEXT

Random = random.Random
ROWS: Final = ("class-table", "class-majority", "number-friedman", "number-series")


def confusing(rng: Random, case: Case, strong: bool) -> Case:
    """One class is taken for the next."""
    return case.with_data(confused=round(rng.uniform(0.38, 0.45) if strong else rng.uniform(0.25, 0.32), 2))


def late(rng: Random, case: Case, strong: bool) -> Case:
    """A join that is a row off; of tags all words'."""
    return case.with_data(moved=7 if strong else 1)


def in_blocks(rng: Random, case: Case, strong: bool) -> Case:
    """Blocks of one class each, not shuffled."""
    return case.with_data(blocks=600 if strong else 300).but(data__shuffle=False)


def one_after_other(rng: Random, case: Case, strong: bool) -> Case:
    """Two sources, one behind the other."""
    tokens = case.settings["training.micro_batch_size"] * case.steps * case.settings["data.sequence_length"]
    size = tokens // (700 if case.kind == "text-topics" else 400)
    return case.with_data(cut=size, two_sources=0.5).but(data__shuffle=False)


def in_file_order(rng: Random, case: Case) -> Case:
    """One pass in the order of the file, which is random."""
    return case.with_data(rows=case.settings["training.micro_batch_size"] * case.steps).but(data__shuffle=False)


def torn_at(case: Case) -> int | None:
    """The step of the spoilt rows, where a row is a row of a batch."""
    return None if case.kind.startswith("text") else case.steps * 6 // 10


def torn(rng: Random, case: Case, strong: bool) -> Case:
    """A spoilt piece."""
    batch, at = case.settings["training.micro_batch_size"], torn_at(case)
    if at is None:
        return case.with_data(torn=(40, 2 if strong else 1, 1))
    count = batch // 4 if case.kind.startswith("number") else batch * (2 if strong else 1)
    return case.with_data(torn=(batch * at, count, 2 if strong else 1))


def squares(rng: Random, case: Case) -> Case:
    """Squares, on rows in the order of the file."""
    return in_file_order(rng, case).but(objective={"name": "mse"})


def missing(rng: Random, case: Case, strong: bool) -> Case:
    """9999 or −999 for what is missing."""
    return case.with_data(sentinel=0.02 if strong else 0.005).but(objective={"name": "mse"})


def lottery(rng: Random, case: Case, strong: bool) -> Case:
    """Values with a heavy tail, and squares."""
    return case.with_data(heavy=0.9 if strong else 1.1).but(objective={"name": "mse"})


def few_rows(rng: Random, case: Case) -> Case:
    """So few rows that a copy counts."""
    case = case.with_data(cut=30) if case.kind.startswith("text") else case.with_data(cut=500)
    return case.but(training__steps=400)


def copies(rng: Random, case: Case, strong: bool) -> Case:
    """Copies on both sides."""
    return case.with_data(copied=1.0 if strong else 0.7)


def told(rng: Random, case: Case, strong: bool) -> Case:
    """The answer is in the text."""
    return case.with_data(told=1.0)


def open_question(rng: Random, case: Case) -> Case:
    """A question with much noise."""
    return case.with_data(noise=8.0 if case.kind == "number-series" else 3.0, flip=0.2)


def elsewhere(rng: Random, case: Case, strong: bool) -> Case:
    """Validation data of another kind."""
    return case.with_data(elsewhere=1.0)


def restless(rng: Random, case: Case) -> Case:
    """Much noise, a high rate that stays, judged often."""
    case = open_question(rng, case).at_rate(1.5)
    return case.but(evaluation__every=max(10, case.steps // 22), schedule={"name": "constant", "warmup": 0.05})


def few_judged(rng: Random, case: Case, strong: bool) -> Case:
    """A handful of validation rows."""
    return case.with_data(few=rng.randint(3, 5) if strong else rng.randint(6, 10))


def by_heart(rng: Random, case: Case, strong: bool) -> Case:
    """Few rows, many passes."""
    rows = {"class-docstrings": 160, "class-table": 90, "number-friedman": 90, "tags-roles": 40, "text-topics": 12}
    case = case.with_data(cut=rows[case.kind] // (2 if strong else 1), flip=0.2, noise=2.5)
    return case.but(training__steps=450, training__micro_batch_size=12).at_rate(1.5)


def rare(rng: Random, case: Case, strong: bool) -> Case:
    """All classes but one hardly occur, and the rate is low."""
    return case.with_data(rare=0.01 if strong else 0.02).at_rate(0.1)


def one_counts(rng: Random, case: Case, strong: bool) -> Case:
    """A class that was given a weight of a thousand."""
    name = {"class-table": "c0", "class-majority": "a", "class-docstrings": "polys", "class-images": "d0"}[case.kind]
    names = {"class-table": [f"c{n}" for n in range(4)], "class-majority": list("abcd"),
             "class-images": [f"d{n}" for n in range(10)],
             "class-docstrings": ["polys", "physics", "functions", "stats"]}[case.kind]  # fmt: skip
    weights = dict.fromkeys(names, 1.0) | {name: 5000.0 if strong else 1000.0}
    return case.but(task=case.settings["task"] | {"class_weights": weights})


def mostly_one(case: Case, bad: Outcome, good: Outcome | None) -> str:
    """The accuracy is far below the twin's, and near that of one answer for all."""
    assert good is not None
    ours, theirs = bad["accuracy"][-1][1], good["accuracy"][-1][1]
    return f"accuracy {ours:.2f} against {theirs:.2f}" if ours < 0.4 and theirs > 2 * ours else ""


P = Plant
PLANTS: Final = (
    P("confusing", "label-noise", CLASS, confusing),
    P("confusing-tags", "label-noise", TAGS, confusing),
    P("row-off", "random-labels", ("class-majority", "class-images", "number-friedman", "number-series"), late),
    P("tags-off", "random-labels", (*TAGS, "class-docstrings"), late),
    P("blocks", "unshuffled-data", ("class-majority", "class-images", "class-table", "number-vowels"), in_blocks),
    P("two-sources", "unshuffled-data", TEXT, one_after_other),
    P("torn-values", "corrupt-batch", ("number-friedman", "number-series"), torn, harm=spikes, prepare=squares,
      onset=torn_at),
    P("torn-text", "corrupt-batch", TEXT, torn, harm=spikes, prepare=in_file_order),
    P("torn-pairs", "corrupt-batch", PAIRS, torn, harm=spikes, prepare=in_file_order, onset=torn_at),
    P("torn-classes", "corrupt-batch", ("class-majority", "class-table"), torn, harm=spikes,
      prepare=in_file_order, onset=torn_at),
    P("torn-tags", "corrupt-batch", TAGS, torn, harm=spikes, prepare=in_file_order, onset=torn_at),
    P("missing-value", "outlier-dominated-loss", NUMBER, missing, harm=explains_less),
    P("lottery", "outlier-dominated-loss", ("number-friedman", "number-vowels"), lottery, harm=explains_less),
    P("copies", "leakage", ("class-docstrings", *TAGS, "text-topics"), copies, harm=better, prepare=few_rows),
    P("next-value", "target-leak", ("number-series", "number-friedman"), told, harm=better, prepare=open_question),
    P("path-in-text", "target-leak", ("class-docstrings", "class-table"), told, harm=better, prepare=open_question),
    P("elsewhere", "validation-shift", ("number-series", "class-images", "class-docstrings"), elsewhere),
    P("longer-words", "validation-shift", (*PAIRS, *TAGS), elsewhere),
    P("few-judged", "validation-too-small", ("class-table", "number-friedman", "number-series"), few_judged,
      harm=scatters, prepare=restless),
    P("by-heart", "overfitting", ("class-docstrings", "class-table", "number-friedman"), by_heart, harm=overfits,
      has_twin=False),
    P("text-by-heart", "overfitting", ("text-topics",), by_heart, harm=overfits, has_twin=False),
    P("rare-classes", "class-collapse", ("class-majority", "class-docstrings", "class-images"), rare, harm=collapsed,
      has_twin=False, also=("learning-rate-too-low",)),
    P("one-counts", "class-collapse", ("class-table",), one_counts, harm=mostly_one,
      prepare=open_question),
)  # fmt: skip
