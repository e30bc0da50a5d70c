"""Hugging Face's GPT-2 by trimtab's trainer: `python benchmarks/speed/huggingface_model.py 124m [setting=value ...]`.

The model, the batch and the precision of huggingface.py; tokens as random, drawn by numpy.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from gate import CASES, Gate
from ours import random_data, settings_of

import trimtab.trainer as trainer_module
from trimtab.config import load_config
from trimtab.trainer import Trainer
from trimtab.training import Step


def model_settings(case: dict[str, int]) -> str:
    """GPT-2 in this case's shape, without dropout."""
    return (
        f"model={{name: hugging_face, config: {{model_type: gpt2, n_positions: {case['length']}, "
        f"n_embd: {case['width']}, n_layer: {case['layers']}, n_head: {case['heads']}, "
        "resid_pdrop: 0.0, embd_pdrop: 0.0, attn_pdrop: 0.0}}"
    )


def main() -> None:
    """Trains until the driver ends it."""
    case, warmup = CASES[sys.argv[1]], 12
    gate = Gate(warmup)
    run = Step.run

    def counted(self: Step, *arguments: Any, **named: Any) -> None:
        # What is timed must be the case's shape.
        weight = self.model.module.get_input_embeddings().weight
        assert weight.shape == (case["vocabulary"], case["width"])
        assert arguments[0][0].tokens_BT.shape == (case["batch"], case["length"])
        run(self, *arguments, **named)
        gate.step()

    Step.run = counted  # type: ignore[method-assign]
    settings = [one for one in settings_of(case) if not one.startswith("model=")] + [model_settings(case)]
    trainer = Trainer(load_config(None, settings + sys.argv[2:]), run=Path(tempfile.mkdtemp()) / "run")
    trainer_module.prepared = lambda *arguments, **named: random_data(case)  # type: ignore[assignment]
    trainer.fit()


if __name__ == "__main__":
    main()
