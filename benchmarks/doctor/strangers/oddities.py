"""Sound runs: well tuned ones, and those that look odd and are as they should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .data import Data
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState


@dataclass(frozen=True)
class Oddity:
    """How a sound plan is bent, for which tasks, and what its log carries."""

    name: str
    bend: Callable[[Plan, Rng], Plan]
    kinds: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    only: Callable[[str, Any], bool] | None = None
    tuned: bool = True
    """Its rate must be as good as its neighbours."""


def _set(**changes: Any) -> Callable[[Plan, Rng], Plan]:
    return lambda plan, rng: plan.copy(**changes)


def _small_batch(plan: Plan, rng: Rng) -> Plan:
    size = int(rng.choice([4, 6, 8]))
    return plan.copy(
        batch=size,
        rate=plan.rate * min(1, (size / plan.batch) ** 0.5),
        every=int(rng.choice([1, 5])),
        schedule="cosine",
    )


def _cut(plan: Plan, rng: Rng) -> Plan:
    return plan.copy(
        ends_at=int(plan.steps * rng.uniform(0.4, 0.8)), schedule=str(rng.choice(["cosine", "linear", "constant"]))
    )


def _curriculum(plan: Plan, rng: Rng) -> Plan:
    """Easy samples first: few tokens of the vocabulary, little noise; then all."""
    first, second = int(0.3 * plan.steps), int(0.55 * plan.steps)

    def order(data: Data, r: Rng) -> Data:
        hard = data.y.abs().double() if data.y.dim() == 1 else (data.y * (data.y > 0)).double().std(1)
        at = torch.argsort(hard)
        data.x, data.y = data.x[at], data.y[at]
        return data

    def easy(loop, step, x, y):
        share = 0.35 if step < first else 0.65 if step < second else 1.0
        at = torch.randint(0, int(share * len(loop.data.x)), (len(y),), generator=loop.drawn)
        return loop.data.x[at], loop.data.y[at]

    return plan.copy(of_data=[order], of_batch=[easy], every=min(plan.every, 10))


def _correlated(plan: Plan, rng: Rng) -> Plan:
    """Samples of one shard after those of another: a slow wander that does no harm."""
    pace = int(rng.choice([10, 25, 40]))

    def shard(loop, step, x, y):
        many = len(loop.data.x)
        value = np.random.RandomState(step // pace).randint(0, 7)
        at = torch.randint(0, many // 7, (len(y) // 2,), generator=loop.drawn) * 7 + value
        return torch.cat([x[: len(y) - len(at)], loop.data.x[at]]), torch.cat([y[: len(y) - len(at)], loop.data.y[at]])

    def order(data: Data, r: Rng) -> Data:
        key = data.y.double() if data.y.dim() == 1 else (data.y * (data.y > 0)).double().mean(1)
        at = torch.argsort(key + 1.5 * key.std() * torch.tensor(r.randn(len(key))))
        at = at[: len(at) // 7 * 7].reshape(7, -1).T.reshape(-1)
        data.x, data.y = data.x[at], data.y[at]
        return data

    return plan.copy(of_data=[order], of_batch=[shard], batch=max(16, plan.batch), every=min(plan.every, 10))


def _augmented(plan: Plan, rng: Rng) -> Plan:
    """Training samples are made harder than validation ones."""

    def blur(loop, step, x, y):
        if x.is_floating_point():
            return x + 0.5 * torch.randn(x.shape, generator=loop.drawn), y
        return torch.where(
            torch.rand(x.shape, generator=loop.drawn) < 0.08,
            torch.randint(0, loop.data.voc, x.shape, generator=loop.drawn),
            x,
        ), y

    return plan.copy(of_batch=[blur])


def _growing_batch(plan: Plan, rng: Rng) -> Plan:
    at = int(0.5 * plan.steps)

    def part(loop, step, x, y):
        few = max(4, len(y) // 8)
        return (x[:few], y[:few]) if step < at else (x, y)

    return plan.copy(
        of_batch=[part], batch=max(64, plan.batch) if plan.inputs != "tokens" else 48, every=min(plan.every, 5)
    )


def _rarer(data: Data, r: Rng) -> Data:
    for x, y in (("x", "y"), ("vx", "vy")):
        kept = (getattr(data, y) == 0) | torch.tensor(r.rand(len(getattr(data, y))) < 0.15)
        setattr(data, x, getattr(data, x)[kept])
        setattr(data, y, getattr(data, y)[kept])
    return data


def _fine_tuned(plan: Plan, rng: Rng) -> Plan:
    def other(data: Data, r: Rng) -> Data:
        if data.x.is_floating_point():
            data.x, data.vx = data.x * 1.15 + 0.1, data.vx * 1.15 + 0.1
        return data

    return plan.copy(warm_start=300, of_data=[other], rate=plan.rate * 0.5, steps=min(plan.steps, 300), warmup=10)


def _evaluated_in_short(plan: Plan, rng: Rng) -> Plan:
    return plan.copy(drawn_valid=120 if plan.inputs != "tokens" else 60, evaluations=int(rng.randint(15, 40)))


def _clean_spikes(plan: Plan, rng: Rng) -> Plan:
    """A hard batch now and then: the loss is a little higher there, and nothing follows."""

    def hard(loop, step, x, y):
        if step % 83 != 60:
            return x, y
        with torch.no_grad():
            from .train import losses

            at = torch.randint(0, len(loop.data.x), (3 * len(y),), generator=loop.drawn)
            each = losses(loop.plan, loop.model(loop.data.x[at]), loop.data.y[at])
        top = at[each.topk(len(y)).indices]
        return torch.cat([x[len(y) // 4 :], loop.data.x[top[: len(y) // 4]]]), torch.cat(
            [y[len(y) // 4 :], loop.data.y[top[: len(y) // 4]]]
        )

    return plan.copy(of_batch=[hard], every=1, batch=max(plan.batch, 24))


ODDITIES: list[Oddity] = [
    Oddity("cosine-tail", _set(schedule="cosine")),
    Oddity("stable-then-decay", _set(schedule="wsd")),
    Oddity("step-drops", _set(schedule="step", every=5)),
    Oddity("restarts", _set(schedule="restarts")),
    Oddity("halved-at-plateaus", lambda p, r: p.copy(schedule="plateau", evaluations=30)),
    Oddity("small-batch", _small_batch, kinds=("cls", "reg", "tag")),
    Oddity(
        "dropout-gap", lambda p, r: p.copy(drop=float(r.choice([0.2, 0.3]))), kinds=("lm", "cls", "tag"), tuned=False
    ),
    Oddity("smoothing-gap", _set(smoothing=0.1), kinds=("lm", "cls", "tag")),
    Oddity("running-average", _set(), needs=frozenset({"running"})),
    Oddity(
        "single-epoch",
        lambda p, r: p.copy(n=p.batch * p.steps + 10 if p.inputs != "tokens" else p.n, valid=p.valid),
        only=lambda n, t: t.inputs in ("vector", "image") or t.kind == "lm",
    ),
    Oddity("resumed-cleanly", lambda p, r: p.copy(every=min(p.every, 10)), needs=frozenset({"resume"})),
    Oddity("growing-gradients", _set(decay=0.0, schedule="rsqrt"), needs=frozenset({"grad_norm"}), kinds=("lm", "cls")),
    Oddity("slow-first-steps", _set(clock={"sawtooth": 1.0}), needs=frozenset({"step_time", "data_time"})),
    Oddity("noisy-evaluations", _evaluated_in_short),
    Oddity("weak-relation", _set(decay=0.0, width=16, depth=1), only=lambda n, t: n == "weak"),
    Oddity(
        "noise-floor",
        lambda p, r: p.copy(schedule=str(r.choice(["wsd", "linear"])), width=16, depth=1),
        only=lambda n, t: n in ("churn", "moons", "chains", "series", "weak", "prices"),
    ),
    Oddity(
        "annealed-penalty",
        lambda p, r: p.copy(penalty=lambda t: 0.25 * min(1.0, t / (0.6 * p.steps)), every=min(p.every, 10)),
        kinds=("cls", "reg"),
    ),
    Oddity(
        "sum-of-tasks",
        lambda p, r: p.copy(second_task=float(r.uniform(0.1, 0.4))),
        kinds=("cls", "tag"),
        only=lambda n, t: t.inputs != "tokens",
    ),
    Oddity("distilled", _set(teacher=True), kinds=("cls", "lm", "tag")),
    Oddity("correlated-batches", _correlated),
    Oddity("still-running", _cut),
    Oddity("fine-tuned", _fine_tuned, tuned=False),
    Oddity("curriculum", _curriculum, tuned=False),
    Oddity("averaged-weights", _set(averaged=0.97)),
    Oddity("sawtooth-memory", _set(clock={"cache": 1.0}), needs=frozenset({"memory"})),
    Oddity("augmented", _augmented),
    Oddity("growing-batch", _growing_batch, tuned=False),
    Oddity("rare-classes", _set(of_data=[_rarer]), kinds=("cls",), needs=frozenset({"accuracy"})),
    Oddity(
        "late-insight",
        lambda p, r: p.copy(steps=int(p.steps * 1.2)),
        only=lambda n, t: n in ("sums", "sort", "reverse", "double"),
    ),
    Oddity("hard-batches", _clean_spikes),
    Oddity("loss-scale", _set(scaled=True), needs=frozenset({"loss_scale", "grad_norm"})),
    Oddity("robust-loss", _set(robust=True), kinds=("reg",)),
    Oddity("many-classes", _set(), only=lambda n, t: n in ("scripts", "neighbours", "lines")),
    Oddity("one-cycle", _set(schedule="onecycle")),
]


def sound(a: Trace, strict: bool = True) -> bool:
    """It learned, ends near its best, and is finite: nobody could say that something is wrong."""
    if not (np.isfinite(a.loss).all() and np.isfinite(a.valid()).all()):
        return False
    v = a.valid()
    smooth = np.convolve(v, np.ones(2) / 2, "valid") if len(v) > 3 else v
    learned = a.final < 0.985 * max(v[0], a.uniform if a.plan.kind == "reg" else a.uniform * 0.97) or a.plan.warm_start
    stays = smooth[-1] < 1.03 * smooth.min() + 0.003
    gap = a.final < (1.35 if strict else 1.6) * a.tail() + 0.05
    return bool(learned and stays and gap)
