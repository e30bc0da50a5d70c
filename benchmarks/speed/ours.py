"""trimtab's own trainer, whole, on random tokens: `python benchmarks/speed/ours.py 124m [setting=value ...]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from gate import CASES, Gate

import trimtab.trainer as trainer_module
from trimtab.config import load_config
from trimtab.data import PackedSequences
from trimtab.data.order import Order
from trimtab.data.prepare import PreparedData
from trimtab.signals import SpecialTokens, TargetFacts
from trimtab.trainer import Trainer
from trimtab.training import Step


def random_data(case: dict[str, int], *, documents: bool = False) -> PreparedData:
    """Sequences of random tokens; with `documents` a new one begins at every 300th on average, else never."""
    length, vocabulary = case["length"], case["vocabulary"]
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, vocabulary, 2_000 * length + 1).astype(np.uint16)
    begins = np.flatnonzero(generator.random(len(tokens)) < 1 / 300) if documents else np.array([], np.int64)
    sequences = PackedSequences(tokens, np.union1d([0], begins), length, num_bytes=len(tokens))
    special = SpecialTokens(0, 0, 0)
    tokenizer: Any = SimpleNamespace(
        vocabulary_size=vocabulary,
        token_bytes=None,
        special=special,
        save=lambda path: None,
        decode=lambda tokens: " ".join(map(str, tokens)),
    )
    order = Order(len(sequences), seed=0)
    facts = {"tokens_per_epoch": sequences.num_tokens, "validation": {"sha256": ""}, "tokenizer": {"fingerprint": ""}}
    cache = Path(tempfile.gettempdir())
    return PreparedData(tokenizer, vocabulary, sequences, sequences, order, TargetFacts(), facts, "random", cache)


def settings_of(case: dict[str, int]) -> list[str]:
    """The case as settings, for a run without end."""
    return [
        "data.source={name: embedded}",
        f"data.sequence_length={case['length']}",
        f"model={{name: decoder, num_layers: {case['layers']}, hidden_size: {case['width']}, "
        f"num_heads: {case['heads']}, activation: gelu_tanh, positions: {{name: learned}}, bias: false}}",
        "optimizer={name: adamw, learning_rate: 1e-4}",
        "training.steps=1000000",
        f"training.micro_batch_size={case['batch']}",
        "training.precision={name: bf16}",
        "evaluation={every: 1000000, yardsticks: false, samples: {prompts: []}}",
        "stopping={name: none}",
    ]


def main() -> None:
    """Trains until the driver ends it."""
    case, warmup = CASES[sys.argv[1]], 12
    gate = Gate(warmup)
    run = Step.run

    def counted(self: Step, *arguments: Any, **named: Any) -> None:
        # What is timed must be the case's shape.
        assert self.model.embedding.weight.shape == (case["vocabulary"], case["width"])
        assert arguments[0][0].tokens_BT.shape == (case["batch"], case["length"])
        run(self, *arguments, **named)
        gate.step()

    Step.run = counted  # type: ignore[method-assign]
    trainer = Trainer(load_config(None, settings_of(case) + sys.argv[2:]), run=Path(tempfile.mkdtemp()) / "run")
    data = random_data(case, documents="model.document_mask=true" in sys.argv)
    trainer_module.prepared = lambda *arguments, **named: data  # type: ignore[assignment]
    trainer.fit()


if __name__ == "__main__":
    main()
