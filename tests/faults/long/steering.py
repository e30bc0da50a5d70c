"""What a run meets while it trains: poisoned batches, a spike, a region that stays bad, a thread that freezes."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import judge
import numpy as np
from harness import Outcome, Place, wait_for
from kills import finished, same
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


SPIKES = """
name: spikes
seed: 7
data: {{source: {{name: text, path: {text}}}, tokenizer: {{name: bytes}}, sequence_length: 32, shuffle: false}}
model: {{name: decoder, num_layers: 1, hidden_size: 32, num_heads: 2, dropout: {{residual: 0.1}}}}
optimizer: {{name: adamw, learning_rate: 1e-2}}
schedule: {{name: constant, warmup: 10}}
training: {{steps: 220, micro_batch_size: 8, threads: 1, device: cpu, compile: "off"}}
evaluation: {{every: 20, gap_tokens: 0, max_tokens: 1024, yardsticks: false, samples: {{max_tokens: 0}}}}
checkpoint: {{every: 10, keep_latest: 8}}
recovery: {{spikes: {{name: rollback, memory: 30, patience: 2}}, rollback: {rollback}}}
stopping: {{name: none}}
logging: {{every: 2}}
"""
WORDS = ("the quick brown fox jumps over a lazy dog", "while seven grey wolves sleep", "and rivers rise")


def spoil(place: Place, rollback: str, spoilt: range) -> None:
    """Give the place words in any order, with noise for the data of some steps."""
    order = random.Random(1)
    text = " ".join(order.choice(WORDS) for _ in range(4_000))[:80_000]
    begin, end = 256 * (spoilt.start - 1), 256 * (spoilt.stop - 1)
    text = text[:begin] + "".join(chr(order.randrange(33, 127)) for _ in range(end - begin)) + text[end:]
    file = place.folder / "words.txt"
    file.write_text(text)
    place.config.write_text(SPIKES.format(text=file, rollback=rollback))


def decisions(run: Path, *kinds: str) -> list[str]:
    """What was decided, of some kinds, each once: an attempt that goes on tells again what it redoes."""
    told = [event for event in judge.events(run / "record.jsonl") if event["event"] == "DecisionTaken"]
    wanted = [event for event in told if event["decision"]["kind"] in kinds and event["outcome"] == "taken"]
    return sorted({json.dumps([event["step"], event["controller"], event["decision"]]) for event in wanted})


def _killed_somewhere(place: Place, seconds: float) -> Path:
    """A run that was killed at a moment drawn evenly from its life."""
    while True:
        run = place.path()
        child = place.start("train", place.config, "--run", run)
        deadline = time.monotonic() + place.random.uniform(0.3, 1.0) * seconds
        while time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.002)
        child.send(signal.SIGKILL)
        if child.wait() == -signal.SIGKILL:
            return run


def spikes(place: Place, tries: Iterable[int]) -> Outcome:
    """Five spoilt batches on end: rolled back once, and the run ends with the same decisions and bits when killed."""
    outcome = Outcome("a spike of 5 batches: one rollback, and when killed the same decisions and bits")
    spoil(place, "{factor: 0.5, slow_steps: 20}", range(60, 65))
    whole, seconds = place.whole()
    right = decisions(whole, "Rollback", "Adjust", "Stop")
    rollbacks = len(decisions(whole, "Rollback"))
    outcome.note = f"decisions in each: {len(right)}"
    for number in tries:
        run = _killed_somewhere(place, seconds)
        problem = f"{rollbacks} rollbacks" if rollbacks != 1 else finished(place, run, whole)
        if not problem and decisions(run, "Rollback", "Adjust", "Stop") != right:
            problem = f"decided {decisions(run, 'Rollback', 'Adjust', 'Stop')} instead of {right}"
        outcome.take(not problem, f"try {number}: {problem}")
    return outcome


def bad_regions(place: Place, tries: Iterable[int]) -> Outcome:
    """Data that stays bad: exit 4 after as many rollbacks as the budget has, also when killed between them."""
    outcome = Outcome("a region that stays bad: exit 4 after exactly 2 rollbacks, also when killed between them")
    spoil(place, "{budget: 2}", range(60, 300))
    whole, begun = place.path("whole"), time.monotonic()
    code, told = place.train(whole)
    seconds, right = time.monotonic() - begun, decisions(whole, "Rollback")
    problem = (
        "" if code == 4 and len(right) == 2 else f"undisturbed: exit {code}, {len(right)} rollbacks: {told[-500:]}"
    )
    for number in tries:
        run = _killed_somewhere(place, seconds)
        between = len(decisions(run, "Rollback")) if (run / "record.jsonl").exists() else 0
        outcome.counts[f"killed after {between} of them"] += 1
        code, told = place.train(run)
        one = problem
        if not one and code != 4:
            one = f"exit {code}: {told[-500:]}"
        if not one and decisions(run, "Rollback") != right:
            one = f"rolled back {decisions(run, 'Rollback')} instead of {right}"
        outcome.take(not (one := one or same(run, whole)), f"try {number}: {one}")
    return outcome


def _freeze(what: str) -> None:
    """In the process: from some call on, one thing never returns, as on a file system that does not answer."""
    import os

    from trimtab.data import loader
    from trimtab.training.checkpoint import files

    owner, name, calls = {
        "data": (loader._Producer, "_next", 60),
        "save": (files, "_write_all", 40),
    }[what]
    function, left = getattr(owner, name), [calls]

    def patched(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            os.read(os.pipe()[0], 1)
        return function(*arguments, **named)

    setattr(owner, name, patched)


def frozen(place: Place, tries: Iterable[int]) -> Outcome:
    """The thread that prepares data, or the one that saves, freezes: exit 7 with all stacks, and it goes on."""
    outcome = Outcome("a frozen data worker, or save: exit 7, the stacks of all threads, resumed to the same bits")
    whole, _ = place.whole()
    for number in tries:
        what = ("data", "save")[number % 2]
        outcome.counts[what] += 1
        run = place.path()
        setting = "training.watchdog_seconds=3"
        child = place.start("train", place.config, setting, "--run", run, before=lambda what=what: _freeze(what))
        code = child.wait()
        stacks = list((run / "artifacts").glob("stacks-*.txt"))
        problem = ""
        if code != 7 or len(stacks) != 1 or "steering.py" not in stacks[0].read_text():
            problem = f"exit {code}, {len(stacks)} files of stacks: {child.told()[-600:]}"
        outcome.take(not (problem := problem or finished(place, run, whole, setting)), f"{what}: {problem}")
    return outcome
