"""Makes the runs: every index is a run of its own seed, so that a bank grows and resumes, and strata fill evenly."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from .faults import SEVERITIES, Way, planted
from .logs_text import FORMATS, choose
from .oddities import ODDITIES, Oddity, sound
from .plan import Plan, draw
from .train import Trace, train
from .view import look

TRIES, SECONDS = 12, 45
"""The most draws, and seconds of the processor in which they may begin, for one run."""
QUIET = frozenset(
    (
        "nan-loss",
        "divergence",
        "loss-spike",
        "corrupt-batch",
        "exploding-gradients",
        "input-bound",
        "throughput-decay",
        "memory-leak",
        "outlier-dominated-loss",
        "loss-scale-collapse",
        "resume-discontinuity",
        "missing-warmup",
    )
)
"""What shows without a validation loss."""
HEALTHY = (0, 3, 6, 9, 12, 15, 18)
"""Which of twenty runs are sound."""


def stratum(index: int) -> tuple[str, int]:
    """The code of a run, and how many of its kind came before."""
    round_, place = divmod(index, 20)
    if place in HEALTHY:
        return "healthy", round_ * len(HEALTHY) + HEALTHY.index(place)
    codes = list(planted())
    count = round_ * (20 - len(HEALTHY)) + place - sum(h < place for h in HEALTHY)
    return codes[count % len(codes)], count // len(codes)


def _figures(trace: Trace) -> dict[str, float | None]:
    return {
        "first_train_loss": _plain(trace.loss[0]),
        "train_loss": _plain(trace.tail()),
        "validation_loss": _plain(trace.final),
        "accuracy": _plain(trace.evaluations[-1].accuracy),
    }


def _plain(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _write(
    place: Path,
    index: int,
    code: str,
    plan: Plan,
    trace: Trace,
    rng: np.random.RandomState,
    needs: frozenset[str],
    dense: bool,
    more: dict[str, Any],
    ghost: Trace | None,
    resumed: int,
) -> None:
    form = choose(rng, needs, dense, plan.kind)
    needs = needs if code in QUIET or code == "healthy" else needs | {"validation"}
    by_epoch = "epochs" in FORMATS[form][1]
    view = look(trace, rng, needs, dense, resumed, ghost, by_epoch)
    name = f"{index:04d}-{code}-{plan.task}-{form}"
    rough = place / f".{name}"
    shutil.rmtree(rough, ignore_errors=True)
    rough.mkdir(parents=True)
    path = FORMATS[form][0](view, rough, rng)
    what = (
        "task",
        "family",
        "width",
        "depth",
        "norm",
        "act",
        "drop",
        "optimizer",
        "rate",
        "decay",
        "clip",
        "schedule",
        "warmup",
        "batch",
        "smoothing",
        "n",
    )
    truth = {
        "code": code,
        "steps": trace.steps,
        "task": plan.kind,
        "data": plan.task,
        "format": form,
        "path": path,
        **more,
        "figures": _figures(trace),
        "settings": {k: getattr(plan, k) for k in what},
    }
    (rough / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    rough.rename(place / name)


def _sentence(code: str, way: str, severity: str, steps: int, onset: int) -> str:
    return f"{way.replace('_', ' ')} ({severity}), from step {onset} of {steps}"


def _faulty(rng: np.random.RandomState, way: Way, severity: int) -> tuple[Plan, Trace, Trace, int] | None:
    base = draw(rng, way.kinds, way.only)
    plan, onset = way.plant(base, severity, rng)
    base.layers = plan.layers
    twin = train(base)
    if not sound(twin, strict=False):
        return None
    trace = train(plan)
    if onset < 0:
        onset = trace.evaluations[int(trace.valid().argmin())].step
    return (plan, trace, twin, onset) if way.seen(trace, twin, onset) else None


def _sound(rng: np.random.RandomState, odd: Oddity | None) -> tuple[Plan, Trace] | None:
    base = draw(rng, odd.kinds if odd else (), odd.only if odd else None)
    plan = odd.bend(base, rng) if odd else base
    trace = train(plan)
    if not sound(trace, strict=odd is None):
        return None
    if odd is None or odd.tuned:
        for times in (0.2, 4.0):
            other = train(plan.copy(rate=plan.rate * times))
            if math.isfinite(other.final) and other.final < 0.93 * trace.final:
                return None
    return plan, trace


def one(place: Path, index: int, seed: int) -> str:
    """Makes one run, with as many draws as it takes; says what came of it."""
    code, count = stratum(index)
    if any(path.is_dir() for path in place.glob(f"{index:04d}-*")):
        return "there"
    begin = time.process_time()
    for attempt in range(TRIES):
        if time.process_time() - begin > SECONDS:
            break
        rng = np.random.RandomState((seed * 1_000_003 + index * 101 + attempt * 13) % (2**31))
        if code == "healthy":
            odd = ODDITIES[(count // 2 + attempt // 6) % len(ODDITIES)] if count % 2 else None
            found = _sound(rng, odd)
            if found is None:
                continue
            plan, trace = found
            resumed = int(trace.steps * rng.uniform(0.3, 0.8)) if odd and odd.name == "resumed-cleanly" else 0
            name = odd.name if odd else "well-tuned"
            more: dict[str, Any] = {
                "onset": None,
                "severity": None,
                "way": name,
                "sentence": f"sound: {name.replace('-', ' ')}",
                "twin": None,
            }
            _write(place, index, code, plan, trace, rng, odd.needs if odd else frozenset(), False, more, trace, resumed)
        else:
            ways = planted()[code]
            severity, way = (count + attempt // 4) % 3, ways[(count // 3 + count + attempt // 2) % len(ways)]
            made = _faulty(rng, way, severity)
            if made is None:
                continue
            plan, trace, twin, onset = made
            told = SEVERITIES[severity]
            text = _sentence(code, way.plant.__name__, told, trace.steps, onset)
            more = {
                "onset": onset,
                "severity": told,
                "way": way.plant.__name__,
                "sentence": text,
                "twin": _figures(twin),
            }
            resumed = onset if code == "resume-discontinuity" else 0
            _write(place, index, code, plan, trace, rng, way.needs, way.dense, more, twin, resumed)
        return f"{code} after {attempt + 1} draws, {time.process_time() - begin:.1f} s"
    return f"{code} FAILED, {time.process_time() - begin:.1f} s"


def _work(job: tuple[Path, int, int, float]) -> tuple[int, str]:
    place, index, seed, until = job
    if time.time() > until:
        return index, "late"
    try:
        return index, one(place, index, seed)
    except Exception as error:  # one run that cannot be made must not end the others
        return index, f"{stratum(index)[0]} ERROR {type(error).__name__}: {error}"


def make(place: Path, count: int, seed: int, processes: int, minutes: float) -> int:
    """Makes what is missing of `count` runs, until `minutes` are over; says how many are there."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    place.mkdir(parents=True, exist_ok=True)
    until = time.time() + 60 * minutes
    jobs = [(place, index, seed, until) for index in range(count)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for index, said in pool.imap_unordered(_work, jobs):
            if said not in ("late", "there"):
                print(f"{index:04d} {said}", flush=True)
    there = sum(1 for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    print(f"{there} of {count} runs are in {place}", flush=True)
    return there
