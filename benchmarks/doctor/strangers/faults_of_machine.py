"""Faults of the machine and of resuming: what the clock, the memory and the joins show."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .faults import fault, finite, window
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState


def _waits(a: Trace, b: Trace, _: int) -> bool:
    return (
        float((a.clock["data"] / a.clock["step"]).mean()) > 0.28 or a.clock["data"].sum() / a.clock["step"].sum() > 0.28
    )


@fault("input-bound", _waits, needs="data_time step_time")
def loader_too_slow(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(clock={"wait": (0.6, 1.5, 5.0)[s] * rng.uniform(0.9, 1.2)}), 0


@fault("input-bound", _waits, needs="data_time step_time")
def workers_run_dry(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """All workers are read empty together, so that each few steps one waits for long."""
    base.every = min(base.every, 5)
    return base.copy(clock={"stall": (0.8, 2.0, 6.0)[s], "stall_every": float(rng.choice([2, 4, 8]))}), 0


@fault("input-bound", _waits, needs="data_time step_time")
def cache_is_gone(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """From the second epoch on, as the files do not fit the machine's memory."""
    begin = float(rng.uniform(0.1, 0.3))
    return base.copy(clock={"wait": (1.0, 2.5, 6.0)[s], "from": begin}), int(begin * base.steps)


@fault(
    "evaluation-bound",
    lambda a, b, o: (
        len(a.evaluations) > 4 and a.clock["evaluation"].mean() * len(a.evaluations) > 0.2 * a.clock["step"].sum()
    ),
    needs="eval_time step_time",
)
def evaluates_too_much(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.evaluations = int(rng.randint(12, 60))
    return base.copy(clock={"evaluation": (0.45, 1.0, 3.0)[s] * rng.uniform(0.9, 1.2)}), 0


def _slower(a: Trace, b: Trace, _: int) -> bool:
    return window(a.clock["step"], 0.85, 1) > 1.2 * window(a.clock["step"], 0.02, 0.15)


@fault("throughput-decay", _slower, needs="pace")
def slower_and_slower(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(
        clock={"slower": (0.4, 1.0, 3.0)[s] * rng.uniform(0.9, 1.3), "power": float(rng.choice([0.7, 1, 2]))}
    ), 0


@fault("throughput-decay", _slower, needs="pace")
def from_some_step(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    begin = float(rng.uniform(0.2, 0.5))
    return base.copy(clock={"slower": (0.5, 1.2, 3.0)[s], "from": begin}), int(begin * base.steps)


@fault("throughput-decay", _slower, needs="pace")
def by_stairs(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """A little more in each epoch, such as a list that is searched."""
    return base.copy(clock={"stairs": (0.4, 1.0, 2.5)[s]}), base.steps // 6


@fault("memory-leak", lambda a, b, o: a.clock["memory"][-1] > 1.15 * a.clock["memory"][a.steps // 8], needs="memory")
def graph_is_kept(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(clock={"leak": (0.3, 0.8, 2.5)[s] * rng.uniform(0.9, 1.2)}), 0


@fault("memory-leak", lambda a, b, o: a.clock["memory"][-1] > 1.15 * a.clock["memory"][a.steps // 8], needs="memory")
def kept_by_evaluation(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(clock={"leak": (0.35, 0.9, 2.0)[s], "leak_steps": 1.0}), base.steps // 12


def _joins_badly(a: Trace, b: Trace, onset: int) -> bool:
    before, after = a.loss[max(0, onset - 15) : onset], a.loss[onset : onset + 10]
    jump = after.mean() - before.mean()
    return (
        finite(a)
        and jump > 3 * before.std() / 15**0.5 + 1e-6
        and jump > 0.08 * abs(before.mean())
        and jump > 1.5 * before.std()
    )


def _at(base: Plan, rng: Rng) -> int:
    base.every = min(base.every, 10)
    base.schedule = str(rng.choice(["cosine", "linear", "constant"]))
    return int(rng.uniform(0.35, 0.75) * base.steps)


@fault("resume-discontinuity", _joins_badly, needs="resume")
def head_not_saved(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Part of the weights is not in the checkpoint, or of another one, and `strict=False` hides it."""
    at = _at(base, rng)

    def lose(loop, step):
        if step == at - 1:
            parts: tuple[nn.Module, ...] = (loop.model.head, loop.model.stem, *loop.model.blocks)
            for part in parts[: (1, 2, 9)[s]]:
                for module in part.modules():
                    if hasattr(module, "reset_parameters"):
                        module.reset_parameters()

    return base.copy(after=[lose]), at


@fault("resume-discontinuity", _joins_badly, needs="resume")
def older_weights(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """An old checkpoint, while steps and schedule go on from the newest."""
    at = _at(base, rng)
    kept: dict[str, torch.Tensor] = {}
    take = int((0.25, 0.12, 0.04)[s] * at)

    def back(loop, step):
        if step == take:
            kept.update({k: v.clone() for k, v in loop.model.state_dict().items()})
        if step == at - 1:
            loop.model.load_state_dict(kept)
            loop.optimizer.state.clear()

    return base.copy(after=[back]), at


@fault("resume-discontinuity", _joins_badly, needs="resume")
def moments_lost_and_rate_anew(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Weights alone were restored: moments are empty, and the rate begins at its height again."""
    at = _at(base, rng)
    base.schedule, base.optimizer, base.clip = "cosine", "adam", 0.0

    def lose(loop, step):
        if step == at - 1:
            loop.optimizer.state.clear()

    high = (2.0, 4.0, 8.0)[s]
    return base.copy(
        after=[lose], of_rate=[lambda t, r: r if t < at else base.rate * high * (1 - (t - at) / base.steps)]
    ), at


def _lost_updates(a: Trace, b: Trace, onset: int) -> bool:
    return bool(np.nanmin(a.scale) <= 2 and a.skipped[onset:].mean() > 0.5)


@fault("loss-scale-collapse", _lost_updates, needs="loss_scale")
def gradients_overflow(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """From some step on a term gives a gradient that is not finite, and each update is skipped."""
    base.scaled, base.clip = True, 1.0
    begin = int((0.7, 0.4, 0.1)[s] * rng.uniform(0.8, 1.2) * base.steps)

    def spoil(loop, step):
        if step >= begin and loop.rng.rand() < (0.9, 0.97, 1.0)[s]:
            for p in loop.parameters[:1]:
                if p.grad is not None:
                    p.grad.view(-1)[0] = float("inf")

    return base.copy(of_gradient=[spoil]), begin
