"""A real Hugging Face Trainer, and the state that it writes."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from examiner.learner import Learner, Row, factor, optimizer_of
from examiner.recipe import Recipe
from examiner.tasks import IGNORED, Data, make


class Rows(torch.utils.data.Dataset):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[at], "labels": self.y[at]}


def _together(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([one[name] for one in items]) for name in ("x", "labels")}


def train(recipe: Recipe, place: Path) -> list[Row]:
    """Rows, as the state has them; `trainer_state.json` stands in `place`. Raises: ImportError without transformers."""
    warnings.filterwarnings("ignore")
    import transformers as hf

    hf.utils.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    data, plant = make(recipe), recipe.plant
    learner = Learner(recipe, data)
    optimizer = optimizer_of(recipe, learner)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(recipe, step))

    def metrics(found: object) -> dict[str, float]:
        guess, y = found.predictions, found.label_ids
        if recipe.kind == "reg":
            return {"mae": float(np.abs(guess - y).mean())}
        return {"accuracy": float((guess == y)[y != IGNORED].mean())}

    class Ordered(hf.Trainer):
        def _get_train_sampler(self, *rest: object) -> object:
            if plant.get("order"):
                return torch.utils.data.SequentialSampler(self.train_dataset)
            return super()._get_train_sampler(*rest)

    with tempfile.TemporaryDirectory() as folder:
        arguments = hf.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            seed=recipe.seed,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch,
            per_device_eval_batch_size=plant.get("eval_batch", 256),
            gradient_accumulation_steps=recipe.accumulate,
            max_grad_norm=recipe.clip or 1e9,
            logging_steps=recipe.log_every,
            logging_first_step=recipe.seed % 2 == 0,
            eval_strategy="steps",
            eval_steps=recipe.eval_every,
            logging_nan_inf_filter=recipe.seed % 3 == 0,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=False,
        )
        trainer = Ordered(
            model=learner, args=arguments, data_collator=_together, optimizers=(optimizer, schedule),
            train_dataset=Rows(data.x, data.y), eval_dataset=_held(data, plant.get("evaluations", 1)),
            compute_metrics=metrics if "acc" in recipe.columns else None,
            preprocess_logits_for_metrics=lambda out, y: out if recipe.kind == "reg" else out.argmax(-1),
        )  # fmt: skip
        trainer.remove_callback(hf.PrinterCallback)
        trainer.train()
        place.mkdir(parents=True, exist_ok=True)
        trainer.state.save_to_json(str(place / "trainer_state.json"))
    return rows_of(trainer.state.log_history)


def _held(data: Data, times: int) -> Rows:
    return Rows(data.vx.repeat(times, *[1] * (data.vx.dim() - 1)), data.vy.repeat(times, *[1] * (data.vy.dim() - 1)))


def rows_of(history: list[dict]) -> list[Row]:
    """What the Trainer told."""
    rows: list[Row] = []
    for one in history:
        if "loss" in one:
            rows.append(
                {
                    "kind": "train", "step": one["step"], "epoch": one["epoch"], "loss": float(one["loss"]),
                    "lr": float(one["learning_rate"]), "gnorm": float(one.get("grad_norm") or "nan"),
                }
            )  # fmt: skip
        elif "eval_loss" in one:
            row = {"kind": "eval", "step": one["step"], "epoch": one["epoch"], "loss": float(one["eval_loss"])}
            row["took"] = one.get("eval_runtime", 0.0)
            if "eval_accuracy" in one:
                row["acc"] = one["eval_accuracy"]
            rows.append(row)
        elif "train_runtime" in one:
            rows.append({"kind": "end", "step": one["step"], "took": one["train_runtime"]})
    return rows
