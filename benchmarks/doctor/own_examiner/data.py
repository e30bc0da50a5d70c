"""Rows and texts that the runs learn from, and what users do wrong with them.

Real text comes from packages that torch installs, digits from scikit-learn, numbers and words are made. A mistake in
the data is an option: what is not named is as it should be.
"""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]
Options = dict[str, Any]
PACKAGES: Final = ("sympy", "networkx", "mpmath", "numpy", "torch")
FIRST: Final = 33
"""Numbers are written as characters from this one on: a user's way to put a table into texts."""
TARGETS: Final = {"packages": "label", "digits": "label", "numbers": "value", "words": "target"}


def sources(package: str, rng: random.Random, characters: int) -> list[str]:
    """Python files of a package in a drawn order, until there are so many characters."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    files = [one for one in sorted(Path(spec.origin).parent.rglob("*.py")) if "tests" not in one.parts]
    rng.shuffle(files)
    found, length = [], 0
    for file in files:
        text = file.read_text("utf8", errors="ignore")
        found.append(text)
        length += len(text)
        if length > characters:
            break
    return found


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text) - size + 1, size)]


def code(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Documents of code."""
    size = options.get("characters", 350_000)
    text = "\n".join(sources(options.get("package", "sympy"), rng, size))
    documents = [{"text": one} for one in _cut(text[:size], 1500)]
    return _parted(documents, rng, 30)


def prose(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Documents of English: what stands in docstrings."""
    size = options.get("characters", 350_000)
    found = []
    for text in sources(options.get("package", "sympy"), rng, 8 * size):
        inside = text.split('"""')[1::2]
        found += [" ".join(one.partition(">>>")[0].split()) for one in inside if "def " not in one]
    return _parted([{"text": one} for one in _cut(" ".join(found)[:size], 800)], rng, 30)


def packages(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Pieces of code, each with the package that it is of."""
    count, rows = options.get("classes", 4), options.get("rows", 3000) + 400
    found = []
    for name in PACKAGES[:count]:
        pieces = _cut("\n".join(sources(name, rng, 160 * rows // count + 4000)), 150)
        found += [{"text": piece, "label": name} for piece in pieces[: rows // count]]
    return _parted(found, rng, 400)


def digits(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Images of digits, 8 by 8, a character for each pixel; each training image also moved by a pixel."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = rng.sample(range(len(images)), len(images))
    level = options.get("pixel_noise", 2)

    def row(index: int, moved: int) -> Row:
        pixels = images[index].reshape(8, 8)
        values = [pixels[y][(x + moved) % 8] for y in range(8) for x in range(8)]
        noisy = [min(16, max(0, int(value) + rng.randint(-level, level))) for value in values]
        return {"text": "".join(chr(FIRST + value) for value in noisy), "label": f"d{labels[index]}"}

    validation = [row(index, 0) for index in order[:360]]
    training = [row(index, moved) for index in order[360:] for moved in (0, 1)]
    rng.shuffle(training)
    return training[: options.get("rows", len(training))], validation


def numbers(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Eight numbers, each as a character, and a smooth function of them with some noise."""
    noise = options.get("noise", 0.15)

    def row() -> Row:
        values = [rng.randint(0, 90) for _ in range(8)]
        x = [(value - 45) / 25 for value in values]
        y = math.sin(x[0]) + 0.4 * x[1] * x[2] + 0.8 * x[3] - 0.5 * x[4] + 0.3 * x[5] ** 2 + rng.gauss(0, noise)
        return {"text": "".join(chr(FIRST + value) for value in values), "value": round(5 + 2 * y, 4)}

    return [row() for _ in range(options.get("rows", 4000))], [row() for _ in range(400)]


def words(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Words of docstrings, and the same in a cipher."""
    text = "\n".join(sources("sympy", rng, 3_000_000))
    found = sorted(set(re.findall(r"\b[a-z]{4,8}\b", text)))
    rng.shuffle(found)
    shift = options.get("shift", 3)

    def ciphered(word: str) -> str:
        return "".join(chr((ord(letter) - 97 + shift) % 26 + 97) for letter in word)

    rows = [{"text": word, "target": ciphered(word)} for word in found[: options.get("rows", 4000)]]
    return _parted(rows, rng, 300)


def _parted(rows: list[Row], rng: random.Random, held_out: int) -> tuple[list[Row], list[Row]]:
    """Training and validation rows."""
    rng.shuffle(rows)
    return rows[held_out:], rows[:held_out]


KINDS: Final[dict[str, Callable[[random.Random, Options], tuple[list[Row], list[Row]]]]] = {
    "code": code,
    "prose": prose,
    "packages": packages,
    "digits": digits,
    "numbers": numbers,
    "words": words,
}


def write(folder: Path, kind: str, seed: int, options: Options) -> tuple[Path, Path]:
    """`train.jsonl` and `validation.jsonl` of one run, with the mistakes that `options` name."""
    from own_examiner.spoil import spoil

    training, validation = KINDS[kind](random.Random(f"{kind}/{seed}"), options)
    training, validation = spoil(kind, random.Random(f"spoil/{seed}"), options, training, validation)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "validation.jsonl"
    for path, rows in zip(paths, (training, validation), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths
