"""Tasks of the second set, by the beginning of their name: text, masked, pairs, class, labels, tags and number."""

from __future__ import annotations

import ast
import builtins
import keyword
import math
import random
import re
import string
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Final

from own_examiner.data import sources

Row = dict[str, Any]
Options = dict[str, Any]
FIRST: Final = 33
TARGETS: Final = {"pairs": "target", "class": "label", "labels": "label", "tags": "tags", "number": "value"}


def family(kind: str) -> str:
    """What stands in front of a kind's dash."""
    return kind.partition("-")[0]


def topic_text(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """What Python's own help says of its topics: English prose."""
    text = " ".join(" ".join(one.split()) for one in sorted(set(topics.values())))
    at = rng.randrange(max(1, len(text) - options.get("characters", 300_000)))
    text = text[at : at + options.get("characters", 300_000)]
    return _parted([{"text": text[at : at + 700]} for at in range(0, len(text) - 699, 700)], rng, 24)


def sums(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Lines of arithmetic to go on with."""

    def line() -> str:
        a, b = rng.randint(0, 30), rng.randint(0, 30)
        return f"{a}+{b}={a + b};" if rng.random() < 0.6 else f"{max(a, b)}-{min(a, b)}={abs(a - b)};"

    rows = [{"text": "".join(line() for _ in range(60))} for _ in range(options.get("rows", 500))]
    return _parted(rows, rng, 24)


def sorting(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """A word of few letters, and the same in the order of the alphabet, backwards, or as it is."""
    how = options.get("how", "sort")

    def row(longest: int, least: int) -> Row:
        letters = [rng.choice("abcdefgh") for _ in range(rng.randint(least, longest))]
        answer = sorted(letters) if how == "sort" else letters[::-1] if how == "reverse" else letters
        return {"text": "".join(letters), "target": "".join(answer)}

    count = options.get("rows", 6000)
    return _apart([row(7, 5) for _ in range(count)], [row(7, 5) for _ in range(300)])


def majority(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Which of some letters a text has most often."""
    letters = "abcdef"[: options.get("classes", 4)]

    def row() -> Row:
        often = rng.choice(letters)
        text = [often if rng.random() < options.get("share", 0.3) else rng.choice(letters) for _ in range(24)]
        counts = sorted(((text.count(one), one) for one in letters), reverse=True)
        return {"text": "".join(text), "label": counts[0][1]}

    return [row() for _ in range(options.get("rows", 4000))], [row() for _ in range(400)]


def docstrings(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Beginnings of docstrings of sympy, each with the part of sympy that it is of."""
    import sympy

    root, found = Path(sympy.__file__).parent, []
    for part in ("polys", "physics", "functions", "stats", "geometry", "matrices")[: options.get("classes", 4)]:
        texts = []
        for file in sorted((root / part).rglob("*.py")):
            if "tests" not in file.parts:
                texts += re.findall(r'"""(.+?)"""', file.read_text("utf8"), re.S)
        texts = [" ".join(one.split())[:160] for one in texts if len(one) > 60]
        rng.shuffle(texts)
        found += [{"text": one, "label": part} for one in texts[: options.get("rows", 1800) // 4]]
    return _parted(found, rng, 300)


def table(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Twelve columns and four classes, a character for each number."""
    from sklearn.datasets import make_classification

    count = options.get("rows", 4000) + 400
    x, y = make_classification(count, 12, n_informative=6, n_redundant=3, n_classes=4, class_sep=1.6,
                               flip_y=options.get("flip", 0.01), random_state=rng.randrange(9999))  # fmt: skip
    rows = [{"text": coded(45 + 8 * value for value in one), "label": f"c{label}"}
            for one, label in zip(x, y, strict=True)]  # fmt: skip
    return _parted(rows, rng, 400)


def images(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Digits of scikit-learn, 8 by 8, dimmed or brightened by a factor."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)

    def row(index: int) -> Row:
        bright, noise = rng.uniform(0.7, 1.0), options.get("noise", 1.5)
        values = (bright * value + rng.gauss(0, noise) for value in pixels[index])
        return {"text": "".join(chr(FIRST + min(16, max(0, round(value)))) for value in values),
                "label": f"d{labels[index]}"}  # fmt: skip

    order = rng.sample(range(len(pixels)), len(pixels))
    training = [row(index) for _ in range(3) for index in order[360:]]
    return training[: options.get("rows", len(training))], [row(index) for index in order[:360]]


def topics_of(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """A text of words on some of five subjects, with all of them as labels."""
    words = {name: ["".join(rng.choice(string.ascii_lowercase) for _ in range(4)) for _ in range(12)]
             for name in ("art", "law", "sea", "tax", "war")}  # fmt: skip
    common = ["".join(rng.choice(string.ascii_lowercase) for _ in range(3)) for _ in range(30)]

    def row() -> Row:
        chosen = [name for name in words if rng.random() < 0.35]
        text = [rng.choice(words[name]) for name in chosen for _ in range(rng.randint(1, 2))]
        text += [rng.choice(common) for _ in range(8)]
        rng.shuffle(text)
        return {"text": " ".join(text), "label": chosen}

    return [row() for _ in range(options.get("rows", 4000))], [row() for _ in range(400)]


def roles(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Words of Python lines, each with its role."""
    rows: list[Row] = []
    for source in sources("networkx", rng, 900_000):
        for line in source.splitlines():
            words = re.findall(r"\w+|[^\w\s]", line)[:14]
            if len(words) >= 5 and '"' not in line and "#" not in line:
                rows.append({"text": words, "tags": [_role(word) for word in words]})
    rng.shuffle(rows)
    return _parted(rows[: options.get("rows", 4000) + 300], rng, 300)


def _role(word: str) -> str:
    if keyword.iskeyword(word):
        return "keyword"
    if hasattr(builtins, word):
        return "builtin"
    return "name" if word.isidentifier() else "number" if word[0].isdigit() else "sign"


def friedman(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Ten columns and a number that five of them decide, of Friedman's."""
    from sklearn.datasets import make_friedman1

    count = options.get("rows", 4000) + 400
    x, y = make_friedman1(count, 10, noise=options.get("noise", 1.0), random_state=rng.randrange(9999))
    rows = [{"text": coded(90 * value for value in one), "value": round(float(of), 4)}
            for one, of in zip(x, y, strict=True)]  # fmt: skip
    return _parted(rows, rng, 400)


def series(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Twenty-four values of a wave, and the next one."""

    def row(low: float, high: float) -> Row:
        phase, period, level = rng.uniform(0, 6.28), rng.uniform(low, high), rng.uniform(30, 60)
        wave = [level + 20 * math.sin(phase + 6.28 * t / period) + rng.gauss(0, options.get("noise", 1.5))
                for t in range(25)]  # fmt: skip
        return {"text": coded(wave[:24]), "value": round(wave[24], 3)}

    return [row(6, 14) for _ in range(options.get("rows", 4000))], [row(6, 14) for _ in range(400)]


def vowels(rng: random.Random, options: Options) -> tuple[list[Row], list[Row]]:
    """Identifiers, and how many vowels they have."""
    found = {node.id for text in sources("networkx", rng, 2_000_000) for node in ast.walk(ast.parse(text))
             if isinstance(node, ast.Name)}  # fmt: skip
    names = [one[:18] for one in sorted(found)]
    made = ["".join(rng.choice("aeioubcdfglmnprst") for _ in range(rng.randint(3, 16))) for _ in range(3500)]
    rows = [{"text": one, "value": float(sum(one.count(vowel) for vowel in "aeiou"))} for one in (*names, *made)]
    return _parted(rows, rng, 400)


def coded(values: Any) -> str:
    """Numbers from 0 to 90 as characters."""
    return "".join(chr(FIRST + min(90, max(0, round(value)))) for value in values)


def _parted(rows: list[Row], rng: random.Random, held_out: int) -> tuple[list[Row], list[Row]]:
    rng.shuffle(rows)
    return _apart(rows[held_out:], rows[:held_out])


def _apart(training: list[Row], validation: list[Row]) -> tuple[list[Row], list[Row]]:
    """Without the training rows whose text is in the validation set, too."""
    known = {str(row["text"]) for row in validation}
    return [row for row in training if str(row["text"]) not in known], validation


TASKS: Final[dict[str, Any]] = {
    "text-topics": topic_text, "text-sums": sums, "masked-topics": topic_text, "pairs-sorting": sorting,
    "class-majority": majority, "class-docstrings": docstrings, "class-table": table, "class-images": images,
    "labels-subjects": topics_of, "tags-roles": roles,
    "number-friedman": friedman, "number-series": series, "number-vowels": vowels,
}  # fmt: skip
