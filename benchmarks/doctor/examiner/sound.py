"""Runs in which nothing is wrong, however odd they look."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np

from examiner.curve import Curve
from examiner.recipe import BY_EPOCH, FLOATS, VOICES, Recipe, draw

ANY = ("plain", "plain", "hf", "csv", "plain", "tb")
ALL = ("lm", "mlm", "cls", "tag", "s2s", "reg")
WORDY = ("lm", "mlm", "cls", "tag", "s2s")
Change = Callable[[Recipe, Random], Recipe]


def cut(r: Recipe, g: Random) -> Recipe:
    """A run that still goes on."""
    return r.but(plant={"cut": g.uniform(0.5, 0.8)})


def single_steps(r: Recipe, g: Random) -> Recipe:
    """A noisy but sound loss, told for each step."""
    return r.but(batch=max(8, r.batch // 2), log_every=1, average=False, lr=r.lr * 0.7)


ODD: dict[str, tuple[Change, tuple[str, ...], tuple[str, ...]]] = {
    "plain": (lambda r, g: r, ALL, ANY),
    "plain-again": (lambda r, g: r, ALL, ANY),
    "cosine-tail": (lambda r, g: r.but(schedule="cosine", floor=0.0).has("lr"), ALL, ANY),
    "late-decay": (lambda r, g: r.but(schedule="wsd").has("lr"), ALL, ANY),
    "step-decay": (lambda r, g: r.but(schedule="stairs").has("lr"), ALL, ANY),
    "restarts": (lambda r, g: r.but(schedule="restarts").has("lr"), ALL, ANY),
    "inverse-root": (lambda r, g: r.but(schedule="root", warmup=0.1).has("lr"), ALL, ANY),
    "single-steps": (single_steps, ALL, ANY),
    "dropout-gap": (lambda r, g: r.but(dropout=0.25), ("cls", "tag", "reg", "lm"), ANY),
    "smoothing": (lambda r, g: r.but(smoothing=0.1), WORDY, ANY),
    "auxiliary": (lambda r, g: r.but(plant={"auxiliary": g.uniform(0.02, 0.06)}), ("cls", "tag"), ANY),
    "single-epoch": (lambda r, g: r.but(rows=r.batch * r.steps), ALL, ANY),
    "long-epochs": (lambda r, g: r.but(rows=3000, dropout=0.1, lr=r.lr * 0.6), ("cls", "reg"), ANY),
    "clean-resume": (lambda r, g: r.but(plant={"again": r.steps // 2, "lost": "nothing"}), ALL, ("plain",)),
    "few-evaluations": (
        lambda r, g: r.but(eval_every=max(r.log_every, r.steps // 4 // r.log_every * r.log_every)),
        ALL,
        ANY,
    ),
    "never-evaluated": (lambda r, g: r.but(eval_every=0), ALL, ("plain",)),
    "weak-but-real": (lambda r, g: r.but(plant={"noise": 2.5}, lr=r.lr * 0.4, width=24, rows=9000), ("reg",), ANY),
    "noise-floor": (lambda r, g: r.but(task="states"), ("tag",), ANY),
    "clean-task": (lambda r, g: r.but(plant={"noise": 0.02}), ("reg",), ANY),
    "still-running": (cut, ALL, ("plain",)),
    "accumulated": (
        lambda r, g: r.but(accumulate=2, batch=max(8, r.batch // 2), steps=r.steps * 2 // 3),
        WORDY,
        ("plain", "hf"),
    ),
    "scaler": (lambda r, g: r.but(plant={"scaler": True}).has("scale"), ALL, ("plain",)),
    "slow-now-and-then": (lambda r, g: r.but(plant={"hiccup": 45}).has("dt"), ALL, ("plain",)),
    "cache-fills": (lambda r, g: r.but(plant={"caches": True}).has("mem", "dt"), ALL, ("plain",)),
    "small-rate-fine": (lambda r, g: r.but(lr=r.lr * 0.6, schedule="constant"), ALL, ANY),
    "mixup": (lambda r, g: r.but(plant={"mixup": 0.3}), ("cls",), ANY),
    "batch-norm": (lambda r, g: r.but(norm="batch"), ("cls", "reg"), ANY),
    "one-cycle": (lambda r, g: r.but(schedule="onecycle", warmup=0.3), ALL, ANY),
    "large-batch": (
        lambda r, g: r.but(batch=r.batch * 3, lr=r.lr * 1.3, steps=r.steps * 2 // 3, rows=12000),
        ("cls", "reg", "s2s", "tag"),
        ANY,
    ),
    "layers": (
        lambda r, g: r.but(log_every=10, eval_every=max(10, r.eval_every // 10 * 10)).has("layers"),
        ALL,
        ("plain", "csv"),
    ),
    "by-epoch": (
        lambda r, g: r.but(voice=g.choice(BY_EPOCH), log_every=5, eval_every=max(5, r.eval_every // 5 * 5)),
        ALL,
        ("plain",),
    ),
}
"""What is odd about it, of which kinds, by which engines."""


def sound(oddity: str, rng: Random) -> Recipe:
    """A recipe of this oddity."""
    change, kinds, engines = ODD[oddity]
    for _ in range(100):
        drawn = draw(rng, engines, kinds, VOICES)
        if oddity == "mixup" and drawn.task not in FLOATS:
            continue
        made = change(drawn, rng)
        if made.voice in BY_EPOCH and not made.eval_every:
            continue
        return made.but(eval_every=min(made.eval_every, made.steps // 2))
    raise LookupError(oddity)


def is_sound(curve: Curve) -> bool:
    """It learns, to its end, without losing what it had."""
    if not curve.finite or curve.last > 0.97 * curve.first or len(curve.loss) < 5:
        return False
    if not len(curve.val):
        return True
    late = curve.val[len(curve.val) // 2 :]
    return bool(
        curve.end < 1.04 * curve.best + 0.01
        and curve.end < 0.97 * curve.val[0] + 0.02
        and np.ptp(late) < 0.6 * curve.first
    )
