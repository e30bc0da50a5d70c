"""Regression: how long is a function of which this is said? `python examples/guess_length.py [--short] [--json]`

The target is the logarithm of the number of lines. A linear model over words (TF-IDF, ridge) has an R² of 0.31 on this
split.
"""

from __future__ import annotations

from rows import docstring_and_length, files
from run import Outcome, command, run


def main(*, short: bool = False) -> Outcome:
    """Train, and give what came of it."""
    settings = {
        "task": "{name: regression}",
        "objective": "{name: huber, delta: 1.5}",
        "data.sequence_length": 48 if short else 128,
        "model.num_layers": 1 if short else 2,
        "model.hidden_size": 64 if short else 128,
        "model.dropout.residual": 0.1,
        "optimizer.learning_rate": 3e-3 if short else 1e-3,
        "training.steps": 90 if short else 1000,
        "evaluation.every": 45 if short else 50,
        "evaluation.gap_tokens": 0 if short else 65_536,
    }
    if short:
        settings |= {"data.tokenizer.vocabulary_size": 512, "model.initialization.standard_deviation": 0.1}
    packages = ("networkx",) if short else ("sympy", "networkx", "mpmath")
    return run(
        "guess-length",
        settings,
        figure="r2",
        baseline="numbers",
        rows_of=docstring_and_length,
        sources=files(*packages),
        quiet=short,
    )


if __name__ == "__main__":
    command(main)
