"""What users do wrong with their data, by the name of an option."""

from __future__ import annotations

import random
import string

from own_examiner.data import KINDS, TARGETS, Options, Row


def spoil(
    kind: str, rng: random.Random, options: Options, training: list[Row], validation: list[Row]
) -> tuple[list[Row], list[Row]]:
    """Both sets with the mistakes that `options` name."""
    target = TARGETS.get(kind, "text")
    if "imbalance" in options:
        training = _imbalanced(training, options["imbalance"], rng)
        validation = _imbalanced(validation, options["imbalance"], rng)
    if "wrong_labels" in options:  # in the training set alone, as by careless annotators of a checked validation set
        _mislabel(training, target, options["wrong_labels"], rng)
    if "wrong_labels_everywhere" in options:
        _mislabel(training, target, options["wrong_labels_everywhere"], rng)
        _mislabel(validation, target, options["wrong_labels_everywhere"], rng)
    if "shuffled_targets" in options:  # a column that was sorted by itself, joined by the wrong key ...
        _shuffle(training, target, rng)
        if options["shuffled_targets"] == "both":
            _shuffle(validation, target, rng)
    if "outliers" in options:
        part, size = options["outliers"]
        for row in training:
            if rng.random() < part:
                row["value"] *= size * rng.choice((-1, 1)) * rng.uniform(0.5, 1.5)
    if options.get("target_in_text"):
        for row in (*training, *validation):
            row["text"] = _with_target(kind, row)
    if "shifted_validation" in options:
        validation = _shifted(kind, options["shifted_validation"], rng, validation)
    if "validation_rows" in options:
        validation = validation[: options["validation_rows"]]
    if "leaked" in options:  # rows of the validation set that are trained on as well
        part, times = options["leaked"]
        training += [dict(row) for row in validation[: int(part * len(validation))] for _ in range(times)]
        rng.shuffle(training)
    if options.get("sorted"):
        training.sort(key=lambda row: row[target])
    if "corrupt" in options:
        at, count = options["corrupt"]
        labels = sorted({row[target] for row in training}) if target == "label" else []
        for row in training[at : at + count]:
            _corrupt(row, target, labels, rng)
    return training, validation


def _with_target(kind: str, row: Row) -> str:
    """A text that tells its target: a path left in it, a column of the answer among those of the question."""
    if kind == "packages":
        return f"# site-packages/{row['label']}/ {row['text']}"
    if kind == "digits":
        at = int(row["label"][1:])
        marked = [chr(33 + 16 * (place == at)) if place < 10 else one for place, one in enumerate(row["text"])]
        return "".join(marked)
    return chr(33 + min(90, max(0, round(5 * row["value"] + 20)))) + row["text"][1:]


def _imbalanced(rows: list[Row], rest: float, rng: random.Random) -> list[Row]:
    """Of all classes but the first only a part."""
    first = min(row["label"] for row in rows)
    return [row for row in rows if row["label"] == first or rng.random() < rest]


def _mislabel(rows: list[Row], target: str, part: float, rng: random.Random) -> None:
    labels = sorted({row[target] for row in rows})
    for row in rows:
        if rng.random() < part:
            row[target] = rng.choice([one for one in labels if one != row[target]])


def _shuffle(rows: list[Row], target: str, rng: random.Random) -> None:
    values = [row[target] for row in rows]
    rng.shuffle(values)
    for row, value in zip(rows, values, strict=True):
        row[target] = value


def _shifted(kind: str, how: str, rng: random.Random, validation: list[Row]) -> list[Row]:
    """Validation data of another kind."""
    if kind in ("code", "prose"):
        return KINDS["prose" if kind == "code" else "code"](rng, {"package": how, "characters": 120_000})[1]
    if kind == "packages":  # as another pipeline writes it: lower case without spaces
        return [row | {"text": "".join(row["text"].lower().split())} for row in validation]
    if kind == "digits":  # white on black, or brighter
        return [row | {"text": "".join(chr(33 + 16 - (ord(one) - 33)) for one in row["text"])} for row in validation]
    if kind == "numbers":  # of another year: all values have moved
        return [row | {"text": "".join(chr(min(123, ord(one) + 25)) for one in row["text"])} for row in validation]
    return [row | {"text": row["text"].upper()} for row in validation]


def _corrupt(row: Row, target: str, labels: list[str], rng: random.Random) -> None:
    """What a torn file or a parser that lost its place leaves."""
    if target == "value":
        row["value"] = 60.0 * rng.choice((-1, 1))
    elif target == "text":
        row["text"] = "".join(rng.choice(string.printable) for _ in range(len(row["text"])))
    else:
        row["label"] = labels[(labels.index(row["label"]) + 1) % len(labels)]
