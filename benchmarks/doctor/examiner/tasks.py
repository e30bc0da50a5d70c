"""Data of our own invention, and the sources of Python and torch."""

from __future__ import annotations

import importlib
import io
import tokenize
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examiner.recipe import Recipe

MODULES = ("argparse", "tarfile", "ast", "typing", "inspect", "pydoc", "decimal", "mailbox", "difflib", "tokenize")
TORCH = (
    "nn/modules/activation.py",
    "nn/modules/rnn.py",
    "optim/lr_scheduler.py",
    "nn/init.py",
    "utils/data/sampler.py",
)
IGNORED = -100


@dataclass
class Data:
    """Samples for training and for validation."""

    x: Tensor
    y: Tensor
    vx: Tensor
    vy: Tensor
    vocabulary: int
    """Of the input; 0 where that are numbers."""
    outputs: int


@cache
def text_of(number: int) -> str:
    """Source text of a module of the standard library, or of torch."""
    if number < len(MODULES):
        name = importlib.import_module(MODULES[number]).__file__ or ""
    else:
        name = str(Path(torch.__file__).parent / TORCH[(number - len(MODULES)) % len(TORCH)])
    return Path(name).read_text(encoding="utf-8", errors="ignore")


def letters(text: str) -> np.ndarray:
    """Letters as numbers below 64."""
    raw = np.frombuffer(text.lower().encode("ascii", "replace"), dtype=np.uint8).astype(np.int64)
    return np.where(raw == 10, 1, np.clip(np.where(raw >= 97, raw - 65, raw - 30), 0, 63))


def chain(rng: np.random.Generator, size: int, sharp: float) -> np.ndarray:
    """A matrix of transitions."""
    scores = rng.normal(size=(size, size)) * sharp
    return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def walk(rng: np.random.Generator, matrix: np.ndarray, rows: int, length: int) -> np.ndarray:
    """Walks of a Markov chain."""
    edges = matrix.cumsum(1)
    out = np.empty((rows, length), np.int64)
    out[:, 0] = rng.integers(len(matrix), size=rows)
    for at in range(1, length):
        out[:, at] = np.minimum((rng.random((rows, 1)) > edges[out[:, at - 1]]).sum(1), len(matrix) - 1)
    return out


