"""Draw runs, train them and keep the truth beside each."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from own_examiner import faults_of_data, faults_of_model, faults_of_settings, sound, train
from own_examiner.case import Case, base
from own_examiner.plant import Plant
from own_examiner.second import bases as other_bases
from own_examiner.second import faults_of_data as other_data
from own_examiner.second import faults_of_model as other_model
from own_examiner.second import faults_of_settings as other_settings
from own_examiner.second import sound as other_sound
from own_examiner.second import train as other_train
from own_examiner.sound import Sound
from own_examiner.train import described


@dataclass(frozen=True, slots=True)
class Ways:
    """A set of ways to train, right and wrong."""

    base: Callable[..., Case]
    train: Callable[[Case, Path], dict[str, Any]]
    plants: tuple[Plant, ...]
    sound: tuple[Sound, ...]
    unsound: Callable[[str, Case, dict[str, Any]], str]


SETS: Final = {
    "first": Ways(
        base,
        train.train,
        (*faults_of_settings.PLANTS, *faults_of_data.PLANTS, *faults_of_model.PLANTS),
        sound.SOUND,
        sound.unsound,
    ),
    "second": Ways(
        other_bases.base,
        other_train.train,
        (*other_settings.PLANTS, *other_data.PLANTS, *other_model.PLANTS),
        other_sound.SOUND,
        other_sound.unsound,
    ),
}


def drawn(ways: Ways, seed: int, count: int) -> list[Plant | Sound]:
    """So many ways, a third of them sound, each way as often as any other or once more."""
    rng = random.Random(f"own/{seed}")
    sound_ones = count // 3

    def some(those: tuple[Any, ...], number: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            found += rng.sample(those, len(those))
        return found[:number]

    chosen = some(ways.sound, sound_ones) + some(ways.plants, count - sound_ones)
    rng.shuffle(chosen)
    return chosen


def make(into: Path, seed: int, count: int, *, name: str = "first") -> None:
    """Train what is drawn; what has a truth.json already is left as it is."""
    for number, way in enumerate(drawn(SETS[name], seed, count)):
        folder = into / f"{number:03}-{way.name}"
        if not (folder / "truth.json").exists():
            truth = one(SETS[name], way, folder, f"{seed}/{number}")
            (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
            print(f"{folder.name}: {truth['code'] or 'sound'} {truth['kind']}: {truth['said']}", flush=True)


def one(ways: Ways, way: Plant | Sound, folder: Path, key: str) -> dict[str, Any]:
    """Train one run, and its twin where it has one; say what is true of it."""
    rng, begun = random.Random(f"own/{key}"), time.time()
    case = ways.base(rng, way.kinds, own=way.own)
    if isinstance(way, Sound):
        case = way.change(rng, case)
        outcome = ways.train(case, folder)
        reason = ways.unsound(way.name, case, outcome)
        truth: dict[str, Any] = {"code": None, "also": [], "kept": not reason, "said": reason or "it learned"}
    else:
        twin = way.prepare(rng, case)
        strong = rng.random() < 0.5
        case = way.spoil(rng, twin, strong)
        outcome = ways.train(case, folder)
        good = None
        if way.has_twin and not outcome.get("error"):
            good = ways.train(twin, folder / "twin")
            shutil.rmtree(folder / "twin" / "run" / "checkpoints", ignore_errors=True)
        harm = way.judge(case, outcome, good) if outcome["train"] and not outcome.get("error") else ""
        code, also = named(way, outcome)
        truth = {"code": code, "also": also, "kept": bool(harm), "strong": strong}
        truth |= {"said": harm or outcome.get("error", "no harm to be seen"), "onset": way.onset(case)}
    shutil.rmtree(folder / "run" / "checkpoints", ignore_errors=True)
    truth |= {"way": way.name, "kind": case.kind, "steps": case.steps, "seconds": round(time.time() - begun, 1)}
    return truth | {"case": described(case)}


def named(way: Plant, outcome: dict[str, Any]) -> tuple[str, list[str]]:
    """The code, and others that say the same: by what became of it where the table of codes tells so."""
    losses = [loss for _, loss in outcome["train"]]
    if way.code == "learning-rate-too-high" and losses:
        late = losses[-max(1, len(losses) // 10) :]
        if outcome["status"] == "failed" or min(late) > losses[0]:
            return "divergence", ["learning-rate-too-high", "nan-loss"]
    if way.code == "overfitting" and outcome["accuracy"]:
        lowest = min(range(len(outcome["validation"])), key=lambda at: outcome["validation"][at][1])
        gained = outcome["accuracy"][-1][1] - outcome["accuracy"][lowest][1]
        if gained > 0.01:
            return "overconfident", ["overfitting"] if gained < 0.03 else []
        return "overfitting", ["overconfident"] if gained > -0.01 else []
    return way.code, list(way.also)
