"""Several labels at once: what else has the thing that a docstring describes? `python examples/label_docstrings.py`

The labels are class, example, parameters, references: whether it is a class, and whether its docstring goes on with a
doctest, a list of parameters, or references, all of which are cut off.
"""

from __future__ import annotations

from rows import docstring_and_topics, files
from run import Outcome, command, run


def main(*, short: bool = False) -> Outcome:
    """Train, and give what came of it."""
    settings = {
        "task": "{name: classification, multi_label: true}",
        "objective": "{name: binary_cross_entropy}",
        "data.sequence_length": 32 if short else 128,
        "model.num_layers": 1 if short else 2,
        "model.hidden_size": 64 if short else 128,
        "model.dropout.residual": 0.1,
        "optimizer.learning_rate": 2e-3 if short else 1e-3,
        "training.steps": 80 if short else 1000,
        "evaluation.every": 80 if short else 100,
        "evaluation.gap_tokens": 0 if short else 65_536,
    }
    if short:
        settings["data.tokenizer.vocabulary_size"] = 512
    packages = ("networkx.algorithms",) if short else ("sympy", "networkx", "mpmath")
    return run(
        "label-docstrings",
        settings,
        baseline="labels",
        rows_of=docstring_and_topics,
        sources=files(*packages),
        quiet=short,
    )


if __name__ == "__main__":
    command(main)
