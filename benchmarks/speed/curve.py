"""Whether the fast default learns as fp32 weights under autocast do: the same run in each, on real text.

    python benchmarks/speed/curve.py [--steps 1500] [--seeds 2] [--ways default fp8]

Prints the validation loss of each, and whether a repeated seed gives the same bits.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from trimtab.config import load_config
from trimtab.trainer import Trainer

WAYS = {
    "default": ["training.precision={name: bf16}"],
    "fp8": ["training.precision={name: fp8}"],
    "fp32 weights, autocast, unfused": ["training.precision={name: bf16, parameters: fp32}", "objective.fused=off"],
}


def train(way: str, steps: int, seed: int, *extra: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Validation loss at the end, and the weights."""
    settings = [*WAYS[way], f"training.steps={steps}", f"evaluation.every={steps}", f"seed={seed}", *extra]
    settings += ["stopping={name: none}", "evaluation.yardsticks=false", "training.micro_batch_size=32"]
    trainer = Trainer(load_config("gpt-10m", settings), run=Path(tempfile.mkdtemp()) / "run")
    loss = trainer.fit().metrics["validation/loss"]
    assert trainer.model is not None
    return loss, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def main() -> None:
    """All runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    given = parser.parse_args()
    for seed in range(given.seeds):
        for way in given.ways:
            print(f"seed {seed}, {way}: validation loss {train(way, given.steps, seed)[0]:.4f}", flush=True)
    twice = [train("default", 200, 0, "training.deterministic=true")[1] for _ in range(2)]
    same = all(torch.equal(weight, twice[1][name]) for name, weight in twice[0].items())
    print(f"200 steps twice from seed 0, deterministic: {'the same bits' if same else 'DIFFERENT BITS'}")


if __name__ == "__main__":
    main()
