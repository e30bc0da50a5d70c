"""What is wrong with the data of the second set, by the name of an option."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

from own_examiner.second.tasks import FIRST, TARGETS, TASKS, Options, Row, coded, family, series


def spoiled(folder: Path, kind: str, seed: int, options: Options) -> tuple[Path, Path]:
    """Files with the training and the validation rows."""
    rng = random.Random(f"{kind}/{seed}")
    training, validation = TASKS[kind](rng, options)
    rng = random.Random(f"spoil/{seed}")
    target = TARGETS.get(family(kind), "text")
    for name, value in options.items():
        if name in WAYS:
            training, validation = WAYS[name](kind, target, rng, value, training, validation)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "validation.jsonl"
    for path, rows in zip(paths, (training, validation), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


Rows = list[Row]


def confused(kind: str, target: str, rng: random.Random, part: float, training: Rows, validation: Rows
             ) -> tuple[Rows, Rows]:  # fmt: skip
    """Each class is taken for the next one by the same annotator, so often; of tags, single words are."""
    names = sorted({one for row in training for one in _all(row[target])})
    after = dict(zip(names, names[1:] + names[:1], strict=True))

    def other(value: object) -> object:
        if isinstance(value, list):
            return [after[one] if rng.random() < part else one for one in value]
        return after[value] if rng.random() < part else value  # type: ignore[index]

    for row in training:
        row[target] = other(row[target])
    return training, validation


def moved(kind: str, target: str, rng: random.Random, by: int, training: Rows, validation: Rows) -> tuple[Rows, Rows]:
    """The column of targets begins some rows late."""
    for rows in (training, validation):
        values = [row[target] for row in rows]
        if target == "tags":
            flat = [one for value in values for one in value]
            rng.shuffle(flat)
            for row in rows:
                row["tags"] = [flat.pop() for _ in row["text"]]
            continue
        for row, value in zip(rows, values[by:] + values[:by], strict=True):
            row[target] = value
    return training, validation


def blocks(kind: str, target: str, rng: random.Random, size: int, training: Rows, validation: Rows
           ) -> tuple[Rows, Rows]:  # fmt: skip
    """Rows come from a data base in blocks of one class, or of near values, one after the other."""
    training.sort(key=lambda row: str(row[target]) if target == "label" else row[target])
    parts = [training[at : at + size] for at in range(0, len(training), size)]
    count = max(1, len(parts) // 6)  # one block of each class, and then again
    return [row for start in range(count) for part in parts[start::count] for row in part], validation


def two_sources(kind: str, target: str, rng: random.Random, part: float, training: Rows, validation: Rows
                ) -> tuple[Rows, Rows]:  # fmt: skip
    """One source after the other: sums behind prose."""
    other = TASKS["text-sums" if kind == "text-topics" else "text-topics"](rng, {"rows": 600})
    count = int(part * len(training))
    share = len(validation) // 2
    return training[:count] + other[0][: len(training) - count], validation[:share] + other[1][:share]


def torn(kind: str, target: str, rng: random.Random, where: list[int], training: Rows, validation: Rows
         ) -> tuple[Rows, Rows]:  # fmt: skip
    """Some rows on end are spoilt: what a sensor, a parser or a download leaves."""
    for row in training[where[0] : where[0] + where[1]]:
        if target == "value":
            row["value"] = 999.0 if where[2] > 1 else 150.0
        elif target == "text":
            row["text"] = base64.b64encode(rng.randbytes(len(row["text"]))).decode()[: len(row["text"])]
        elif target == "target":
            row["target"] = "".join(rng.choice("0123456789XYZ#") for _ in range(6))
        elif target == "tags":
            row["tags"] = ["keyword"] * len(row["tags"])
        else:
            row["text"] = chr(FIRST + 93) * len(row["text"]) if kind == "class-images" else row["text"][::-1]
            row["label"] = sorted({one["label"] for one in training})[0]
    return training, validation


def constant_rows(kind: str, target: str, rng: random.Random, part: float, training: Rows, validation: Rows
                  ) -> tuple[Rows, Rows]:  # fmt: skip
    """Some rows have the same number in every column."""
    for row in training:
        if rng.random() < part:
            row["text"] = row["text"][0] * len(row["text"])
    return training, validation


def sentinel(kind: str, target: str, rng: random.Random, part: float, training: Rows, validation: Rows
             ) -> tuple[Rows, Rows]:  # fmt: skip
    """A missing value was written as a number."""
    for row in training:
        if rng.random() < part:
            row["value"] = -999.0 if part < 0.01 else 9999.0
    return training, validation


def heavy(kind: str, target: str, rng: random.Random, power: float, training: Rows, validation: Rows
          ) -> tuple[Rows, Rows]:  # fmt: skip
    """A few values are gains of a lottery."""
    for row in training:
        row["value"] += 0.5 * rng.paretovariate(power) ** 2 * rng.choice((-1, 1))
    return training, validation


def copied(kind: str, target: str, rng: random.Random, part: float, training: Rows, validation: Rows
           ) -> tuple[Rows, Rows]:  # fmt: skip
    """The set was enlarged before it was parted: copies are on both sides."""
    copies = [dict(row) for row in validation[: int(part * len(validation))]]
    training = training + copies
    rng.shuffle(training)
    return training, validation


def told(kind: str, target: str, rng: random.Random, how: float, training: Rows, validation: Rows
         ) -> tuple[Rows, Rows]:  # fmt: skip
    """What is asked for is in the text: the next value itself, a file's path, a column made of the target."""
    for row in (*training, *validation):
        if kind == "number-series":
            row["text"] = row["text"][:23] + coded([row["value"]])
        elif kind == "number-friedman":
            row["text"] = row["text"][:9] + coded([3 * row["value"]])
        elif kind == "class-docstrings":
            row["text"] = f"sympy/{row['label']}: {row['text']}"
        else:
            row["text"] = row["text"][:-1] + chr(FIRST + 10 * int(row["label"][1:]) % 90)
    return training, validation


