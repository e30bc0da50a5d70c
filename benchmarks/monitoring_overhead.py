"""What watching a run costs: nothing watched, the default, and everything, each a process of its own, in turn.

    python benchmarks/monitoring_overhead.py --model 10m --device cpu [--pairs 20] [--steps 25]
    python benchmarks/monitoring_overhead.py --model gpt2 --device cuda

Three whole trainings (`Trainer.fit`, on random tokens) take turns of `--steps` steps, in a new order each round; whose
turn it is not is stopped (SIGSTOP), threads that read the machine included. One measures nothing of its layers and its
machine and is not examined; one is as the configuration is if nothing is said; one splits the time of every step,
writes TensorBoard files (where that package is), captures a layer and makes every examination. A turn of the latter two
holds one examination, whatever its length: of the time that it takes, with what runs before its step, only the part is
counted that falls on a turn where they are `apart` (500 by default) or 100 steps from each other. That time and nothing
else is measured by itself, between two waits for the device.

Printed are a table in Markdown and a line of JSON: the cost is the mean of a watched turn over that of the unwatched
one of the same round, less 1, with the 2.5 and 97.5 percent points of 10,000 resamplings of the rounds. `--burn` lets
the default waste a part of a core in a thread of its own: what is wasted must show.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import numpy as np
import torch

import trimtab.trainer as trainer_module
from trimtab.config import Config, load_config
from trimtab.data import PackedSequences
from trimtab.data.order import Order
from trimtab.data.prepare import PreparedData
from trimtab.monitor.probes import Examiner
from trimtab.signals import SpecialTokens, TargetFacts
from trimtab.trainer import Trainer
from trimtab.training import Step

WITHOUT_END = 10**6
EVERY = 100
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 64, "heads": 2, "vocabulary": 512, "length": 64, "batch": 4, "parts": 1},
    "10m": {"layers": 6, "width": 320, "heads": 5, "vocabulary": 8192, "length": 512, "batch": 4, "parts": 1},
    "gpt2": {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50_257, "length": 1024, "batch": 16, "parts": 8},
}


@final
@dataclass(slots=True)
class Side:
    """One of the trainings, which runs while it is its turn."""

    name: str
    settings: list[str]
    apart: int
    """Steps between examinations in a real run; 0: none."""
    seconds: list[float] = field(default_factory=list)
    probing: list[float] = field(default_factory=list)
    """Of each turn, in examinations."""
    process: subprocess.Popen[str] | None = None

    def start(self, arguments: list[str]) -> None:
        """Begin the training, and wait until its first turn is over, which does not count."""
        command = [sys.executable, __file__, *arguments, "--side", self.name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def take_turn(self) -> None:
        """Go on for a turn."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        seconds, probed = self._answer()
        self.seconds.append(seconds)
        self.probing.append(probed)

    def _answer(self) -> tuple[float, float]:
        assert self.process is not None
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"{self.name} ended")
        self.process.send_signal(signal.SIGSTOP)
        seconds, probed = json.loads(line)
        return seconds, probed


def random_data(shape: dict[str, Any]) -> PreparedData:
    """Sequences of random tokens."""
    length, vocabulary = shape["length"], shape["vocabulary"]
    tokens = np.random.default_rng(0).integers(0, vocabulary, 2_000 * length + 1).astype(np.uint16)
    sequences = PackedSequences(tokens, np.array([0]), length, num_bytes=len(tokens))
    tokenizer: Any = SimpleNamespace(
        vocabulary_size=vocabulary,
        token_bytes=None,
        special=SpecialTokens(0, 0, 0),
        save=lambda path: None,
        decode=lambda tokens: " ".join(map(str, tokens)),
    )
    facts = {"tokens_per_epoch": sequences.num_tokens, "validation": {"sha256": ""}, "tokenizer": {"fingerprint": ""}}
    order, cache = Order(len(sequences), seed=0), Path(tempfile.gettempdir())
    return PreparedData(tokenizer, vocabulary, sequences, sequences, order, TargetFacts(), facts, "random", cache)


def sides(given: argparse.Namespace) -> list[Side]:
    """The three, with a step that all share."""
    shape = SHAPES[given.model]
    shared = [
        "data.source={name: embedded}",
        f"data.sequence_length={shape['length']}",
        f"model={{name: decoder, num_layers: {shape['layers']}, hidden_size: {shape['width']}, "
        f"num_heads: {shape['heads']}, activation: gelu_tanh, bias: true}}",
        f"training.steps={WITHOUT_END}",
        f"training.device={given.device}",
        "training.precision={name: auto}",
        f"training.micro_batch_size={given.batch or shape['batch']}",
        f"training.accumulation={given.accumulation or shape['parts']}",
        "training.watchdog_seconds=null",
        f"evaluation={{every: {WITHOUT_END}, yardsticks: false, samples: {{prompts: []}}}}",
        "stopping={name: none}",
        *given.settings,
    ]
    examined = [f"logging.examine.every={given.steps}", "logging.examine.at_evaluations=false"]
    apart = Config().logging.examine.apart
    return [
        Side(
            "off",
            [
                *shared,
                "logging.layers=false",
                "logging.grad_cosine=false",
                "logging.examine.at_evaluations=false",
                f"logging.every={given.steps}",
                "hardware.every_seconds=0",
                "hardware.split_every=0",
            ],
            0,
        ),
        Side("default", [*shared, *examined], apart),
        Side(
            "everything",
            [
                *shared,
                *examined,
                "logging.examine.which=all",
                "logging.capture={layers: [blocks.0], values: 4096}",
                "hardware.split_every=1",
                *(["sinks=[tensorboard]"] if importlib.util.find_spec("tensorboard") else []),
            ],
            EVERY,
        ),
    ]


