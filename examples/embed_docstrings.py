"""Vectors of texts: which name belongs to a docstring? `python examples/embed_docstrings.py [--short] [--json]`

The docstring's beginning, without its name, and the words of the name get vectors from one model; those of a pair shall
be nearer than those of any other name in the batch. Afterwards the names nearest to a question of yours are found.
"""

from __future__ import annotations

import torch
from rows import files, name_and_docstring
from run import Outcome, command, run


def main(*, short: bool = False) -> Outcome:
    """Train, and give what came of it; the long form splits its batches of 128 pairs by the gradient cache."""
    settings = {
        "task": "{name: contrastive, second: second}",
        "objective": "{name: info_nce, temperature: 0.1, learn_temperature: true}",
        "data.sequence_length": 32 if short else 64,
        "model.num_layers": 1 if short else 2,
        "model.hidden_size": 64 if short else 128,
        "model.num_heads": 4,
        "optimizer.learning_rate": 4e-3 if short else 1e-3,
        "training.steps": 60 if short else 500,
        "training.micro_batch_size": 32 if short else 64,
        "training.accumulation": 1 if short else 2,
        "evaluation.every": 60 if short else 100,
        "evaluation.batch_size": 16,
        "evaluation.gap_tokens": 0 if short else 65_536,
    }
    if short:
        settings["data.tokenizer.vocabulary_size"] = 1024
    packages = ("networkx.algorithms",) if short else ("sympy", "networkx", "mpmath")
    outcome = run("embed-docstrings", settings, rows_of=name_and_docstring, sources=files(*packages), quiet=short)
    if not short:
        names = ["shortest path", "matrix inverse", "is prime", "random graph", "integrate"]
        vectors = torch.stack(outcome.trainer.predict(["Returns the way from one node to another", *names]))
        order = (vectors[1:] @ vectors[0]).argsort(descending=True).tolist()
        print("nearest first:", ", ".join(names[index] for index in order))
    return outcome


if __name__ == "__main__":
    command(main)
