"""The same trainings under Lightning: its log is metrics.csv."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from bank.experiment import Experiment, Running
from bank.huggingface import Stream


def train(it: Experiment, path: Path) -> None:
    """Train, and leave `path`/metrics.csv."""
    import lightning
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    running = Running(it)
    draw = it.scenario.draw("log")
    every = draw.choice([1, 2, 5])
    loss_name = draw.choice(["train_loss", "train/loss", "loss"])
    held_out_name = {"train_loss": "val_loss", "train/loss": "val/loss", "loss": "val_loss"}[loss_name]

    class Module(lightning.LightningModule):  # type: ignore[misc]
        """The experiment as a module."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.kept, self.begun = running.model, None, 0.0

        def configure_optimizers(self) -> Any:
            """The experiment's own, with its schedule."""
            schedule = LambdaLR(running.optimizer, lambda done: running.factor(done + 1))
            return {"optimizer": running.optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_batch_start(self, batch: Any, index: int) -> None:
            """The step begins."""
            if index % it.accumulation == 0:
                self.begun = time.perf_counter()
                running.begin(self.global_step + 1)

        def training_step(self, batch: Any, index: int) -> Tensor:
            """The loss; times what Lightning divides by where micro-batches are to be summed."""
            loss, _ = running.loss(batch)
            self.log(loss_name, loss.detach() * (it.accumulation if it.sums_losses else 1.0))
            return loss * it.accumulation if it.sums_losses else loss

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            """Gradients are there, not clipped yet."""
            it.on_gradients(running.step, running.parameters)
            if it.logs["grad_norm"]:
                norms = [one.grad.norm() for one in running.parameters if one.grad is not None]
                self.log("grad_norm", torch.stack(norms).norm())
            self.kept = it.before_update(running.step, running.parameters)

        def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
            """The update is done."""
            if (index + 1) % it.accumulation == 0:
                it.after_update(running.step, running.parameters, self.kept)
                if it.logs["times"]:
                    self.log("step_time", time.perf_counter() - self.begun)
                if it.is_evaluated(running.step):
                    self.judge()

        def judge(self) -> None:
            """On the held-out samples."""
            found = running.evaluate()
            values = {held_out_name: found["loss"]}
            if it.logs["accuracy"] and "accuracy" in found:
                values[held_out_name.replace("loss", "acc")] = found["accuracy"]
            self.logger.log_metrics(values, step=running.step - 1)

        def optimizer_zero_grad(self, epoch: int, index: int, optimizer: Any) -> None:
            """Cleared as often as the experiment says."""
            if running.is_cleared(running.step):
                optimizer.zero_grad()

    logger = CSVLogger(str(path), name="", version="")
    trainer = lightning.Trainer(
        max_steps=it.steps,
        accelerator="cpu",
        devices=1,
        logger=logger,
        callbacks=[LearningRateMonitor("step")] if it.logs["rate"] else [],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=every,
        gradient_clip_val=it.clip,
        accumulate_grad_batches=it.accumulation,
        use_distributed_sampler=False,
    )
    module: nn.Module = Module()
    trainer.fit(module, DataLoader(Stream(running), batch_size=None, shuffle=False))
    for one in list(path.iterdir()):
        if one.name != "metrics.csv":
            shutil.rmtree(one) if one.is_dir() else one.unlink()
