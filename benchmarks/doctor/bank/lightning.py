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


def train(it: Experiment, path: Path, watched: Path | None = None) -> None:
    """Train, and leave `path`/metrics.csv.

    `watched`: where trimtab's callback writes; then evaluations are in Lightning's own loop, for it to see them.
    """
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

        def on_after_backward(self) -> None:
            """What happens to the gradients."""
            if not steps._should_accumulate():
                it.on_gradients(running.step, running.parameters)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            """Gradients are there, not clipped yet."""
            if it.logs["grad_norm"]:
                norms = [one.grad.norm() for one in running.parameters if one.grad is not None]
                self.log("grad_norm", torch.stack(norms).norm())
            self.kept = it.before_update(running.step, running.parameters)

        def optimizer_step(self, epoch: int, index: int, *others: Any) -> None:
            """The update."""
            super().optimizer_step(epoch, index, *others)
            if (index + 1) % it.accumulation == 0:
                it.after_update(running.step, running.parameters, self.kept)

        def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
            """The step is over."""
            if (index + 1) % it.accumulation == 0:
                if it.logs["times"]:
                    self.log("step_time", time.perf_counter() - self.begun)
                if watched is None and it.is_evaluated(running.step):
                    self.judge()

        def validation_step(self, batch: Any, index: int) -> None:
            """All of an evaluation."""
            self.log_dict(self.judge(), logger=False, batch_size=1)

        def on_validation_model_eval(self) -> None:
            """Left out where that is the fault."""
            if not it.evaluates_in_training_mode:
                super().on_validation_model_eval()

        def on_validation_model_zero_grad(self) -> None:
            """Gradients are cleared as often as the experiment says."""

        def judge(self) -> dict[str, float]:
            """On the held-out samples."""
            found = running.evaluate()
            values = {held_out_name: found["loss"]}
            if it.logs["accuracy"] and "accuracy" in found:
                values[held_out_name.replace("loss", "acc")] = found["accuracy"]
            self.logger.log_metrics(values, step=running.step - 1)
            return values

        def optimizer_zero_grad(self, epoch: int, index: int, optimizer: Any) -> None:
            """Cleared as often as the experiment says."""
            if running.is_cleared(running.step):
                optimizer.zero_grad()

    logger = CSVLogger(str(path), name="", version="")
    callbacks = [LearningRateMonitor("step")] if it.logs["rate"] else []
    if watched is not None:
        from trimtab.integrations.lightning import TrimtabCallback

        callbacks.append(TrimtabCallback(watched, report=False))
    trainer = lightning.Trainer(
        max_steps=it.steps,
        accelerator="cpu",
        devices=1,
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=every,
        gradient_clip_val=it.clip,
        accumulate_grad_batches=it.accumulation,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    steps = trainer.fit_loop.epoch_loop
    if watched is not None:
        steps._should_check_val_fx = lambda _: (
            (steps.batch_idx + 1) % it.accumulation == 0 and it.is_evaluated(running.step)
        )
    module: nn.Module = Module()
    evaluations = None if watched is None else range(1)
    trainer.fit(module, DataLoader(Stream(running), batch_size=None, shuffle=False), evaluations)
    for one in list(path.iterdir()):
        if one.name != "metrics.csv":
            shutil.rmtree(one) if one.is_dir() else one.unlink()
