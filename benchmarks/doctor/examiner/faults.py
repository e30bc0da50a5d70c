"""The faults: how people come by them, and what must be visible of each beside its sound twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from examiner.curve import Curve
from examiner.recipe import Recipe

LANGUAGE = ("lm", "mlm", "s2s")
ALL = ("lm", "mlm", "cls", "tag", "s2s", "reg")
ANY = ("plain", "plain", "hf", "csv", "plain", "tb")
STEPPED = ("nanogpt", "wandb", "wandbtable", "jsonl", "logging", "titan", "examples")
FREE = ("wandbtable", "jsonl", "logging")
"""Voices that write down whatever there is."""

Pair = tuple[Recipe, Recipe, int | None]
"""A faulty recipe, its sound twin, and the onset: None of the whole run, -1 where the curve tells."""


@dataclass(frozen=True)
class Fault:
    """One way to come by a fault."""

    plant: Callable[[Recipe, Random, int], Pair]
    bites: Callable[[Recipe, Curve, Curve], int | bool | None]
    """Whether it shows: True, or the step where it begins to."""
    kinds: tuple[str, ...] = ALL
    engines: tuple[str, ...] = ANY
    voices: tuple[str, ...] = STEPPED
    wants: Callable[[Recipe], bool] = lambda _: True


def worse(share: float = 0.08) -> Callable[[Recipe, Curve, Curve], bool]:
    """The outcome is worse than the twin's by this part, and both are numbers."""

    def ask(_: Recipe, a: Curve, b: Curve) -> bool:
        return a.finite and b.finite and a.end > b.end + share * abs(b.end) and a.end - b.end > 0.05 * (b.first - b.end)

    return ask


def both(*all_of: Callable[[Recipe, Curve, Curve], object]) -> Callable[[Recipe, Curve, Curve], bool]:
    """Every condition."""
    return lambda r, a, b: all(one(r, a, b) for one in all_of)


def _at(rng: Random, r: Recipe) -> int:
    return int(r.steps * rng.uniform(0.3, 0.7))


