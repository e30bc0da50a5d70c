"""Makes the runs: slot by slot, each from its own seed, in several processes, until the time is over."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

SOUND = "healthy"
SEVERITIES = ("mild", "clear", "gross")


def slots(count: int) -> list[tuple[str, int]]:
    """(code or oddity with a colon, number within), faulty and sound in turn, every code once before any twice."""
    from examiner.faults import FAULTS
    from examiner.sound import ODD

    faulty, healthy, out = list(FAULTS), list(ODD), []
    a = b = 0
    for at in range(count):
        if (at * 35) % 100 < 35:
            out.append((f"{SOUND}:{healthy[b % len(healthy)]}", b // len(healthy)))
            b += 1
        else:
            out.append((faulty[a % len(faulty)], a // len(faulty)))
            a += 1
    return out


def _train(recipe: Any, place: Path) -> tuple[list[dict], Path]:
    """Rows and the path of the log."""
    from examiner import hf_run, lightning_run, loop
    from examiner.voices import VOICE

    place.mkdir(parents=True, exist_ok=True)
    if recipe.engine == "plain":
        rows = loop.train(recipe)
        return rows, VOICE[recipe.voice](recipe, rows, place)
    if recipe.engine == "hf":
        return hf_run.train(recipe, place), place / "trainer_state.json"
    return lightning_run.train(recipe, place), place / "lightning_logs" / "version_0"


def one(into: Path, number: int, code: str, turn: int, seed: int, until: float) -> str:
    """Makes one run; says what became of it."""
    import torch

    torch.set_num_threads(1)
    from examiner.curve import Curve

    name = f"{number:04d}"
    if any(into.glob(f"{name}-*/truth.json")):
        return f"{name} is there"
    work = into / f".{name}"
    for attempt in range(12):
        if time.time() > until:
            break
        rng = Random(f"{seed}/{number}/{code}/{attempt}")
        shutil.rmtree(work, ignore_errors=True)
        try:
            recipe, onset, severity, rows, log, other = _tried(code, turn, attempt, rng, work)
        except RefusedError:
            continue
        except ImportError as problem:
            print(f"{name} {code}: skipped a logger: {problem}", file=sys.stderr)
            continue
        except Exception as problem:  # a stranger's run that fails is none; the next draw may do
            print(f"{name} {code}: {type(problem).__name__}: {problem}", file=sys.stderr)
            continue
        _told(into, work, name, code, recipe, onset, severity, Curve(rows), log, other)
        return f"{name} {code} after {attempt + 1}"
    shutil.rmtree(work, ignore_errors=True)
    return f"{name} {code} GIVEN UP"


class RefusedError(Exception):
    """The fault does not show, or the sound run is not sound."""


def _tried(code: str, turn: int, attempt: int, rng: Random, work: Path) -> tuple[Any, ...]:
    from examiner.curve import Curve
    from examiner.faults import FAULTS
    from examiner.recipe import BY_EPOCH, draw
    from examiner.sound import is_sound, sound

    if code.startswith(SOUND):
        recipe = sound(code.partition(":")[2], rng)
        rows, log = _train(recipe, work / "log")
        if not is_sound(Curve(rows)):
            raise RefusedError
        return recipe, None, "none", rows, log, None
    ways = FAULTS[code]
    fault, severity = ways[turn % len(ways)], (turn + attempt) % 3
    for _ in range(300):
        base = draw(rng, fault.engines, fault.kinds, fault.voices)
        if fault.wants(base):
            break
    else:
        raise RefusedError
    recipe, twin, onset = fault.plant(base, rng, severity)
    if recipe.voice in BY_EPOCH:
        recipe, twin = recipe.but(log_every=5), twin.but(log_every=5)
        recipe, twin = (one.but(eval_every=max(5, one.steps // 20 // 5 * 5)) for one in (recipe, twin))
    rows, log = _train(recipe, work / "log")
    others, _ = _train(twin, work / "twin")
    found = fault.bites(recipe, Curve(rows), Curve(others))
    if found is False or found is None or not bool(found):
        raise RefusedError
    return recipe, (int(found) if onset == -1 else onset), SEVERITIES[severity], rows, log, Curve(others)


def _told(
    into: Path,
    work: Path,
    name: str,
    code: str,
    recipe: Any,
    onset: int | None,
    severity: str,
    curve: Any,
    log: Path,
    other: Any,
) -> None:
    """Puts log and truth into their place."""
    from examiner.recipe import FIELD
    from examiner.voices import in_log

    first, _, oddity = code.partition(":")
    format_of = (
        recipe.voice
        if recipe.engine == "plain"
        else {"hf": "hf-trainer", "csv": "lightning-csv", "tb": "lightning-tb"}[recipe.engine]
    )
    steps = int(max([*curve.step, *curve.vstep]))
    sentences = {SOUND: f"nothing is wrong ({oddity})"}
    truth = {
        "code": first,
        "oddity": oddity or None,
        "onset": in_log(recipe, onset),
        "steps": in_log(recipe, steps),
        "severity": severity,
        "task": FIELD[recipe.kind],
        "data": recipe.task,
        "net": recipe.net,
        "format": format_of,
        "path": str(log.relative_to(work / "log")),
        "sentence": sentences.get(first, _sentence(first, recipe)),
        "run": curve.figures(),
        "twin": other.figures() if other else None,
    }
    shutil.rmtree(work / "twin", ignore_errors=True)
    place = into / f"{name}-{first}-{recipe.kind}-{format_of}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.move(work / "log", place)
    shutil.rmtree(work, ignore_errors=True)
    (place / "truth.json").write_text(json.dumps(truth, indent=1))


def _sentence(code: str, recipe: Any) -> str:
    planted = (
        ", ".join(f"{name} {value}" for name, value in recipe.plant.items())
        or f"rate {recipe.lr}, batch {recipe.batch}, rows {recipe.rows}, dropout {recipe.dropout}, decay {recipe.wd}"
    )
    return f"{code}: {planted}"


def _worker(job: tuple[Path, int, str, int, int, float]) -> str:
    if time.time() > job[-1]:
        return ""
    with contextlib.suppress(OSError):
        os.nice(5)
    return one(*job)


def make(into: Path, count: int, seed: int, processes: int, minutes: float) -> int:
    """How many runs stand in `into` at the end."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    into.mkdir(parents=True, exist_ok=True)
    until = time.time() + 60 * minutes
    jobs = [(into, at, code, turn, seed, until) for at, (code, turn) in enumerate(slots(count))]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for said in pool.imap_unordered(_worker, jobs):
            if said:
                print(said, flush=True)
    return sum(1 for _ in into.glob("*/truth.json"))
