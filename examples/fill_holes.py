"""Masked language modelling: which token stood here? `python examples/fill_holes.py [--short] [--json]`

The preset encoder-1m as it is: code and docstrings of three packages, packed, 15 % of the tokens asked for.
"""

from __future__ import annotations

from run import Outcome, command, run


def main(*, short: bool = False) -> Outcome:
    """Train, and give what came of it; the short form reads bytes of one small package."""
    settings: dict[str, object] = {}
    if short:
        settings = {
            "data.source.packages": "[mpmath]",
            "data.tokenizer": "{name: bytes}",
            "data.sequence_length": 32,
            "model.num_layers": 1,
            "model.hidden_size": 64,
            "model.initialization.standard_deviation": 0.1,
            "optimizer.learning_rate": 5e-3,
            "training.steps": 120,
            "evaluation.every": 120,
            "evaluation.gap_tokens": 0,
            "evaluation.max_tokens": 16_384,
        }
    return run("fill-holes", settings, quiet=short)


if __name__ == "__main__":
    command(main)