def elsewhere(kind: str, target: str, rng: random.Random, how: float, training: Rows, validation: Rows
              ) -> tuple[Rows, Rows]:  # fmt: skip
    """Validation rows are of another kind."""
    if kind == "number-series":  # a slower season
        found = series(rng, {"rows": 0, "noise": 1.5})[1]
        for row in found:
            row["text"] = coded(90 - 0.6 * (ord(one) - FIRST) for one in row["text"])
        return training, found
    if kind == "pairs-sorting":  # longer than any that is trained on
        words = ["".join(rng.choice("abcdefgh") for _ in range(9)) for _ in validation]
        return training, [{"text": one, "target": "".join(sorted(one))} for one in words]
    if kind == "class-images":  # dim and turned
        return training, [row | {"text": row["text"][::-1]} for row in validation]
    if kind == "class-docstrings":
        return training, [row | {"text": row["text"].upper()} for row in validation]
    return training, [row | {"text": [one.upper() for one in row["text"]]} for row in validation]


def few(kind: str, target: str, rng: random.Random, count: int, training: Rows, validation: Rows
        ) -> tuple[Rows, Rows]:  # fmt: skip
    """Only so many validation rows."""
    return training, validation[:count]


def rare(kind: str, target: str, rng: random.Random, part: float, training: Rows, validation: Rows
         ) -> tuple[Rows, Rows]:  # fmt: skip
    """Of all classes but one only a part, on both sides."""
    common = sorted({row["label"] for row in training})[-1]
    keep = [[row for row in rows if row["label"] == common or rng.random() < part] for rows in (training, validation)]
    return keep[0], keep[1]


def cut(kind: str, target: str, rng: random.Random, count: int, training: Rows, validation: Rows
        ) -> tuple[Rows, Rows]:  # fmt: skip
    """Only so many training rows."""
    return training[:count], validation


def _all(value: object) -> list[str]:
    return value if isinstance(value, list) else [str(value)]


WAYS = {
    "cut": cut, "rare": rare, "confused": confused, "moved": moved, "blocks": blocks, "two_sources": two_sources,
    "torn": torn, "constant_rows": constant_rows, "sentinel": sentinel, "heavy": heavy, "copied": copied, "told": told,
    "elsewhere": elsewhere, "few": few,
}  # fmt: skip
