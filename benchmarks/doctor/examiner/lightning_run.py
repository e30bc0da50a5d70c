"""A real Lightning Trainer with its own loggers."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from examiner.learner import Learner, Row, accuracy, factor, judged, layers_of, optimizer_of
from examiner.loop import memory
from examiner.recipe import Recipe
from examiner.tasks import make


def train(recipe: Recipe, place: Path) -> list[Row]:
    """Rows, as seen from within; what the loggers wrote stands in `place`. Raises: ImportError without Lightning."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    data, plant = make(recipe), recipe.plant
    rows: list[Row] = []
    per_epoch = max(1, len(data.x) // recipe.batch)
    first, second = ("train_loss", "val_loss") if recipe.seed % 3 else ("train/loss", "val/loss")

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            kept = ("lr", "batch", "steps", "schedule", "warmup", "optimizer", "width", "depth", "dropout", "wd")
            self.save_hyperparameters({name: getattr(recipe, name) for name in kept})
            self.learner = Learner(recipe, data)
            self.norm, self.layers, self.began = 0.0, {}, time.perf_counter()

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            out = self.learner(*batch)
            self.log(first, out["loss"], on_step=True, on_epoch=False, prog_bar=True)
            if "acc" in recipe.columns and recipe.kind != "reg":
                self.log(first.replace("loss", "acc"), accuracy(out, batch[1]))
            if "dt" in recipe.columns:
                now = time.perf_counter()
                self.log("step_time", now - self.began)
                self.began = now
            if "mem" in recipe.columns:
                self.log("memory_rss_mb", memory() / 1e6)
            step, rate = self.global_step + 1, recipe.lr * factor(recipe, self.global_step)
            row = {"kind": "train", "step": step, "epoch": step / per_epoch, "loss": float(out["loss"]), "lr": rate}
            if step % recipe.log_every == 0:
                rows.append({**row, "gnorm": self.norm, "layers": self.layers})
            return out["loss"]

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            grads = [one.grad.norm() for one in self.learner.parameters() if one.grad is not None]
            self.norm = float(torch.stack(grads).norm())
            if "gnorm" in recipe.columns:
                self.log("grad_2.0_norm_total", self.norm)
            if "layers" in recipe.columns:
                self.layers = layers_of(self.learner)
                self.log_dict({f"grad_2.0_norm/{name}": value for name, value in self.layers.items()})

        def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
            out = self.learner(*batch)
            self.log(second, out["loss"])
            if recipe.kind != "reg" and "acc" in recipe.columns:
                self.log(second.replace("loss", "acc"), accuracy(out, batch[1]))

        def on_validation_epoch_end(self) -> None:
            if self.global_step:
                found = judged(self.learner, data)
                rows.append({"kind": "eval", "step": self.global_step, "epoch": 0.0, **found})

        def configure_optimizers(self) -> dict:
            optimizer = optimizer_of(recipe, self.learner)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(recipe, step))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def optimizer_zero_grad(self, epoch: int, index: int, optimizer: torch.optim.Optimizer) -> None:
            if not plant.get("kept") or (self.global_step + 1) % plant["kept"] == 0:
                optimizer.zero_grad()

    csv = recipe.engine == "csv"
    logger = (CSVLogger if csv else TensorBoardLogger)(str(place), name="lightning_logs", version=0)
    calls: list = [pl.callbacks.LearningRateMonitor("step")] if "lr" in recipe.columns else []
    torch.manual_seed(recipe.seed)
    trainer = pl.Trainer(
        max_steps=recipe.steps, accelerator="cpu", devices=1, logger=logger, callbacks=calls, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0,
        log_every_n_steps=recipe.log_every, val_check_interval=recipe.eval_every, check_val_every_n_epoch=None,
        gradient_clip_val=recipe.clip or None,
    )  # fmt: skip
    held = TensorDataset(data.vx, data.vy)
    trainer.fit(
        Module(),
        DataLoader(TensorDataset(data.x, data.y), recipe.batch, shuffle=not plant.get("order"), drop_last=True),
        DataLoader(held, plant.get("eval_batch", 256)),
    )
    return rows
