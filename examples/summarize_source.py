"""Sequence to sequence: the first line of a function's docstring, from its source.

`python examples/summarize_source.py [--short] [--json]`
"""

from __future__ import annotations

from rows import files, source_and_summary
from run import Outcome, command, run


def main(*, short: bool = False) -> Outcome:
    """Train, and give what came of it; at every evaluation it says what it writes of four functions."""
    settings = {
        "task": f"{{name: seq2seq, target_length: {16 if short else 32}}}",
        "model.name": "encoder_decoder",
        "model.num_layers": 1 if short else 2,
        "model.hidden_size": 64 if short else 128,
        "model.num_heads": 4,
        "objective.label_smoothing": 0.1,
        "data.sequence_length": 48 if short else 256,
        "optimizer.learning_rate": 4e-3 if short else 1e-3,
        "training.steps": 50 if short else 1500,
        "evaluation.every": 50 if short else 250,
        "evaluation.gap_tokens": 0 if short else 65_536,
        "evaluation.samples.max_tokens": 4 if short else 32,
    }
    if short:
        settings["data.tokenizer.vocabulary_size"] = 512
    packages = ("networkx.classes", "networkx.generators") if short else ("sympy", "networkx", "mpmath")
    return run("summarize-source", settings, rows_of=source_and_summary, sources=files(*packages), quiet=short)


if __name__ == "__main__":
    command(main)
