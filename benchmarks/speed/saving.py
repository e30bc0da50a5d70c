"""What a checkpoint costs a run: `python benchmarks/speed/saving.py 350m --saves 3 --between 120 [setting=value ...]`.

Saves at the beginning of every second stretch of steps; what such a stretch takes longer than one without is what a
checkpoint costs, its stall included. Beside it: torch.save of the same tensors, from where they lie, into one folder.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gate import CASES
from ours import random_data, settings_of

import trimtab.trainer as trainer_module
from trimtab.config import load_config
from trimtab.events import CheckpointSaved, Event
from trimtab.trainer import Trainer
from trimtab.training import Step
from trimtab.training.checkpoint import keeper


class Saves:
    """Takes down the saves."""

    def __init__(self) -> None:
        self.events: list[CheckpointSaved] = []

    def observe(self, event: Event) -> None:
        """Of one kind."""
        if isinstance(event, CheckpointSaved):
            self.events.append(event)


def main() -> None:
    """Train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--between", type=int, default=120)
    given = parser.parse_intermixed_args()
    case, between = CASES[given.case], given.between
    marks: list[float] = []
    state: dict[str, torch.Tensor] = {}
    run, take = Step.run, keeper.take

    def marked(self: Step, batches: Any, step: int, **named: Any) -> None:
        run(self, batches, step, **named)
        if step % between == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    def taken(step: Step, *arguments: Any) -> Any:
        state.update(step.optimizer.storage.weights)
        for name, slots in step.optimizer.state_by_name().items():
            state.update({f"{name}/{slot}": tensor for slot, tensor in slots.items()})
        return take(step, *arguments)

    Step.run, keeper.take = marked, taken  # type: ignore[method-assign, assignment]
    trainer_module.prepared = lambda *arguments, **named: random_data(case)  # type: ignore[assignment]
    folder, saves = Path(tempfile.mkdtemp()), Saves()
    settings = [
        f"training.steps={2 * between * (given.saves + 1)}",
        f"checkpoint={{every: {2 * between}, keep_latest: 1, keep_best: 0}}",
    ]
    config = load_config(None, settings_of(case) + settings + given.settings)
    Trainer(config, run=folder / "run", monitors=[saves]).fit()
    stretches = [later - earlier for earlier, later in itertools.pairwise(marks)]
    without, with_save = stretches[0::2], stretches[1::2]  # the first save is at the end of the second stretch
    usual = statistics.median(without)
    size = sum(tensor.nbytes for tensor in state.values()) / 1e9
    print(f"{given.case}: {size:.2f} GB of masters and moments, {1e3 * usual / between:.1f} ms a step without a save")
    for event, seconds in zip(saves.events, with_save, strict=False):
        print(
            f"step {event.step}: stall {event.stall_seconds:.4f} s, complete after {event.seconds:.1f} s, "
            f"{event.bytes / 1e9:.2f} GB; lost in all {seconds - usual:.3f} s"
        )
    print(f"spread of stretches without: {min(without) - usual:+.3f} to {max(without) - usual:+.3f} s")
    for _ in range(2):
        begun = time.perf_counter()
        torch.save(state, folder / "state.pt")
        print(f"torch.save: {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main()
