"""Hugging Face's Trainer on its GPT-2: `python benchmarks/speed/huggingface.py 124m [compile]`."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from gate import CASES, Gate
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Random(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Sequences of random tokens; the model shifts the labels itself."""

    def __init__(self, case: dict[str, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(0, case["vocabulary"], (2_000, case["length"]), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


class Counts(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Tells the gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        """After each update."""
        self.gate.step()


def main() -> None:
    """Trains until the driver ends it."""
    case = CASES[sys.argv[1]]
    gate = Gate(12)
    config = GPT2Config(
        vocab_size=case["vocabulary"],
        n_positions=case["length"],
        n_embd=case["width"],
        n_layer=case["layers"],
        n_head=case["heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=case["batch"],
        max_steps=10_000_000,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        torch_compile="compile" in sys.argv[2:],
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Random(case), callbacks=[Counts(gate)]).train()


if __name__ == "__main__":
    main()
