"""One trainer on a processor until the driver ends it: `python benchmarks/speed/on_cpu.py TRAINER CASE [settings ...]`.

ours        trimtab's own trainer with console, record, layers and controllers as they are by default
bare        the same decoder in a loop of eight lines, with freed memory kept
bare-plain  the same, as it comes
hf          Hugging Face's Trainer on its GPT-2 of this shape
lightning   Lightning around the same decoder

All train under bf16 autocast with AdamW and clipping at 1.0, on random tokens; the loss of those that take trimtab's
decoder into a loop of their own is torch's cross-entropy.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from gate import CASES, Gate
from torch import nn

WARMUP = 12


def tokens_of(case: dict[str, int]) -> torch.Tensor:
    """Sequences of random tokens, one longer than they are trained on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, case["vocabulary"], (2_000, case["length"] + 1), generator=generator)


def decoder(case: dict[str, int]) -> nn.Module:
    """trimtab's decoder of this shape, without anything that observes it."""
    from trimtab.config import DecoderConfig
    from trimtab.model import build_model

    config = DecoderConfig.model_validate(
        {
            "num_layers": case["layers"],
            "hidden_size": case["width"],
            "num_heads": case["heads"],
            "positions": {"name": "learned"},
        }
    )
    return build_model(config, vocabulary_size=case["vocabulary"], sequence_length=case["length"], seed=0).train()


def loss_of(model: nn.Module, tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """As a user writes it."""
    output = model(tokens_BT)
    logits_BTV = output.head(output.features)
    return nn.functional.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten())


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW in its fused form; matrices decay."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    rest = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)


def bare(case: dict[str, int], gate: Gate, *, keeps: bool) -> None:
    """The least that trains the same: batch, forward, backward, clip, update, and the loss read every ten steps."""
    from trimtab.training.execution import keep_freed_memory

    if keeps:
        keep_freed_memory()
    model = decoder(case)
    optimizer = optimizer_of(model)
    data, batch, step = tokens_of(case), case["batch"], 0
    while True:
        rows = data[(step * batch) % 1_984 :][:batch]
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, rows[:, :-1], rows[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 10 == 0:
            loss.item()
        gate.step()


def ours(case: dict[str, int], gate: Gate, overrides: list[str]) -> None:
    """The whole trainer, as the command line runs it."""
    from ours import random_data, settings_of

    import trimtab.trainer as trainer_module
    from trimtab.config import load_config
    from trimtab.monitor.sinks.console import Console
    from trimtab.training import Step

    run = Step.run

    def counted(self: Step, *arguments: Any, **named: Any) -> None:
        run(self, *arguments, **named)
        gate.step()

    Step.run = counted  # type: ignore[method-assign]
    # The activation of the other trainers' decoder: tanh takes twice the time on a processor.
    config = load_config(None, [*settings_of(case), "model.activation=gelu", *overrides])
    trainer_module.prepared = lambda *arguments, **named: random_data(case)  # type: ignore[assignment]
    with open(os.devnull, "w") as nowhere:
        console = Console(nowhere, config.training.steps)
        folder = Path(tempfile.mkdtemp()) / "run"
        trainer_module.Trainer(config, run=folder, monitors=[console]).fit()


def huggingface(case: dict[str, int], gate: Gate) -> None:
    """Its defaults, but for bf16."""
    from huggingface import Counts, Random
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

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
        bf16=True,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=10,
    )
    Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Random(case), callbacks=[Counts(gate)]).train()


def lightning(case: dict[str, int], gate: Gate) -> None:
    """Its defaults, but for bf16; a loader without workers, as batches cost nothing."""
    import lightning as package

    class Module(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = decoder(case)

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
            loss = loss_of(self.model, *batch)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer_of(self.model)

        def configure_gradient_clipping(self, optimizer: Any, *arguments: Any, **named: Any) -> None:
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)

    class Counts(package.Callback):
        def on_train_batch_end(self, *arguments: Any, **named: Any) -> None:
            gate.step()

    data = tokens_of(case)
    pairs = torch.utils.data.TensorDataset(data[:, :-1].contiguous(), data[:, 1:].contiguous())
    loader = torch.utils.data.DataLoader(pairs, case["batch"], shuffle=True, drop_last=True)
    package.Trainer(
        max_steps=10_000_000,
        precision="bf16-mixed",
        accelerator="cpu",
        default_root_dir=tempfile.mkdtemp(),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Counts()],
    ).fit(Module(), loader)


def main() -> None:
    """Trains until the driver ends it."""
    trainer, case = sys.argv[1], CASES[sys.argv[2]]
    warnings.filterwarnings("ignore")
    gate = Gate(WARMUP)
    match trainer:
        case "ours":
            ours(case, gate, sys.argv[3:])
        case "bare" | "bare-plain":
            bare(case, gate, keeps=trainer == "bare")
        case "hf":
            huggingface(case, gate)
        case "lightning":
            lightning(case, gate)
        case _:
            raise SystemExit(f"no such trainer: {trainer}")


if __name__ == "__main__":
    main()
