"""A BERT of transformers, pretrained and fine-tuned: `python examples/fine_tune.py [--short] [--json]`

First it fills holes in lines of Python, without labels. What came of it is exported as a folder of transformers, which
is then fine-tuned to say of every word what it is to Python; its embeddings are frozen at first, and trained from the
middle on. Needs the extra `huggingface`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rows import Row, files, words_and_roles
from run import Outcome, command, run

from trimtab.export import export


def lines_and_roles(file: Path) -> Iterator[Row]:
    """As `words_and_roles`, with the words as one text, which can be read without roles, too."""
    for row in words_and_roles(file):
        yield row | {"text": " ".join(row["text"])}


def main(*, short: bool = False) -> Outcome:
    """Train twice, and give what came of the second; the short form takes a few seconds."""
    width, layers = (64, 1) if short else (128, 2)
    shape = (
        f"{{model_type: bert, hidden_size: {width}, num_hidden_layers: {layers}, num_attention_heads: {width // 32}, "
        f"intermediate_size: {4 * width}, max_position_embeddings: 128}}"
    )
    packages = ("networkx.classes",) if short else ("networkx", "mpmath")
    shared = {
        "data.sequence_length": 32 if short else 64,
        "evaluation.gap_tokens": 0 if short else 65_536,
    }
    pretrained = run(
        "fine-tune-pretraining",
        shared
        | {
            "task": "{name: masked_lm}",
            "model": f"{{name: hugging_face, config: {shape}}}",
            "data.tokenizer.vocabulary_size": 512 if short else 4096,
            "optimizer.learning_rate": 4e-3 if short else 5e-4,
            "training.steps": 15 if short else 1200,
            "evaluation.every": 15 if short else 200,
        },
        rows_of=lines_and_roles,
        sources=files(*packages),
        quiet=short,
    )
    assert pretrained.trainer.run is not None
    folder = Path(tempfile.mkdtemp()) / "pretrained"
    export(pretrained.trainer.run.path, "hugging-face", folder)
    return run(
        "fine-tune",
        shared
        | {
            "task": "{name: token_classification}",
            "model": f"{{name: hugging_face, path: '{folder}', freeze: ['*.embeddings.*'], "
            "unfreeze: {'*.embeddings.*': 0.5}}",
            "data.tokenizer": "{name: hugging_face}",
            "optimizer.learning_rate": 4e-3 if short else 2e-4,
            "training.steps": 30 if short else 1000,
            "evaluation.every": 30 if short else 100,
        },
        rows_of=lines_and_roles,
        sources=files(*packages),
        quiet=short,
    )


if __name__ == "__main__":
    command(main)
