"""What a run meets while it trains: batches that are poison."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

import judge
import numpy as np
from harness import Outcome, Place, wait_for
from kills import finished
from poison import POISON

POISONED = (
    "model={name: custom, target: 'poison:Poisoned', arguments: {vocabulary_size: 257}}",
    "training.precision={name: fp32}",
    "evaluation.gap_tokens=0",
)


def poison(place: Place) -> None:
    """Put the character into the text, where the model trains on it and nothing is judged by it."""
    file = sorted(place.text.iterdir())[0]
    text = file.read_text()
    file.write_text(text[:700] + POISON + text[700:1500] + POISON + text[1500:])


def unfinite(run: Path) -> list[str]:
    """Tensors of the newest checkpoint that hold a number which is none."""
    found = []
    for name, (dtype, _, content) in judge.tensors(judge.checkpoints(run)[-1]).items():
        if dtype == "F32" and name.startswith(("model/", "optimizer/")):
            found += [name] if not np.isfinite(np.frombuffer(content, "<f4")).all() else []
    return found


def skipped(run: Path) -> set[int]:
    """Steps that the record says were skipped."""
    told: dict[int, float] = {}
    for event in judge.events(run / "record.jsonl"):
        if event["event"] == "StepsEnded" and "skipped" in event["per_step"]:
            values = event["per_step"]["skipped"]
            for step in range(event["first_step"], event["last_step"] + 1):
                told[step] = values[step - event["first_step"]] if isinstance(values, list) else values
    return {step for step, value in told.items() if value}


def poisoned_batches(place: Place, tries: Iterable[int]) -> Outcome:
    """Batches without a finite loss: skipped, told as they are, weights finite; killed at a random step, the same."""
    outcome = Outcome(
        "batches whose loss is not finite: skipped and told, weights finite, killed and resumed to same bits"
    )
    poison(place)
    whole, _ = place.whole(*POISONED)
    steps, losses = skipped(whole), judge.losses(whole / "record.jsonl")
    outcome.note = f"{len(steps)} of {len(losses)} steps were poisoned"
    problem = ""
    if not steps or steps != {step for step, loss in losses.items() if loss == "nan"}:
        problem = f"skipped are {sorted(steps)}; told as nan {[s for s, loss in losses.items() if loss == 'nan']}"
    elif broken := unfinite(whole):
        problem = f"not finite: {broken}"
    for number in tries:
        run = place.path()
        child = place.start("train", place.config, *POISONED, "--run", run)
        wait_for(run / "record.jsonl", f'"last_step":{7 * place.random.randrange(1, 8)}', child)
        child.send(signal.SIGKILL)
        child.wait()
        one = problem or finished(place, run, whole, *POISONED)
        if not one and skipped(run) != steps:
            one = f"other steps were skipped: {sorted(skipped(run) ^ steps)}"
        outcome.take(not one, f"try {number}: {one}")
    return outcome
