"""Draw runs, train them and keep the truth beside each."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any, Final

from own_examiner import faults_of_data, faults_of_model, faults_of_settings
from own_examiner.case import base
from own_examiner.plant import Plant
from own_examiner.sound import SOUND, Sound, unsound
from own_examiner.train import described, train

PLANTS: Final = (*faults_of_settings.PLANTS, *faults_of_data.PLANTS, *faults_of_model.PLANTS)


def drawn(seed: int, count: int) -> list[Plant | Sound]:
    """So many ways, a third of them sound, each way as often as any other or once more."""
    rng = random.Random(f"own/{seed}")
    sound = count // 3

    def some(ways: tuple[Any, ...], number: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            found += rng.sample(ways, len(ways))
        return found[:number]

    chosen = some(SOUND, sound) + some(PLANTS, count - sound)
    rng.shuffle(chosen)
    return chosen


def make(into: Path, seed: int, count: int) -> None:
    """Train what is drawn; what has a truth.json already is left as it is."""
    for number, way in enumerate(drawn(seed, count)):
        folder = into / f"{number:03}-{way.name}"
        if not (folder / "truth.json").exists():
            truth = one(way, folder, f"{seed}/{number}")
            (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
            print(f"{folder.name}: {truth['code'] or 'sound'} {truth['kind']}: {truth['said']}", flush=True)


def one(way: Plant | Sound, folder: Path, key: str) -> dict[str, Any]:
    """Train one run, and its twin where it has one; say what is true of it."""
    rng, begun = random.Random(f"own/{key}"), time.time()
    case = base(rng, way.kinds, own=way.own)
    if isinstance(way, Sound):
        case = way.change(rng, case)
        outcome = train(case, folder)
        reason = unsound(way.name, case, outcome)
        truth: dict[str, Any] = {"code": None, "also": [], "kept": not reason, "said": reason or "it learned"}
    else:
        twin = way.prepare(rng, case)
        strong = rng.random() < 0.5
        case = way.spoil(rng, twin, strong)
        outcome = train(case, folder)
        good = None
        if way.has_twin and not outcome.get("error"):
            good = train(twin, folder / "twin")
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
