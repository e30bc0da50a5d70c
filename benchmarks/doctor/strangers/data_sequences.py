"""Sequences by rule: sums, sorting, copies, brackets and tags, and the tokens of Python sources."""

from __future__ import annotations

import io
import keyword
import tokenize
from functools import cache

import numpy as np
import torch

from .data import Data, Task, split
from .data_text import MODULES, source

STOP, SEPARATOR = 0, 1


def _pairs(prompts: list[list[int]], answers: list[list[int]], valid: int, voc: int) -> Data:
    length = max(len(a) + len(b) for a, b in zip(prompts, answers, strict=True)) + 2
    x = torch.zeros(len(prompts), length, dtype=torch.long)
    y = torch.full((len(prompts), length), -100)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        row = [*prompt, SEPARATOR, *answer, STOP]
        x[i, : len(row) - 1] = torch.tensor(row[:-1])
        y[i, len(prompt) : len(row) - 1] = torch.tensor(row[len(prompt) + 1 :])
    return split("s2s", "tokens", x, y, valid, voc, voc)


def _rule(which: str):
    def make(rng: np.random.RandomState, n: int, valid: int) -> Data:
        letters, longest = int(rng.choice([6, 12, 30])), int(rng.choice([5, 7, 9]))
        prompts = [list(2 + rng.randint(0, letters, rng.randint(3, longest + 1))) for _ in range(n + valid)]
        turn = {
            "sort": sorted,
            "copy": list,
            "reverse": lambda row: row[::-1],
            "double": lambda r: [a for a in r for _ in "ab"],
        }
        return _pairs(prompts, [list(turn[which](row)) for row in prompts], valid, letters + 2)

    return make


def sums(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """The sum of two numbers, its last digit first."""
    most = int(rng.choice([50, 100, 1000]))
    pairs = rng.randint(0, most, (n + valid, 2))
    digits = [[2 + int(c) for c in str(a)] + [12] + [2 + int(c) for c in str(b)] for a, b in pairs]
    return _pairs(digits, [[2 + int(c) for c in reversed(str(a + b))] for a, b in pairs], valid, 13)


def brackets(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """How deep each place of a row of brackets is, up to four."""
    steps = rng.choice([-1, 1], (n + valid, 24), p=[0.48, 0.52])
    depth = np.zeros_like(steps)
    for i in range(24):
        depth[:, i] = np.maximum(0, (depth[:, i - 1] if i else 0) + steps[:, i])
    return split("tag", "tokens", torch.tensor((steps + 1) // 2), torch.tensor(np.minimum(depth, 4)), valid, 2, 5)


@cache
def _tagged() -> tuple[str, np.ndarray]:
    texts, tags = [], []
    for module in MODULES[::4]:
        text = source(module)[:15_000]
        starts = np.cumsum([0, *(len(line) for line in text.splitlines(keepends=True))])
        tag = np.zeros(len(text), dtype=int)
        try:
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                a, b = (min(len(text), int(starts[row - 1]) + column) for row, column in (token.start, token.end))
                kinds = {tokenize.NAME: 1, tokenize.NUMBER: 3, tokenize.STRING: 4, tokenize.COMMENT: 5, tokenize.OP: 6}
                kind = kinds.get(token.type, 0)
                tag[a:b] = 2 if kind == 1 and keyword.iskeyword(token.string) else kind
        except (tokenize.TokenError, IndentationError, SyntaxError):
            pass  # the text was cut
        texts.append(text)
        tags.append(tag)
    return "".join(texts), np.concatenate(tags)


def tokens(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """What each character of Python source belongs to."""
    text, tags = _tagged()
    letters = {c: i + 1 for i, c in enumerate(sorted(set(text))[:110])}
    ids = np.array([letters.get(c, 0) for c in text])
    border, span = int(0.85 * len(ids)), np.arange(28)
    places = np.concatenate([rng.randint(border, len(ids) - 28, valid), rng.randint(0, border - 28, n)])
    at = places[:, None] + span
    return split("tag", "tokens", torch.tensor(ids[at]), torch.tensor(tags[at]), valid, 111, 7)


def chains(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """A hidden Markov chain seen through noise: which state it is in."""
    states, seen = int(rng.choice([3, 6, 12])), int(rng.choice([10, 40]))
    go, show = rng.dirichlet(np.full(states, 0.3), states), rng.dirichlet(np.full(seen, 0.3), states)
    z = np.zeros((n + valid, 20), dtype=int)
    z[:, 0] = rng.randint(0, states, n + valid)
    x = np.zeros_like(z)
    for i in range(20):
        if i:
            z[:, i] = (go[z[:, i - 1]].cumsum(1) < rng.rand(n + valid, 1)).sum(1).clip(0, states - 1)
        x[:, i] = (show[z[:, i]].cumsum(1) < rng.rand(n + valid, 1)).sum(1).clip(0, seen - 1)
    return split("tag", "tokens", torch.tensor(x), torch.tensor(z), valid, seen, states)


TASKS: dict[str, Task] = {
    **{which: Task("s2s", "tokens", _rule(which), 6000) for which in ("sort", "copy", "reverse", "double")},
    "sums": Task("s2s", "tokens", sums, 6000),
    "brackets": Task("tag", "tokens", brackets),
    "tokens": Task("tag", "tokens", tokens),
    "chains": Task("tag", "tokens", chains),
}
