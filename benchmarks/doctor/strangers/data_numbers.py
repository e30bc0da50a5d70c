"""Numbers: clusters, shapes in the plane, tables, time series and tiny pictures."""

from __future__ import annotations

import numpy as np
import torch

from .data import Data, Task, split


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def _classes(x: np.ndarray, y: np.ndarray, valid: int) -> Data:
    return split("cls", "vector", _tensor(x), torch.tensor(y), valid, x.shape[1], int(y.max()) + 1)


def _numbers(x: np.ndarray, y: np.ndarray, valid: int, inputs: str = "vector") -> Data:
    y = (y - np.median(y)) / (np.percentile(y, 84) - np.percentile(y, 16) + 1e-9) * 2
    return split("reg", inputs, _tensor(x), _tensor(y), valid, x.shape[1], 1)  # type: ignore[arg-type]


def blobs(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Clusters, some of them in several parts."""
    labels, width = int(rng.choice([2, 3, 5, 10, 30, 100, 300, 500])), int(rng.choice([8, 20, 40]))
    centres = rng.randn(labels, 2, width) * rng.uniform(0.6, 1.0)
    y = rng.randint(0, labels, n + valid)
    return _classes(centres[y, rng.randint(0, 2, n + valid)] + rng.randn(n + valid, width), y, valid)


def moons(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Two half circles."""
    y, angle = rng.randint(0, 2, n + valid), rng.uniform(0, np.pi, n + valid)
    x = np.stack([np.cos(angle) * (1 - 2 * y) + y, np.sin(angle) * (1 - 2 * y) + 0.5 * y], 1)
    return _classes(x + rng.uniform(0.15, 0.35) * rng.randn(*x.shape), y, valid)


def spirals(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Arms that turn around each other."""
    arms = int(rng.choice([2, 3, 5]))
    y, r = rng.randint(0, arms, n + valid), rng.uniform(0.1, 1, n + valid)
    angle = 4 * r + 2 * np.pi * y / arms + rng.uniform(0.1, 0.3) * rng.randn(n + valid)
    return _classes(2 * np.stack([r * np.cos(angle), r * np.sin(angle)], 1), y, valid)


def board(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """A chessboard, with columns that say nothing."""
    x = rng.uniform(-2, 2, (n + valid, 6))
    y = ((np.floor(x[:, 0]) + np.floor(x[:, 1])) % 2).astype(int)
    return _classes(x, np.where(rng.rand(len(y)) < 0.05, 1 - y, y), valid)


def churn(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Odds of yes and no from a table: far from certain, and fewer of one."""
    x = rng.randn(n + valid, 12)
    odds = x[:, :4] @ rng.randn(4) + 0.8 * x[:, 4] * x[:, 5] - rng.uniform(0, 1.5)
    return _classes(x, (rng.rand(n + valid) < 1 / (1 + np.exp(-odds))).astype(int), valid)


def friedman(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Friedman's function with noise."""
    x = rng.rand(n + valid, 10)
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return _numbers((x - 0.5) * 3.4, y + rng.uniform(0.5, 2) * rng.randn(len(y)), valid)


def prices(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Logarithms of prices: categories, areas, and tails that are a little heavy."""
    x = np.concatenate([rng.randn(n + valid, 5), np.eye(6)[rng.randint(0, 6, n + valid)]], 1)
    y = x[:, 0] + 0.5 * np.abs(x[:, 1]) + x[:, 5:] @ rng.randn(6) + 0.3 * x[:, 2] * (x[:, 3] > 0)
    return _numbers(x, y + 0.4 * rng.standard_t(5, n + valid), valid)


def kinks(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """What a random network of kinks gives."""
    width = int(rng.choice([6, 15, 30]))
    x, a, b = rng.randn(n + valid, width), rng.randn(width, 12), rng.randn(12)
    return _numbers(x, np.maximum(0, x @ a / width**0.5 + rng.randn(12)) @ b + 0.2 * rng.randn(n + valid), valid)


def weak(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """A relation that explains a tenth of the variance."""
    x = rng.randn(n + valid, 10)
    signal = x[:, 0] + 0.5 * x[:, 1] * x[:, 2]
    return _numbers(x, signal + 3.4 * rng.randn(n + valid), valid)


def series(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """The next value of a series with seasons, a slow part and noise."""
    t = np.arange(n + valid + 40)
    noise = np.zeros(len(t))
    shocks = rng.randn(len(t))
    for i in range(2, len(t)):
        noise[i] = 0.9 * noise[i - 1] - 0.3 * noise[i - 2] + shocks[i]
    value = 2 * np.sin(2 * np.pi * t / 24) + np.sin(2 * np.pi * t / 7) * np.sin(t / 90) + noise
    value = value / value.std()
    rows = rng.permutation(n + valid)
    return _numbers(value[rows[:, None] + np.arange(24)], value[rows + 24], valid, "series")


def waves(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Which form a noisy wave has."""
    y, phase, pace = rng.randint(0, 4, n + valid), rng.rand(n + valid, 1), rng.uniform(1, 3, (n + valid, 1))
    z = (phase + pace * np.arange(32) / 32) % 1
    forms = np.stack([np.sin(2 * np.pi * z), np.sign(z - 0.5), 2 * z - 1, 1 - 4 * np.abs(z - 0.5)])
    x = forms[y, np.arange(n + valid)] + rng.uniform(0.3, 0.8) * rng.randn(n + valid, 32)
    return split("cls", "series", _tensor(x), torch.tensor(y), valid, 32, 4)


def pictures(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """Shapes of twelve by twelve points under noise."""
    labels = int(rng.choice([3, 5, 8]))
    y, many = rng.randint(0, labels, n + valid), n + valid
    a, b = np.mgrid[0:12, 0:12]
    u = a[None] - rng.uniform(4, 7, (many, 1, 1))
    v = b[None] - rng.uniform(4, 7, (many, 1, 1))
    s = rng.uniform(2, 4, (many, 1, 1))
    r = np.hypot(u, v)
    shapes = [
        *(np.abs(r - s) < 0.8, np.maximum(abs(u), abs(v)) < s, (abs(u) < 1) | (abs(v) < 1), abs(u - v) < 1.2),
        *(
            abs(u + v) < 1.2,
            (abs(u) + abs(v)) < s,
            (abs(u) < 1) & (abs(v) < s + 1),
            np.maximum(abs(u), abs(v)).round() == s.round(),
        ),
    ]
    x = np.stack(shapes)[y, np.arange(many)].astype(float) + rng.uniform(0.3, 0.7) * rng.randn(many, 12, 12)
    x = (x - x.mean()) / x.std()
    return split("cls", "image", _tensor(x[:, None]), torch.tensor(y), valid, 144, labels)


def angles(rng: np.random.RandomState, n: int, valid: int) -> Data:
    """How steep a stripe in a picture is."""
    a, b = np.mgrid[0:12, 0:12]
    slope = rng.uniform(-1, 1, (n + valid, 1, 1))
    x = (np.abs((a[None] - 6) - slope * (b[None] - 6) + rng.uniform(-2, 2, slope.shape)) < 1).astype(float)
    data = _numbers(
        (x + 0.3 * rng.randn(*x.shape)).reshape(len(x), -1), slope[:, 0, 0] + 0.05 * rng.randn(len(x)), valid
    )
    return split(
        "reg",
        "image",
        torch.cat([data.vx, data.x]).reshape(-1, 1, 12, 12) * 2,
        torch.cat([data.vy, data.y]),
        valid,
        144,
        1,
    )


TASKS: dict[str, Task] = {
    **{one.__name__: Task("cls", "vector", one, 6000) for one in (blobs, moons, spirals, board, churn)},
    **{one.__name__: Task("reg", "vector", one, 6000) for one in (friedman, prices, kinks, weak)},
    "series": Task("reg", "series", series),
    "waves": Task("cls", "series", waves),
    "pictures": Task("cls", "image", pictures),
    "angles": Task("reg", "image", angles),
}
