"""Faults of the learning rate, its schedule, and what the optimizer is given."""

from __future__ import annotations

import numpy as np
import torch

from .faults import fault, finite, simply_worse, window, worse
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState


def _stays(a: Trace) -> bool:
    """It trains: the loss at the end is below that at the beginning, and nothing has left for good."""
    least = min(window(a.loss, x / 10, (x + 1) / 10) for x in range(10))
    return finite(a) and a.tail() < 0.97 * max(a.loss[0], 1e-9) and a.tail() < 1.5 * least


def _too_high(a: Trace, b: Trace, _: int) -> bool:
    return _stays(a) and worse(a, b)


@fault("learning-rate-too-high", _too_high)
def higher(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(rate=base.rate * (5, 12, 30)[s] * rng.uniform(0.8, 1.5)), base.warmup


@fault("learning-rate-too-high", _too_high)
def higher_and_constant(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(rate=base.rate * (3, 8, 20)[s] * rng.uniform(0.8, 1.4), schedule="constant"), base.warmup


@fault("learning-rate-too-high", _too_high)
def a_rate_for_another_optimizer(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.optimizer, base.rate, base.decay = "adam", 3e-3, 0.0
    return base.copy(rate=(0.02, 0.05, 0.1)[s], clip=0.0), base.warmup


def _too_low(a: Trace, b: Trace, _: int) -> bool:
    falls = window(a.loss, 0.5, 0.7) > window(a.loss, 0.8, 1) * 1.002
    return finite(a) and falls and worse(a, b, 0.15) and a.tail() < a.loss[:5].mean() * 0.998


@fault("learning-rate-too-low", _too_low)
def lower(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(rate=base.rate / (12, 35, 100)[s]), 0


@fault("learning-rate-too-low", _too_low)
def plain_descent_with_a_rate_for_adam(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.optimizer = "sgd"
    base.rate = 0.3 if base.inputs == "tokens" else 0.03
    return base.copy(rate=(3e-3, 1e-3, 3e-4)[s], momentum=(0.9, 0.5, 0.0)[s]), 0


def _damage(a: Trace, b: Trace, _: int) -> bool:
    early = slice(1, max(12, a.steps // 8))
    return (
        finite(a)
        and a.loss[early].max() > 1.15 * max(a.loss[0], b.loss[early].max())
        and a.tail() < a.loss[early].max() / 1.15
        and worse(a, b, 0.04)
    )


@fault("missing-warmup", _damage, needs="lr", only=lambda n, t: t.inputs == "tokens" and n != "neighbours", dense=True)
def post_norm(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.family, base.post, base.depth, base.width, base.optimizer = "trf", True, 3, 32, "adam"
    base.rate, base.warmup, base.clip, base.schedule = (4e-3, 7e-3, 1.2e-2)[s], base.steps // 4, 0.0, "cosine"
    base.steps = min(base.steps, 300)
    return base.copy(warmup=0), 0


@fault("missing-warmup", _damage, needs="lr", only=lambda n, t: t.inputs == "vector", dense=True)
def deep_perceptron(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.depth, base.norm, base.optimizer, base.width, base.residual = (
        4,
        "none",
        str(rng.choice(["adam", "rmsprop"])),
        96,
        True,
    )
    base.rate, base.warmup, base.clip, base.schedule = (0.01, 0.02, 0.04)[s], base.steps // 4, 0.0, "linear"
    return base.copy(warmup=0), 0


@fault("missing-warmup", _damage, needs="lr", dense=True)
def momentum(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.optimizer, base.rate, base.clip = "sgd", base.rate if base.optimizer == "sgd" else 0.1, 0.0
    base.rate, base.warmup, base.schedule = base.rate * (3, 5, 8)[s], base.steps // 4, "cosine"
    return base.copy(warmup=0), 0


def _early(a: Trace, b: Trace, onset: int) -> bool:
    still = b.loss[max(0, onset - 30) : onset].mean() > b.tail() * 1.05
    return finite(a) and still and worse(a, b, 0.05)


@fault("decayed-too-early", _early, needs="lr")
def short_horizon(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.schedule = str(rng.choice(["cosine", "linear", "wsd"]))
    share = (0.4, 0.25, 0.12)[s]
    base.warmup = min(base.warmup, int(0.05 * base.steps))
    return base.copy(horizon=share), int(share * base.steps)


@fault("decayed-too-early", _early, needs="lr")
def fast_exponential(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.schedule, share = "cosine", (0.35, 0.22, 0.12)[s]
    halved = 0.01 ** (1 / (share * base.steps))
    return base.copy(schedule="constant", of_rate=[lambda t, r: max(r * halved**t, 1e-9)]), int(share * base.steps)


@fault("decayed-too-early", _early, needs="lr")
def impatient_reduction(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.schedule, first = "cosine", int((0.3, 0.2, 0.1)[s] * base.steps)
    gap = max(3, base.steps // 25)
    drop = lambda t, r: r * 0.1 ** min(4, (t - first) // gap + 1) if t >= first else r  # noqa: E731
    return base.copy(schedule="constant", of_rate=[drop]), first + gap


def _other_rate(a: Trace, b: Trace, _: int) -> bool:
    gap = np.abs(a.rate - b.rate) > 0.3 * b.rate.max()
    return finite(a) and gap.mean() > 0.15


@fault("schedule-mismatch", _other_rate, needs="lr config")
def cosine_past_its_end(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """It is stepped in each micro-batch, so that the rate rises again."""
    base.schedule, many = "cosine", (2, 4, 8)[s]
    go = lambda t, r: base.rate * 0.5 * (1 + np.cos(np.pi * many * t / base.steps))  # noqa: E731
    return base.copy(of_rate=[go], warmup=0), int(base.steps / many)


@fault("schedule-mismatch", _other_rate, needs="lr config")
def never_arrives(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """It counts the steps of more epochs than are run, or is stepped once in several steps."""
    base.schedule = str(rng.choice(["linear", "cosine"]))
    return base.copy(horizon=(3.0, 6.0, 12.0)[s]), base.warmup


@fault("schedule-mismatch", _other_rate, needs="lr config")
def warmup_by_epochs(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """The warm-up counts epochs where its length was meant in steps."""
    base.warmup, base.schedule = max(10, base.steps // 12), str(rng.choice(["cosine", "linear"]))
    every = (8, 20, 60)[s]
    go = lambda t, r: base.rate * min(1.0, (t // every + 1) / base.warmup)  # noqa: E731
    return base.copy(of_rate=[go]), every


def _left(a: Trace, b: Trace, onset: int) -> bool:
    if not finite(a) or a.loss.max() > 1e6:
        return False
    before = a.loss[: max(5, onset)].min()
    rest = a.loss[int(onset + 0.2 * (a.steps - onset)) :]
    return (
        len(rest) > 20
        and bool(np.median(rest) > 1.3 * max(before, 1e-9) + 0.02)
        and a.tail() > 1.25 * before
        and a.tail() > 1.2 * b.tail()
    )


@fault("divergence", _left)
def ramp(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """A rate that grows without end, as a range test that was left on."""
    begin, most = int(rng.uniform(0.25, 0.5) * base.steps), (60, 200, 800)[s]
    base.schedule, base.clip = "constant", 0.0
    return base.copy(
        of_rate=[lambda t, r: r * most ** max(0.0, (t - begin) / (0.3 * base.steps)) if t > begin else r]
    ), begin + base.steps // 12


@fault("divergence", _left)
def weights_shaken(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """From some step on the weights are disturbed at each update, as by a reduction that goes wrong."""
    begin, base.clip = int(rng.uniform(0.3, 0.7) * base.steps), 1.0
    share = (0.02, 0.05, 0.12)[s]

    def grow(loop, step):
        if step >= begin:
            with torch.no_grad():
                for p in loop.parameters:
                    p.add_(share * p.std() * torch.randn(p.shape, generator=loop.drawn) if p.numel() > 1 else 0.0)

    return base.copy(after=[grow]), begin


@fault("divergence", _left, kinds=("lm", "cls", "tag", "s2s"))
def uphill(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """The sign of the loss is wrong from a switch of the objective on."""
    begin, base.clip = int(rng.uniform(0.3, 0.7) * base.steps), 1.0

    def turn(loop, step):
        if step >= begin:
            for p in loop.parameters:
                if p.grad is not None:
                    p.grad.mul_(-(0.05, 0.2, 0.6)[s])

    base.optimizer, base.rate = "sgd", base.rate if base.optimizer == "sgd" else 0.05
    return base.copy(of_gradient=[turn], schedule="constant"), begin


def _spike(a: Trace, b: Trace, onset: int) -> bool:
    if not finite(a):
        return False
    before = a.loss[max(0, onset - 25) : onset]
    jump = a.loss[onset : onset + max(20, a.steps // 12)]
    noise = before.std() + 1e-9
    high = jump.max() - before.mean()
    wide = (jump > before.mean() + 0.25 * high).sum()
    return bool(
        high > 6 * noise
        and high > 0.3 * abs(before.mean())
        and wide >= 4
        and a.tail(0.08) < before.mean() + 0.25 * high
    )


def _when(base: Plan, rng: Rng) -> int:
    base.evaluations = max(base.evaluations, 6)
    return int(rng.uniform(0.3, 0.65) * base.steps)


@fault("loss-spike", _spike, dense=True)
def rate_bursts(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    at, times = _when(base, rng), (15, 50, 150)[s]
    return base.copy(of_rate=[lambda t, r: base.rate * times if at <= t < at + 3 else r], clip=0.0), at


@fault("loss-spike", _spike, dense=True)
def weights_hit(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    at, share = _when(base, rng), (0.5, 0.9, 1.5)[s]

    def hit(loop, step):
        if step == at - 1:
            with torch.no_grad():
                for p in loop.parameters:
                    if p.dim() > 1:
                        p.add_(share * p.std() * torch.randn(p.shape, generator=loop.drawn))

    return base.copy(after=[hit]), at


@fault("loss-spike", _spike, dense=True)
def moments_lost(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Second moments of nearly nothing: the next steps of Adam are huge."""
    base.optimizer, base.clip, at = "adamw", 0.0, _when(base, rng)
    shrink = (1e-3, 1e-5, 1e-7)[s]

    def lose(loop, step):
        if step == at - 1:
            for state in loop.optimizer.state.values():
                state["exp_avg_sq"].mul_(shrink)

    return base.copy(after=[lose]), at


@fault("gradients-not-cleared", simply_worse, needs="grad_norm")
def never_cleared(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.clip = (1.0, 0.0, 0.0)[s]
    return base.copy(clear_every=10**9), 1


@fault("gradients-not-cleared", simply_worse, needs="grad_norm")
def cleared_by_epoch(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.clip = 0.0
    return base.copy(clear_every=max(20, base.steps // (12, 6, 3)[s])), 1


def _times(a: Trace, b: Trace, _: int) -> bool:
    return finite(a) and a.loss[:10].mean() > 1.8 * a.uniform * 0.7 and a.tail() > 1.6 * a.final


@fault("accumulation-not-normalised", _times, kinds=("lm", "cls", "tag", "s2s"))
def summed(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    many = (2, 4, 16)[s]
    return base.copy(times=float(many), tells_times=True), 0


@fault("accumulation-not-normalised", _times, kinds=("lm", "cls", "tag", "s2s"))
def summed_over_the_batch(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    many = int((3, 8, 32)[s])
    base.optimizer, base.rate = "adam", base.rate if base.optimizer.startswith("ada") else 3e-3
    return base.copy(times=float(many), tells_times=True, clip=0.0), 0
