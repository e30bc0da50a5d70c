"""Whether the fast default learns as fp32 weights under autocast do: the same run in each, on real text.

    python benchmarks/speed/curve.py [--steps 2000] [--seeds 3] [WAY ...]

Prints the validation loss of each and the spread of seeds; how far the losses of 200 steps are from those in fp32; and
whether a repeated seed gives the same bits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from trimtab.config import load_config
from trimtab.events import Event, StepsEnded
from trimtab.trainer import Trainer

WAYS = {
    "default": ["training.precision={name: bf16}"],
    "fp8": ["training.precision={name: fp8}"],
    "autocast": [
        "training.precision={name: bf16, parameters: fp32}",
        "objective.fused=off",
        "training.fused_activation=off",
    ],
    "fp32": ["training.precision={name: fp32}", "objective.fused=off", "training.fused_activation=off"],
}


class Losses:
    """Takes down the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def observe(self, event: Event) -> None:
        """Of one kind."""
        if isinstance(event, StepsEnded):
            self.values += event.per_step["train/loss"].tolist()


def train(way: str, steps: int, seed: int, *extra: str) -> tuple[float, np.ndarray, dict[str, torch.Tensor]]:
    """Validation loss at the end, the loss of each step, and the weights."""
    settings = [*WAYS[way], f"training.steps={steps}", f"evaluation.every={steps}", f"seed={seed}", *extra]
    settings += ["stopping={name: none}", "evaluation.yardsticks=false", "training.micro_batch_size=32"]
    settings += ["model.activation=gelu_tanh"]
    losses = Losses()
    run = Path(tempfile.mkdtemp()) / "run"
    trainer = Trainer(load_config("gpt-10m", settings), run=run, monitors=[losses])
    loss = trainer.fit().metrics["validation/loss"]
    assert trainer.model is not None
    return loss, np.array(losses.values), {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def main() -> None:
    """All runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", default=["default", "autocast"], metavar="WAY")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for way in given.ways:
        found = [train(way, given.steps, seed)[0] for seed in range(given.seeds)]
        spread = f", deviation of a seed {statistics.stdev(found):.4f}" if len(found) > 1 else ""
        each = ", ".join(f"{loss:.4f}" for loss in found)
        print(f"{way}: validation loss {statistics.fmean(found):.4f}{spread} ({each})", flush=True)
    # Without dropout, whose draws differ with the kernels.
    plain = ("model.dropout.residual=0.0", "model.dropout.feed_forward=0.0")
    exact = train("fp32", 200, 0, *plain)[1]
    for way in (name for name in given.ways if name != "fp32"):
        distance = np.abs(train(way, 200, 0, *plain)[1] - exact).mean()
        print(f"{way}: mean distance of a step's loss from fp32's over 200 steps {distance:.5f} nats", flush=True)
    twice = [train(given.ways[0], 200, 0, "training.deterministic=true")[2] for _ in range(2)]
    same = all(torch.equal(weight, twice[1][name]) for name, weight in twice[0].items())
    print(f"200 steps twice from seed 0, deterministic: {'the same bits' if same else 'DIFFERENT BITS'}")


if __name__ == "__main__":
    main()
