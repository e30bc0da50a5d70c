"""Token classification: what is each word of a line of Python? `python examples/tag_code.py [--short] [--json]`

Names are read, written, attributes, parameters, definitions or keywords, by Python's own syntax tree.
"""

from __future__ import annotations

from rows import files, words_and_roles
from run import Outcome, command, run


def main(*, short: bool = False) -> Outcome:
    """Train, and give what came of it."""
    settings = {
        "task": "{name: token_classification}",
        "data.sequence_length": 32 if short else 128,
        "model.num_layers": 1 if short else 2,
        "model.hidden_size": 64 if short else 128,
        "optimizer.learning_rate": 4e-3 if short else 1e-3,
        "training.steps": 40 if short else 1000,
        "evaluation.every": 40 if short else 100,
        "evaluation.gap_tokens": 0 if short else 65_536,
    }
    if short:
        settings["data.tokenizer.vocabulary_size"] = 512
    packages = ("networkx.classes",) if short else ("networkx", "mpmath")
    return run("tag-code", settings, rows_of=words_and_roles, sources=files(*packages), quiet=short)


if __name__ == "__main__":
    command(main)
