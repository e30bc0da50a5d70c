"""Texts of the standard library: language models, lines and names to classify, words' neighbours."""

from __future__ import annotations

import html.entities
import importlib.util
import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .data import Data, Task, split

MODULES = (
    *("argparse", "ast", "bdb", "calendar", "cgitb", "codecs", "configparser", "csv", "dataclasses", "datetime"),
    *("decimal", "difflib", "dis", "doctest", "enum", "fractions", "ftplib", "functools", "gettext", "glob", "gzip"),
    *("heapq", "imaplib", "inspect", "ipaddress", "locale", "mailbox", "mimetypes", "optparse", "os", "pathlib"),
    *("pdb", "pickle", "pickletools", "plistlib", "posixpath", "pprint", "pydoc", "random", "re", "shutil", "smtplib"),
    *("socket", "statistics", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "tokenize", "traceback"),
    *("turtle", "typing", "unittest", "urllib.request", "uuid", "warnings", "zipfile", "email.message", "email.header"),
)


@cache
def source(module: str) -> str:
    """The text of a module; empty where this Python has none."""
    spec = importlib.util.find_spec(module)
    origin = spec.origin if spec is not None else None
    if origin is None or not origin.endswith(".py"):
        return ""
    return Path(origin).read_text(encoding="utf-8", errors="replace")[:60_000]


@cache
def book(which: str) -> str:
    """A text of a few hundred thousand characters."""
    if which == "topics":
        import pydoc_data.topics as pages

        return "\n".join(pages.topics[key] for key in sorted(pages.topics))[:400_000]
    if which == "locales":
        import locale

        rows = [f"{a} -> {b}\n" for a, b in sorted(locale.locale_alias.items())]
        return "".join(np.random.RandomState(3).permutation(rows))
    if which == "names":
        rows = [unicodedata.name(chr(c), "") for c in range(0x20, 0x2FFF)]
        return "\n".join(np.random.RandomState(4).permutation([row for row in rows if row]))
    return "".join(source(module) for module in MODULES[int(which) :: 6])


def _cut(text: str, rng: np.random.RandomState, length: int, n: int, valid: int, most: int) -> Data:
    words = re.findall(r"\w+|\s|[^\w\s]", text) if most > 100 else list(text)
    kept = [word for word, _ in Counter(words).most_common(most - 1)]
    number = {word: i + 1 for i, word in enumerate(kept)}
    ids = np.array([number.get(word, 0) for word in words])
    border = int(0.88 * len(ids))
    places = np.concatenate([rng.randint(border, len(ids) - length - 1, valid), rng.randint(0, border - length - 1, n)])
    rows = torch.tensor(ids[places[:, None] + np.arange(length + 1)])
    return split("lm", "tokens", rows[:, :-1], rows[:, 1:], valid, len(kept) + 1, len(kept) + 1)


def _characters(which: str):
    def make(rng: np.random.RandomState, n: int, valid: int) -> Data:
        return _cut(book(which), rng, int(rng.choice([16, 24, 32, 40])), n, valid, 90)

    return make


def _words(which: str):
    def make(rng: np.random.RandomState, n: int, valid: int) -> Data:
        return _cut(book(which), rng, int(rng.choice([12, 20, 28])), n, valid, int(rng.choice([200, 350, 500])))

    return make


def _labelled(rows: list[tuple[str, int]], rng: np.random.RandomState, length: int, n: int, valid: int) -> Data:
    rows = [rows[i] for i in rng.permutation(len(rows))[: n + valid]]
    letters = {c: i + 1 for i, c in enumerate(sorted({c for text, _ in rows for c in text})[:150])}
    x = torch.zeros(len(rows), length, dtype=torch.long)
    for i, (text, _) in enumerate(rows):
        for j, c in enumerate(text[:length]):
            x[i, j] = letters.get(c, 0)
    y = torch.tensor([label for _, label in rows])
    return split("cls", "tokens", x, y, min(valid, len(rows) // 4), 151, int(y.max()) + 1)


def lines(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Which module a line is from."""
    chosen = rng.choice(len(MODULES), int(rng.choice([2, 4, 8, 20])), replace=False)
    rows = [
        (line.strip(), label)
        for label, place in enumerate(chosen)
        for line in source(MODULES[place]).splitlines()
        if len(line.strip()) > 12
    ]
    return _labelled(rows, rng, 32, n, valid)


@cache
def _names() -> list[tuple[str, int]]:
    return [
        (name, c) for c in range(0x20, 0x1F000) if (name := unicodedata.name(chr(c), "")) and "IDEOGRAPH" not in name
    ]


def categories(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Which category a character has, from its name."""
    kinds = ["Lu", "Ll", "Lo", "So", "Mn", "Sm", "Po", "Nd"][: int(rng.choice([4, 6, 8]))]
    of = [(name, unicodedata.category(chr(c))) for name, c in _names()]
    rows = [(name, kinds.index(kind)) for name, kind in of if kind in kinds and not name.startswith("HANGUL SYL")]
    return _labelled(rows, rng, 28, n, valid)


def scripts(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Which script a name is of, when that word is taken away."""
    of = [name.partition(" ") for name, _ in _names()]
    kept = [word for word, _ in Counter(first for first, _, _ in of).most_common(int(rng.choice([10, 30, 60])))]
    place = {word: i for i, word in enumerate(kept)}
    return _labelled([(rest, place[first]) for first, _, rest in of if first in place and rest], rng, 24, n, valid)


def entities(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Whether a word is the name of an HTML entity, or one that is made up of the same letters."""
    real = sorted({name.rstrip(";") for name in html.entities.html5})
    made = ["".join(rng.permutation(list(word))) for word in real]
    return _labelled([(w, 1) for w in real] + [(w, 0) for w in made], rng, 14, n, valid)


def neighbours(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Word vectors: which word stands near a word."""
    data = _cut(book("topics"), rng, 3, n, valid, int(rng.choice([250, 400])))
    return Data("cls", "tokens", data.x[:, :1], data.x[:, 2], data.vx[:, :1], data.vx[:, 2], data.voc, data.voc)


TASKS: dict[str, Task] = {
    "topics-characters": Task("lm", "tokens", _characters("topics")),
    "topics-words": Task("lm", "tokens", _words("topics")),
    "locales": Task("lm", "tokens", _characters("locales")),
    "names-language": Task("lm", "tokens", _characters("names")),
    **{f"sources-{i}-characters": Task("lm", "tokens", _characters(str(i))) for i in range(3)},
    **{f"sources-{i}-words": Task("lm", "tokens", _words(str(i))) for i in range(3, 5)},
    "lines": Task("cls", "tokens", lines, 3000),
    "categories": Task("cls", "tokens", categories),
    "scripts": Task("cls", "tokens", scripts),
    "entities": Task("cls", "tokens", entities, 3000),
    "neighbours": Task("cls", "tokens", neighbours, 12000),
}