def serve(given: argparse.Namespace) -> None:
    """One training, which stands still after every turn until a line comes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a trainer prints
    side = next(one for one in sides(given) if one.name == given.side)
    run, before, examine = Step.run, Examiner.before, Examiner.__call__
    begun, probed = time.perf_counter(), 0.0

    def counted(self: Step, batches: Any, step: int, **named: Any) -> None:
        nonlocal begun, probed
        if (step - 1) % given.steps == 0 and step > 1:
            synchronize(given.device)
            answers.write(json.dumps([time.perf_counter() - begun, probed]) + "\n")
            answers.flush()
            if not sys.stdin.readline():
                os._exit(0)
            begun, probed = time.perf_counter(), 0.0
        run(self, batches, step, **named)

    def timed(call: Any) -> Any:
        def inner(self: Examiner, step: int) -> Any:
            nonlocal probed
            if step % given.steps:
                return call(self, step)
            synchronize(given.device)
            began = time.perf_counter()
            result = call(self, step)
            synchronize(given.device)
            probed += time.perf_counter() - began
            return result

        return inner

    Step.run = counted  # type: ignore[method-assign, assignment]
    Examiner.before, Examiner.__call__ = timed(before), timed(examine)  # type: ignore[method-assign]
    if given.burn and side.name == "default":
        threading.Thread(target=burn, args=(given.burn,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(load_config(None, side.settings), run=Path(folder) / side.name).fit()


def burn(part: float) -> None:
    """Waste this part of a core."""
    while True:
        until = time.perf_counter() + part / 100.0
        while time.perf_counter() < until:
            pass
        time.sleep((1.0 - part) / 100.0)


def synchronize(device: str) -> None:
    """Wait for all that is queued."""
    if device == "cuda":
        torch.cuda.synchronize()


def costs(side: Side, off: Side, steps: int, skipped: int) -> dict[str, Any]:
    """What `side` costs beyond `off`, as a part of its time."""
    seconds, probing, base = (np.array(values[skipped:]) for values in (side.seconds, side.probing, off.seconds))
    share = steps / side.apart
    ratios = (seconds - probing * (1.0 - share)) / base - 1.0
    rng = np.random.default_rng(0)
    means = ratios[rng.integers(0, len(ratios), (10_000, len(ratios)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "name": side.name,
        "cost": float(ratios.mean()),
        "low": float(low),
        "high": float(high),
        "median": float(np.median(ratios)),
        "inside": float(((seconds - probing) / base).mean() - 1.0),
        "examination_seconds": float(np.median(probing)),
        "examination_share": float((probing * share / base).mean()),
        "apart": side.apart,
        "pairs": len(ratios),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="10m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pairs", type=int, default=20, help="rounds that count; one more goes before them")
    parser.add_argument("--steps", type=int, default=0, help="in a turn; 0: 20, or 100 of 10m and tiny on cuda")
    parser.add_argument("--batch", type=int, default=0, help="sequences in a micro-batch; 0: the model's own number")
    parser.add_argument("--accumulation", type=int, default=0, help="micro-batches in a step; 0: the model's own")
    parser.add_argument("--burn", type=float, default=0.0, help="part of a core that the default wastes besides")
    parser.add_argument("--side", choices=("off", "default", "everything"), help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", help="further settings of all three, as section.key=value")
    given = parser.parse_args()
    given.steps = given.steps or (100 if given.device == "cuda" and given.model != "gpt2" else 20)
    warnings.filterwarnings("ignore", category=UserWarning)
    trainer_module.prepared = lambda *arguments, **named: random_data(SHAPES[given.model])  # type: ignore[assignment]
    if given.side:
        serve(given)
        return
    all_sides = sides(given)
    rng = np.random.default_rng(1)
    try:
        for side in all_sides:
            side.start(sys.argv[1:])
        for number in range(given.pairs + 1):
            for index in rng.permutation(len(all_sides)).tolist():
                all_sides[index].take_turn()
            print(f"round {number} of {given.pairs}", file=sys.stderr, end="\r")
    finally:
        for side in all_sides:
            if side.process is not None:
                side.process.kill()
    off, *watched = all_sides
    rows = [costs(side, off, given.steps, 1) for side in watched]
    step = float(np.median(off.seconds[1:])) / given.steps
    device = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or platform.machine()
    print(f"\n{given.model} on {device}, {step * 1000:.2f} ms a step, {given.pairs} rounds of {given.steps} steps\n")
    print("| watched | cost of the run (95 %) | median | in the steps | an examination | every |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['name']} | {row['cost']:+.2%} ({row['low']:+.2%} to {row['high']:+.2%}) | {row['median']:+.2%} | "
            f"{row['inside']:+.2%} | {row['examination_seconds'] * 1000:.0f} ms, {row['examination_share']:.2%} | "
            f"{row['apart']} steps |"
        )
    told = {"model": given.model, "device": device, "step_seconds": step, "steps": given.steps}
    told |= {"accumulation": given.accumulation or SHAPES[given.model]["parts"]}
    told |= {"settings": given.settings, "torch": torch.__version__}
    print("\n" + json.dumps(told | {"rows": rows}))


if __name__ == "__main__":
    main()