def every(r: Recipe, n: int = 1) -> Recipe:
    """Logged each n steps, raw."""
    return r.but(log_every=n, eval_every=max(n, r.eval_every // n * n), average=n > 1)


# The optimizer


def nan(r: Recipe, rng: Random, s: int) -> Pair:
    at = _at(rng, r)
    return r.but(plant={"log_zero": at, "until_nan": at + 60}), r, at


def too_high(r: Recipe, rng: Random, s: int) -> Pair:
    up = (6, 15, 40)[s] * (1.5 if r.optimizer == "sgd" else 1) * rng.uniform(0.8, 1.4)
    return r.but(lr=float(f"{r.lr * up:.2g}")), r, 1


def trains_badly(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(worse(0.12)(r, a, b) and a.last < 0.93 * a.first and a.leaves() is None)


def no_warmup(r: Recipe, rng: Random, s: int) -> Pair:
    high = float(f"{r.lr * (2, 4, 6)[s]:.2g}")
    twin = r.but(lr=high, warmup=0.15, norm="post", depth=3, schedule="cosine", columns=r.has("lr", "gnorm").columns)
    twin = every(twin, min(5, r.log_every))
    return twin.but(warmup=0.0), twin, 1


def damaged(r: Recipe, a: Curve, b: Curve) -> bool:
    early = max(4, len(a.loss) // 10)
    return bool(worse(0.05)(r, a, b) and np.nanmax(a.loss[:early]) > 1.1 * np.nanmax(b.loss[:early]))


def away(r: Recipe, rng: Random, s: int) -> Pair:
    start = _at(rng, r)
    how = rng.choice(("sign", "grows"))
    twin = r.but(clip=0.0 if how == "grows" else r.clip, schedule="constant")
    if how == "sign":
        return twin.but(plant={"away": start, "strength": (0.2, 0.5, 1.0)[s]}), twin, -1
    return twin.but(plant={"grows": start, "pace": (14, 20, 30)[s], "most": 2000.0}), twin, -1


def left(r: Recipe, a: Curve, b: Curve) -> int | bool:
    start = a.leaves()
    if start is None or not np.isfinite(a.loss[:-1]).all() or a.last < 1.3 * max(np.nanmin(a.smooth), 0.02):
        return False
    return start if 0.1 * r.steps < start < 0.92 * r.steps else False


def explode(r: Recipe, rng: Random, s: int) -> Pair:
    how = rng.choice(("decay", "recurrent"))
    twin = every(r.has("gnorm"), 2).but(clip=0.0, warmup=0.05, optimizer="adamw", schedule="constant")
    if how == "recurrent":
        twin = twin.but(net="rnn", lr=1e-3)
        return (
            twin.but(lr=(4e-3, 8e-3, 1.5e-2)[s], optimizer="sgd" if rng.random() < 0.5 else "adam", warmup=0.6),
            twin,
            -1,
        )
    return twin.but(plant={"decay": -(3.0, 6.0, 12.0)[s]}), twin, -1


def gradient_leads(r: Recipe, a: Curve, b: Curve) -> int | bool:
    calm = np.median(a.norm[3 : max(6, len(a.norm) // 5)])
    high = np.flatnonzero(~(a.norm < 8 * calm))
    start = a.leaves()
    if not len(high) or start is None or not np.isfinite(calm):
        return False
    first = int(a.step[high[0]])
    return first if 0.05 * r.steps < first <= start and np.nanmax(a.norm) > 50 * calm else False


def spike(r: Recipe, rng: Random, s: int) -> Pair:
    at = _at(rng, r)
    twin = every(r, rng.choice((1, 2, 5))).but(schedule=rng.choice(("cosine", "constant", "linear")))
    return (
        twin.but(clip=0.0, plant={"glitch": at, "during": rng.choice((6, 10, 16)), "up": (15, 30, 60)[s]}),
        twin,
        at + 1,
    )


def returns(r: Recipe, a: Curve, b: Curve) -> bool:
    at = r.plant.get("glitch", 0)
    inside = (a.step > at) & (a.step < at + 0.12 * r.steps)
    if not inside.any() or not a.finite:
        return False
    before = a.loss[(a.step <= at) & (a.step > at - 0.15 * r.steps)]
    peak = a.loss[inside].max()
    up = peak - before.mean()
    return bool(
        up > 5 * before.std()
        and up > 0.15 * before.mean()
        and a.last < before.mean() + 0.25 * up
        and (a.loss[inside] > before.mean() + 0.3 * up).sum() >= 2
    )


def frozen(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("layers", "gnorm").but(log_every=10, eval_every=max(10, r.eval_every // 10 * 10))
    return twin.but(plant={"frozen": (0.5, 0.75, 1.0)[s]}), twin, 1


def too_low(r: Recipe, rng: Random, s: int) -> Pair:
    return (
        r.but(lr=float(f"{r.lr / (25, 60, 150)[s]:.2g}"), schedule=rng.choice(("constant", "linear"))),
        r,
        None,
    )


def creeps(r: Recipe, a: Curve, b: Curve) -> bool:
    third = len(a.smooth) // 3
    return bool(
        worse(0.15)(r, a, b) and a.slope > 0.05 and a.smooth[-third:].mean() < a.smooth[third : 2 * third].mean()
    )


def early_decay(r: Recipe, rng: Random, s: int) -> Pair:
    ends = (0.4, 0.25, 0.15)[s] * rng.uniform(0.85, 1.15)
    twin = r.has("lr").but(schedule=rng.choice(("cosine", "linear")))
    return twin.but(plant={"ends": ends}), twin, int(ends * r.steps)


def mismatch(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("lr").but(schedule="cosine")
    if s == 1:
        return twin.but(plant={"stair": r.steps // 6}), twin, 1
    period = int(r.steps * rng.uniform(0.25, 0.4))
    return twin.but(plant={"period": period}), twin, period


def noisy(r: Recipe, rng: Random, s: int) -> Pair:
    few = (3, 2, 1)[s]
    twin = every(r.but(clip=1.0, schedule="constant", length=20))
    return twin.but(batch=few, clip=0.0), twin, 1


def drowns(r: Recipe, a: Curve, b: Curve) -> bool:
    half = len(a.loss) // 2
    fell = abs(a.loss[: half // 2].mean() - a.last)
    return bool(
        worse(0.05)(r, a, b) and a.loss[half:].std() > 0.35 * fell and a.loss[half:].std() > 2 * b.loss[half:].std()
    )


def scale(r: Recipe, rng: Random, s: int) -> Pair:
    at = _at(rng, r)
    twin = every(r.has("scale", "gnorm"), min(5, r.log_every)).but(plant={"scaler": True})
    return twin.but(plant={"root_zero": at}), twin, at


def scale_falls(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(a.of("scale")[-1] < 1e-3 and worse(0.03)(r, a, b))


def vanish(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("layers").but(
        depth=(5, 7, 9)[s], act="relu", norm="batch", log_every=10, eval_every=max(10, r.eval_every // 10 * 10)
    )
    return twin.but(act="sigmoid", norm="pre"), twin, 1


def tiny_below(r: Recipe, a: Curve, b: Curve) -> bool:
    layers = [list(one["layers"].values()) for one in a.rows[2:] if one.get("layers")]
    return bool(
        layers
        and worse(0.15)(r, a, b)
        and 0 < np.median([one[0] / max(1e-30, one[-1]) for one in layers[: len(layers) // 2]]) < 1e-2
    )


def dead(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("dead").but(act="relu", log_every=10, eval_every=max(10, r.eval_every // 10 * 10))
    return twin.but(plant={"low": -30.0, "share": (0.7, 0.85, 0.96)[s]}), twin, 1


def are_dead(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(a.rows[-1]["dead"] and max(a.rows[-1]["dead"].values()) > 0.5 and worse(0.06)(r, a, b))


def bad_start(r: Recipe, rng: Random, s: int) -> Pair:
    twin = every(r, min(5, r.log_every))
    return twin.but(plant={"gain": (3.0, 6.0, 12.0)[s]}), twin, 1


def high_start(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(a.first > 2 * b.first and worse(0.05)(r, a, b))


def unscaled(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has(*(("spread",) if rng.random() < 0.5 else ()))
    twin = every(twin, min(5, r.log_every)).but(norm="pre")
    return twin.but(plant={"scale": (30.0, 150.0, 800.0)[s], "offset": rng.choice((0.0, 20.0))}), twin, 1


def outliers(r: Recipe, rng: Random, s: int) -> Pair:
    twin = every(r)
    return twin.but(plant={"outliers": (0.01, 0.006, 0.003)[s], "far": (12, 25, 60)[s]}), twin, 1


def heavy_tail(r: Recipe, a: Curve, b: Curve) -> bool:
    late = a.loss[len(a.loss) // 4 :]
    return bool(a.finite and (late > 6 * np.median(late)).sum() >= 8)


def not_cleared(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("gnorm").but(clip=0.0, optimizer=rng.choice(("sgd", "adamw")))
    if twin.optimizer == "sgd" and r.optimizer != "sgd":
        twin = twin.but(lr=0.04, optimizer="sgd")
    return twin.but(plant={"kept": (60, 200, 10**9)[s]}), twin, 1


def adds_up(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(worse(0.05)(r, a, b) and np.nanmedian(a.norm) > 4 * np.nanmedian(b.norm))


def undivided(r: Recipe, rng: Random, s: int) -> Pair:
    many = (2, 4, 8)[s]
    twin = r.but(accumulate=many, batch=max(4, r.batch // many), steps=max(150, r.steps * 2 // (2 + many)))
    twin = twin.but(eval_every=max(r.log_every, twin.steps // 12 // r.log_every * r.log_every))
    return twin.but(plant={"undivided": True}), twin, 1


def multiple(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(a.finite and a.first > 1.7 * b.first and a.last > 1.4 * a.end)


def soft(r: Recipe, rng: Random, s: int) -> Pair:
    return r.but(plant={"softmax": True}), r, 1


def training_mode(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.but(
        dropout=(0.2, 0.35, 0.5)[s],
        schedule="linear",
        eval_every=max(r.log_every, r.steps // 24 // r.log_every * r.log_every),
    )
    twin = twin.but(plant={"twice": True} if r.engine == "plain" else {})
    return twin.but(plant={"always_training": True}), twin, 1


def jitters(r: Recipe, a: Curve, b: Curve) -> bool:
    tail = max(4, len(a.val) // 4)
    return bool(
        worse(0.05)(r, a, b) and np.abs(np.diff(a.val[-tail:])).mean() > 3 * np.abs(np.diff(b.val[-tail:])).mean()
    )


# What the model learns


def memorised(r: Recipe, rng: Random, s: int) -> Pair:
    few = (350, 200, 100)[s]
    twin = r.but(dropout=0.0, wd=0.0, width=64, schedule="constant", clip=1.0)
    return twin.but(rows=few, batch=min(16, r.batch)), twin, -1


def turns(r: Recipe, a: Curve, b: Curve) -> int | bool:
    low = int(np.argmin(a.val))
    if (
        not a.finite
        or a.end < 1.12 * a.best
        or a.last > 0.8 * np.interp(a.vstep[low], a.step, a.smooth)
        or low > len(a.val) - 4
    ):
        return False
    return int(a.vstep[low])


def sure(r: Recipe, a: Curve, b: Curve) -> int | bool:
    start = turns(r, a, b)
    low = int(np.argmin(a.val))
    return start if start and a.acc[-3:].mean() > a.acc[max(0, low - 1) : low + 2].mean() + 0.01 else False


def only_turns(r: Recipe, a: Curve, b: Curve) -> int | bool:
    return False if "acc" in r.columns and sure(r, a, b) else turns(r, a, b)


def tiny(r: Recipe, rng: Random, s: int) -> Pair:
    return r.but(width=4, depth=1, net=rng.choice(("gru", "transformer")), lr=0.01), r.but(schedule="cosine"), None


def stands_high(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(worse(0.2)(r, a, b) and a.slope < 0.03)


def regular(r: Recipe, rng: Random, s: int) -> Pair:
    how = rng.choice(("dropout", "decay", "smoothing")) if r.kind != "reg" else rng.choice(("dropout", "decay"))
    twin = r.but(
        dropout=0.1 if how == "dropout" else r.dropout, optimizer="adamw", lr=r.lr if r.optimizer != "sgd" else 2e-3
    )
    if how == "dropout":
        return twin.but(dropout=(0.7, 0.8, 0.9)[s]), twin, 1
    if how == "decay":
        return twin.but(wd=(20.0, 50.0, 120.0)[s]), twin, 1
    return twin.but(smoothing=(0.6, 0.75, 0.9)[s]), twin, 1


def stuck(r: Recipe, rng: Random, s: int) -> Pair:
    return r.but(dropout=0.0, norm="pre", plant={"equal": (0.3, 1.0, 0.1)[s]}), r.but(dropout=0.0), None


def stands_early(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(worse(0.25)(r, a, b) and abs(a.slope) < 0.03 and a.first - a.last > 0.02 * a.first)


def few_steps(r: Recipe, rng: Random, s: int) -> Pair:
    steps = (60, 40, 25)[s]
    return (
        every(r.but(lr=5e-4, steps=steps, eval_every=10)),
        every(r.but(lr=5e-4, steps=steps * 8, eval_every=steps)),
        None,
    )


# Data


def wrong(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("acc").but(rows=r.rows if rng.random() < 0.6 else 900)
    return twin.but(plant={"wrong": (0.2, 0.35, 0.5)[s], "wrong_held": rng.random() < 0.5}), twin, 1


def no_sense(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.but(rows=r.rows if s else 1000)
    return twin.but(plant={"permuted": True, "wrong_held": rng.random() < 0.6}), twin, 1


def no_better(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(a.finite and a.best > 0.93 * a.val[0] and b.end < 0.8 * a.best)


def one_class(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("acc")
    return (
        twin.but(plant={"same": (0.9, 0.95, 0.98)[s]} if rng.random() < 0.5 else {"heavy": (200.0, 1000.0, 5000.0)[s]}),
        twin,
        1,
    )


def constant(r: Recipe, a: Curve, b: Curve) -> bool:
    late = a.acc[len(a.acc) // 3 :]
    return bool(np.ptp(late) < 0.004 and b.acc[-1] > late[-1] + 0.15)


def sorted_data(r: Recipe, rng: Random, s: int) -> Pair:
    twin = every(r, min(5, r.log_every)).but(rows=r.batch * (r.steps // (5, 3, 2)[s]))
    return twin.but(plant={"order": "count"}), twin, 1


def follows(r: Recipe, a: Curve, b: Curve) -> bool:
    if not a.finite:
        return False
    part = max(2, len(a.loss) // 30)

    def blocks(c: Curve) -> np.ndarray:
        return np.array([c.loss[i : i + part].mean() for i in range(len(c.loss) // 4, len(c.loss) - part, part)])

    return bool(np.std(np.diff(blocks(a))) > 2.5 * np.std(np.diff(blocks(b))))


def bad_batch(r: Recipe, rng: Random, s: int) -> Pair:
    at = _at(rng, r)
    twin = every(r)
    times = (15.0, 60.0, 300.0)[s] if r.kind != "reg" else (6.0, 12.0, 30.0)[s]
    return twin.but(plant={"bad_at": (at,), "times": times}), twin, at


def one_peak(r: Recipe, a: Curve, b: Curve) -> bool:
    at = np.flatnonzero(a.step == r.plant["bad_at"][0])
    if not len(at) or not a.finite:
        return False
    near = a.loss[max(0, at[0] - 40) : at[0]]
    return bool(a.loss[at[0]] > near.mean() + 6 * near.std() and a.loss[at[0]] > 1.5 * near.mean())


def told(r: Recipe, rng: Random, s: int) -> Pair:
    return r.has("acc").but(plant={"told": True}), r.has("acc"), 1


def too_good(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(a.finite and a.end < 0.1 * b.end and a.end < 0.05 * a.first and b.end > 0.15 * b.first)


def other_kind(r: Recipe, rng: Random, s: int) -> Pair:
    return r.but(plant={"drift": (0.3, 0.5, 0.8)[s]}), r, 1


def apart(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(worse(0.3)(r, a, b) and abs(a.last - b.last) < 0.15 * b.last + 0.02 and b.end < 1.25 * b.last + 0.03)


def few_held(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.but(eval_every=max(r.log_every, r.steps // 25 // r.log_every * r.log_every), schedule="constant")
    return twin.but(plant={"held": (12, 6, 3)[s]}), twin, 1


def jumps(r: Recipe, a: Curve, b: Curve) -> bool:
    late = slice(len(a.val) // 3, None)
    return bool(
        np.abs(np.diff(a.val[late])).mean() > 4 * np.abs(np.diff(b.val[late])).mean()
        and np.std(a.val[late]) > 0.05 * np.mean(a.val[late])
    )


# The machine


def hungry(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("dt", "data").but(steps=min(300, r.steps), log_every=5, eval_every=50)
    return twin.but(plant={"waits": (0.006, 0.009, 0.012)[s]}), twin, None


def waits(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(np.median(a.of("data") / a.of("dt")) > 0.45)


def evaluates(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("took", "dt").but(steps=min(240, r.steps), log_every=5)
    fast = twin.but(eval_every=60)
    return twin.but(eval_every=(20, 10, 5)[s], held=512, plant={"evaluations": 3}), fast, None


def long_evaluations(r: Recipe, a: Curve, b: Curve) -> bool:
    evals = sum(one.get("took", 0.0) for one in a.evals)
    return evals > 0.4 * a.whole > 0


def slows(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("dt").but(steps=min(400, r.steps), log_every=5, eval_every=50)
    return twin.but(plant={"slower": (0.008, 0.014, 0.022)[s], "bend": rng.choice((1.0, 1.5))}), twin, 1


def slower(r: Recipe, a: Curve, b: Curve) -> bool:
    dt, n = a.of("dt"), len(a.rows) // 4
    return bool(np.median(dt[-n:]) > 1.6 * np.median(dt[1:n]))


def leaks(r: Recipe, rng: Random, s: int) -> Pair:
    twin = r.has("mem").but(steps=min(400, r.steps), log_every=5, eval_every=50)
    return twin.but(plant={"leaks": (0.5, 0.9, 1.4)[s]}), twin, 1


def grows(r: Recipe, a: Curve, b: Curve) -> bool:
    return bool(a.of("mem")[-1] > 1.12 * a.of("mem")[1])


def resumed(r: Recipe, rng: Random, s: int) -> Pair:
    at = _at(rng, r)
    twin = every(r, min(5, r.log_every)).but(schedule=rng.choice(("cosine", "linear", "constant")))
    how = ("weights", "noise", "head")[s]
    return twin.but(plant={"again": at, "lost": how, "remember": max(2, int(at * 0.15))}), twin, at


def jump(r: Recipe, a: Curve, b: Curve) -> bool:
    at = r.plant["again"]
    before = a.loss[(a.step < at) & (a.step > at - 0.15 * r.steps)]
    after = a.loss[(a.step >= at)][:4]
    return bool(
        len(before) > 2
        and a.finite
        and after.mean() > before.mean() + 4 * before.std()
        and after.mean() > 1.1 * before.mean()
    )


def flat_tasks(r: Recipe) -> bool:
    """A perceptron over numbers."""
    return r.net == "mlp"


SLOW = ("plain",)
P = ("plain", "plain", "csv")
CLASSES = ("cls", "tag")
FAULTS: dict[str, tuple[Fault, ...]] = {
    "nan-loss": (Fault(nan, lambda r, a, b: not np.isfinite([a.loss[-1], a.val[-1]]).all()),),
    "learning-rate-too-high": (Fault(too_high, trains_badly),),
    "missing-warmup": (
        Fault(
            no_warmup,
            damaged,
            LANGUAGE + CLASSES,
            P,
            ("nanogpt", "wandbtable", "jsonl", "logging"),
            lambda r: r.net == "transformer",
        ),
    ),
    "exploding-gradients": (
        Fault(explode, gradient_leads, ("lm", "tag", "cls", "reg"), P, ("wandbtable", "jsonl", "logging", "titan")),
    ),
    "divergence": (Fault(away, left),),
    "loss-spike": (Fault(spike, returns),),
    "frozen-parameters": (Fault(frozen, worse(0.1), ALL, P, ("wandbtable", "jsonl")),),
    "learning-rate-too-low": (Fault(too_low, creeps, voices=(*STEPPED, "kerascsv", "kerastext")),),
    "decayed-too-early": (
        Fault(early_decay, worse(0.08), voices=("nanogpt", "wandb", "wandbtable", "jsonl", "logging", "kerascsv")),
    ),
    "schedule-mismatch": (
        Fault(
            mismatch,
            lambda r, a, b: a.finite and a.end > 1.01 * b.end,
            engines=("plain", "csv", "hf"),
            voices=("logging",),
        ),
    ),
    "noisy-loss": (Fault(noisy, drowns, LANGUAGE),),
    "loss-scale-collapse": (Fault(scale, scale_falls, engines=SLOW, voices=FREE),),
    "vanishing-gradients": (Fault(vanish, tiny_below, ("cls", "reg"), P, ("wandbtable", "jsonl"), flat_tasks),),
    "dead-units": (
        Fault(dead, are_dead, ("cls", "reg"), SLOW, ("wandbtable", "jsonl"), lambda r: r.net in ("mlp", "set")),
    ),
    "bad-initialization": (Fault(bad_start, high_start, ("lm", "mlm", "cls", "tag", "s2s")),),
    "unscaled-inputs": (
        Fault(
            unscaled,
            high_start,
            ("cls", "reg"),
            ("plain", "plain", "csv", "hf"),
            STEPPED,
            lambda r: r.net in ("mlp", "set", "cnn"),
        ),
    ),
    "outlier-dominated-loss": (Fault(outliers, heavy_tail, ("reg",)),),
    "gradients-not-cleared": (Fault(not_cleared, adds_up, ALL, P, ("wandbtable", "jsonl", "logging", "titan")),),
    "accumulation-not-normalised": (Fault(undivided, multiple, ("lm", "mlm", "cls", "tag", "s2s"), SLOW),),
    "double-softmax": (Fault(soft, worse(0.15), ("cls", "tag", "lm"), voices=(*STEPPED, "kerascsv", "kerastext")),),
    "evaluated-in-training-mode": (Fault(training_mode, jitters, ALL),),
    "overfitting": (Fault(memorised, only_turns, voices=(*STEPPED, "kerascsv", "kerastext")),),
    "underfitting": (Fault(tiny, stands_high, ("lm",), P),),
    "over-regularised": (Fault(regular, worse(0.15), voices=(*STEPPED, "kerascsv", "kerastext")),),
    "overconfident": (
        Fault(
            lambda r, g, s: memorised(r.has("acc"), g, s),
            sure,
            CLASSES,
            voices=("kerascsv", "kerastext", "jsonl", "logging", "examples", "wandb"),
        ),
    ),
    "plateau": (Fault(stuck, stands_early, ("cls", "reg"), wants=lambda r: r.net in ("mlp", "set", "cnn")),),
    "stopped-too-early": (Fault(few_steps, worse(0.15), ("lm",)),),
    "label-noise": (
        Fault(wrong, worse(0.15), CLASSES, voices=("kerascsv", "kerastext", "jsonl", "logging", "wandb", "wandbtable")),
    ),
    "random-labels": (Fault(no_sense, no_better, CLASSES, voices=(*STEPPED, "kerascsv", "kerastext")),),
    "class-collapse": (
        Fault(one_class, constant, CLASSES, voices=("kerascsv", "kerastext", "jsonl", "logging", "examples", "wandb")),
    ),
    "unshuffled-data": (Fault(sorted_data, follows),),
    "corrupt-batch": (Fault(bad_batch, one_peak),),
    "target-leak": (
        Fault(
            told,
            too_good,
            ("cls", "tag", "reg"),
            voices=(*STEPPED, "kerascsv", "kerastext"),
            wants=lambda r: r.net in ("mlp", "cnn", "transformer", "gru", "lstm", "bert", "distilbert"),
        ),
    ),
    "validation-shift": (Fault(other_kind, apart, voices=(*STEPPED, "kerascsv", "kerastext")),),
    "validation-too-small": (Fault(few_held, jumps),),
    "input-bound": (Fault(hungry, waits, engines=SLOW, voices=FREE),),
    "evaluation-bound": (Fault(evaluates, long_evaluations, engines=("plain", "hf"), voices=FREE),),
    "throughput-decay": (
        Fault(slows, slower, engines=SLOW, voices=("jsonl", "logging", "titan", "nanogpt", "wandbtable")),
    ),
    "memory-leak": (Fault(leaks, grows, engines=SLOW, voices=("jsonl", "logging", "titan", "wandbtable")),),
    "resume-discontinuity": (
        Fault(resumed, jump, engines=SLOW, voices=("nanogpt", "wandbtable", "jsonl", "logging", "titan")),
    ),
}
