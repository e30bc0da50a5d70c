"""Writes the logs in logs/ that come from the tools themselves: `python tests/runs/importers/write_logs.py FOLDER`.

A small GPT-2 on random tokens with transformers' Trainer, and a small linear model with Lightning's CSVLogger.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch


def write_huggingface(folder: Path) -> None:
    """trainer_state.json after 40 steps, logged every 2, evaluated every 10."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=61, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    tokens = torch.randint(0, 61, (64, 16))
    data = [{"input_ids": row, "labels": row} for row in tokens]
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output,
            max_steps=40,
            per_device_train_batch_size=4,
            logging_steps=2,
            eval_strategy="steps",
            eval_steps=10,
            save_steps=40,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            learning_rate=3e-3,
        )
        Trainer(model, arguments, train_dataset=data, eval_dataset=data[:8]).train()
        for name in ("trainer_state.json", "config.json"):
            shutil.copy(Path(output) / "checkpoint-40" / name, folder / name)


def write_lightning(folder: Path) -> None:
    """metrics.csv of two epochs, with rows for training and for validation."""
    import lightning
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch, _):  # type: ignore[no-untyped-def]
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch, _):  # type: ignore[no-untyped-def]
            self.log("val_loss", torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1]))

        def configure_optimizers(self):  # type: ignore[no-untyped-def]
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 20)]

    torch.manual_seed(0)
    inputs = torch.randn(80, 4)
    data = torch.utils.data.TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    with tempfile.TemporaryDirectory() as output:
        trainer = lightning.Trainer(
            max_epochs=2,
            logger=CSVLogger(output),
            callbacks=[LearningRateMonitor("step")],
            log_every_n_steps=2,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            accelerator="cpu",
        )
        trainer.fit(Line(), loader, loader)
        shutil.copy(next(Path(output).rglob("metrics.csv")), folder / "metrics.csv")


if __name__ == "__main__":
    to = Path(sys.argv[1])
    write_huggingface(to)
    write_lightning(to)