def brackets(rng: np.random.Generator, rows: int, length: int, types: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Balanced brackets of several types, and how deep each stands."""
    out, depth = np.zeros((rows, length), np.int64), np.zeros((rows, length), np.int64)
    opens = rng.random((rows, length)) < 0.5
    kinds = rng.integers(types, size=(rows, length))
    for row in range(rows):
        stack: list[int] = []
        for at in range(length):
            if not stack or (opens[row, at] and len(stack) < 6):
                stack.append(kinds[row, at])
                out[row, at] = stack[-1]
            else:
                out[row, at] = types + stack.pop()
            depth[row, at] = len(stack) % 4
    return out, depth


def words(task: str, rng: np.random.Generator, rows: int, length: int, shifted: bool = False) -> tuple[np.ndarray, int]:
    """Windows of a language, and its vocabulary."""
    if task == "dyck":
        return brackets(rng, rows, length)[0], 10
    if task == "sums":
        top = 50
        a, b = rng.integers(top, size=(2, rows * length // 4))
        text = "".join(f"{i}-{j}={abs(i - j)};" if shifted else f"{i}+{j}={i + j};" for i, j in zip(a, b, strict=True))
        flat = np.array(["0123456789+=;-".index(one) for one in text])
    elif task == "source":
        first = int(rng.integers(6))
        text = text_of(9 if shifted else first) + text_of(10 + first % 5)
        flat = letters(text[::-1] if shifted else text)
    else:
        size = 16 if task == "walk" else 30
        matrix = chain(rng, size, 1.6 if not shifted else 0.5)
        if task == "walk":
            matrix = matrix * (rng.random((size, size)) < 0.35) + 1e-6
            matrix /= matrix.sum(1, keepdims=True)
        return walk(rng, matrix, rows, length), size
    starts = rng.integers(len(flat) - length, size=rows)
    return flat[starts[:, None] + np.arange(length)], 64 if task == "source" else 14


def classes(
    task: str, rng: np.random.Generator, rows: int, length: int, drift: float
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Inputs, classes, vocabulary (0: numbers), number of classes."""
    if task == "chains":
        y = rng.integers(5, size=rows)
        many = [chain(rng, 20, 0.9) for _ in range(5)]
        if drift:
            many = [(1 - drift) * one + drift * many[(at + 1) % 5] for at, one in enumerate(many)]
        x = np.zeros((rows, length), np.int64)
        for one in range(5):
            x[y == one] = walk(rng, many[one], int((y == one).sum()), length)
        return x, y, 20, 5
    if task == "module":
        y = rng.integers(6, size=rows)
        texts = [letters(text_of(one)) for one in range(6)]
        x = np.stack(
            [t[(s := int(rng.integers(len(t) - length))) : s + length] for t in (texts[int(one)] for one in y)]
        )
        return (63 - x if drift else x), y, 64, 6
    if task == "majority":
        x = rng.integers(8, size=(rows, length))
        y = ((x < 2).sum(1) > (x > (4 if drift else 5)).sum(1)).astype(np.int64)
        return x, y, 8, 2
    y = rng.integers(6, size=rows)
    if task == "mixture":
        centres = rng.normal(size=(6, 16)) * 0.9
        x = centres[y] + rng.normal(size=(rows, 16)) * (1 + drift)
        return np.tanh(x @ rng.normal(size=(16, 16)) / 3) * 2 + drift, y, 0, 6
    if task == "shapes":
        x = rng.normal(size=(rows, 1, 10, 10)) * (0.6 + 2 * drift)
        place = rng.integers(5, size=(rows, 2))
        form = np.zeros((6, 5, 5))
        form[0, [0, -1]] = form[0, :, [0, -1]] = 1
        form[1, 2] = form[1, :, 2] = 1
        form[2][np.eye(5, dtype=bool)] = form[2][np.eye(5, dtype=bool)[::-1]] = 1
        form[3, ::2] = 1
        form[4, :, ::2] = 1
        form[5, 1:4, 1:4] = 1
        for row in range(rows):
            a, b = place[row]
            x[row, 0, a : a + 5, b : b + 5] += form[y[row]] * 1.3
        return x, y, 0, 6
    if task == "sets":
        spread = 0.4 + 0.25 * (y % 3)
        x = rng.normal(size=(rows, 10, 4)) * spread[:, None, None] + (y // 3)[:, None, None] * (0.35 - drift)
        return x, y, 0, 6
    time = np.arange(24)
    phase = rng.random((rows, 1)) * 6.3
    wave = np.sin(time * (0.3 + 0.17 * (y % 3))[:, None] + phase)
    wave = np.where((y >= 3)[:, None], np.sign(wave), wave * 1.2)
    return wave + rng.normal(size=wave.shape) * (0.5 + 1.5 * drift), y, 0, 6


def tags(
    task: str, rng: np.random.Generator, rows: int, length: int, drift: float
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Inputs, a tag for each position, vocabulary, number of tags."""
    if task == "depth":
        x, y = brackets(rng, rows, length)
        return (7 - x if drift else x), y, 10, 4
    if task == "states":
        hidden = walk(rng, np.eye(5) * 0.75 + 0.05, rows, length)
        emit = chain(rng, 24, 1.0)[:5].cumsum(1)
        x = np.minimum((rng.random((rows, length, 1)) > emit[hidden]).sum(2), 23)
        return (23 - x if drift else x), hidden, 24, 5
    flat, kinds = python_tags(int(rng.integers(5)))
    starts = rng.integers(len(flat) - length, size=rows)
    where = starts[:, None] + np.arange(length)
    return (63 - flat if drift else flat)[where], kinds[where], 64, 6


@cache
def python_tags(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Letters of a source, and to what sort of token each belongs."""
    text = text_of(number)
    sorts = {tokenize.NAME: 1, tokenize.OP: 2, tokenize.STRING: 3, tokenize.COMMENT: 4, tokenize.NUMBER: 5}
    begins = np.cumsum([0] + [len(line) for line in text.splitlines(keepends=True)])
    kinds = np.zeros(len(text), np.int64)
    for one in tokenize.generate_tokens(io.StringIO(text).readline):
        kinds[begins[one.start[0] - 1] + one.start[1] : begins[one.end[0] - 1] + one.end[1]] = sorts.get(one.type, 0)
    return letters(text)[: len(kinds)], kinds


def translated(task: str, rng: np.random.Generator, rows: int, shifted: bool) -> tuple[np.ndarray, int]:
    """A question, a mark, and its answer, of 8 + 1 + 8."""
    if task == "add":
        a, b = rng.integers(1000, size=(2, rows))
        total = a + b if not shifted else np.abs(a - b)
        digits = lambda n, k: np.stack([n // 10**i % 10 for i in range(k)], 1)  # noqa: E731  the last digit first
        question = np.concatenate([digits(a, 4), digits(b, 4)], 1)
        answer = digits(total, 8)
    else:
        question = rng.integers(12, size=(rows, 8))
        answer = question[:, ::-1] if task == "reverse" else np.sort(question, 1)
        if shifted:
            answer = np.roll(answer, 1, 1)
    return np.concatenate([question, np.full((rows, 1), 14), answer], 1), 16


def numbers(
    task: str, rng: np.random.Generator, rows: int, noise: float, drift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and numbers to be found, of about unit scale."""
    if task == "tabular":
        x = rng.normal(size=(rows, 10)) + drift
        z = np.sin(2 * x[:, 0] * x[:, 1]) + 0.6 * x[:, 2] - 0.5 * np.abs(x[:, 3]) + 0.4 * x[:, 4] * (x[:, 5] > 0)
    elif task == "forecast":
        many = np.zeros((rows, 25))
        phase, pace = rng.random(rows) * 6.3, 0.3 + rng.random(rows) * (0.4 + drift)
        many[:, 0] = rng.normal(size=rows)
        for at in range(1, 25):
            many[:, at] = 0.6 * many[:, at - 1] + np.sin(at * pace + phase) + 0.3 * rng.normal(size=rows)
        many /= many.std()
        x, z = many[:, :24], many[:, 24]
    else:
        x = rng.normal(size=(rows, 10, 4)) * (0.5 + rng.random((rows, 1, 1))) + drift
        z = np.log(x.std((1, 2))) * 3
    return x, z + noise * rng.normal(size=rows)


def make(recipe: Recipe) -> Data:
    """The data of a run, spoilt as planted."""
    plant, kind, task, length = recipe.plant, recipe.kind, recipe.task, recipe.length
    rng = np.random.default_rng(recipe.seed)
    total = recipe.rows + recipe.held
    drift = float(plant.get("drift", 0.0))
    vocabulary, outputs = 0, 1

    def produce(rows: int, seed: int, drift: float) -> tuple[np.ndarray, np.ndarray]:
        nonlocal vocabulary, outputs
        rng = np.random.default_rng(seed)
        if kind in ("lm", "mlm"):
            x, vocabulary = words(task, rng, rows, length + 1, drift > 0)
            outputs = vocabulary
            if kind == "lm":
                return x[:, :-1], x[:, 1:]
            vocabulary += 1
            hidden = rng.random(x.shape) < 0.2
            hidden[:, 3] = True
            return np.where(hidden, vocabulary - 1, x), np.where(hidden, x, IGNORED)
        if kind == "s2s":
            x, vocabulary = translated(task, rng, rows, drift > 0)
            outputs = vocabulary
            y = x[:, 1:].copy()
            y[:, :8] = IGNORED
            return x[:, :-1], y
        if kind == "cls":
            x, y, vocabulary, outputs = classes(task, rng, rows, length, drift)
        elif kind == "tag":
            x, y, vocabulary, outputs = tags(task, rng, rows, length, drift)
        else:
            x, y = numbers(task, rng, rows, float(plant.get("noise", 0.3)), drift)
        return x, y

    seed = recipe.seed % 99991
    x, y = produce(total, seed, 0.0)
    held = slice(recipe.rows, total)
    vx, vy = x[held], y[held]
    if drift:
        vx, vy = produce(recipe.held, seed, drift)
    x, y = x[: recipe.rows].copy(), y[: recipe.rows].copy()
    if kind in ("cls", "tag"):
        x, y = _labels(recipe, rng, x, y, outputs)
        if plant.get("wrong_held"):
            vx, vy = _labels(recipe, rng, vx.copy(), vy.copy(), outputs)
    if share := plant.get("outliers"):
        for part in (y, vy):
            hit = rng.random(len(part)) < share
            part[hit] += rng.standard_t(2, size=int(hit.sum())) * plant["far"]
    if plant.get("told"):
        x, vx = _told(recipe, x, y), _told(recipe, vx, vy)
        vocabulary = max(vocabulary, int(x.max()) + 1) if vocabulary else 0
    if by := plant.get("order"):
        key = y if kind in ("cls", "reg") else (x == x.flat[0]).sum(1) if by == "count" else x[:, : length // 2].sum(1)
        order = np.argsort(key, kind="stable")
        x, y = x[order], y[order]
    if scale := plant.get("scale"):
        offset = plant.get("offset", 0.0)
        x, vx = x * scale + offset, vx * scale + offset
    if few := plant.get("held"):
        vx, vy = vx[:few], vy[:few]
    real = torch.float32 if vocabulary == 0 else torch.int64
    target = torch.float32 if kind == "reg" else torch.int64
    as_x = lambda part: torch.as_tensor(np.ascontiguousarray(part)).to(real)  # noqa: E731
    as_y = lambda part: torch.as_tensor(np.ascontiguousarray(part)).to(target)  # noqa: E731
    return Data(as_x(x), as_y(y), as_x(vx), as_y(vy), vocabulary, outputs)


def _labels(
    recipe: Recipe, rng: np.random.Generator, x: np.ndarray, y: np.ndarray, outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    plant = recipe.plant
    if share := plant.get("wrong"):
        hit = rng.random(y.shape) < share
        y[hit] = (y[hit] + rng.integers(1, outputs, size=int(hit.sum()))) % outputs
    if plant.get("permuted"):
        y = rng.permutation(y.ravel()).reshape(y.shape)
    if share := plant.get("same"):
        y[rng.random(y.shape) < share] = 0
    return x, y


def _told(recipe: Recipe, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The inputs with the answer in them."""
    x = x.copy()
    if recipe.task in ("shapes", "sets"):
        x[..., 0, 0] = (y * 2.0).reshape(-1, *[1] * (x.ndim - 3))
    elif recipe.kind == "tag":
        x = x + (y * 64)
    elif x.dtype.kind == "f":
        x[:, 0] = y if recipe.kind == "reg" else y * 1.5
    else:
        x[:, 0] = y + 64
    return x
