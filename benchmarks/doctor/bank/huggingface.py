"""The same trainings under the Trainer of Hugging Face transformers: its log is trainer_state.json."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from bank import clock
from bank.experiment import Batch, Experiment, Running

NAMES: Final = {
    "lm": "TinyForCausalLM",
    "classification": "TinyForSequenceClassification",
    "seq2seq": "TinyForConditionalGeneration",
    "mlp": "TinyForImageClassification",
    "cnn": "TinyForImageClassification",
}
"""What models of a task are called in transformers, where callbacks can see it."""


class Stream(Dataset):  # type: ignore[type-arg]
    """As many micro-batches as a pass over the data has; each is the next one of the experiment."""

    def __init__(self, running: Running) -> None:
        self.running = running

    def __len__(self) -> int:
        return self.running.batches_per_epoch

    def __getitem__(self, index: int) -> Batch:
        clock.wait(self.running.it.reading(self.running.step))
        return self.running.next_batch()


def named(batch: Batch) -> dict[str, Tensor]:
    """A batch under the names of transformers."""
    inputs, targets = batch
    names = ("pixel_values",) if inputs[0].is_floating_point() else ("input_ids", "decoder_input_ids")
    return dict(zip(names, inputs, strict=False)) | {"labels": targets}


class WithLoss(nn.Module):
    """The model of an experiment, giving its loss as transformers expect it."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self.inner, self.running = running.model, [running]
        self.config = SimpleNamespace(vocab_size=running.it.num_classes, num_labels=running.it.num_classes)

    def forward(
        self,
        input_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss, and the answers."""
        assert labels is not None
        inputs = tuple(one for one in (input_ids, decoder_input_ids, pixel_values) if one is not None)
        loss, answers = self.running[0].loss((inputs, labels))
        return {"loss": loss, "logits": answers}

    def judged(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and the answers, as in an evaluation."""
        output = self(**named(batch))
        return output["loss"], output["logits"]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Cleared as often as the experiment says: this is called when a step is over."""
        if self.running[0].is_cleared(self.running[0].step + 1):
            super().zero_grad(set_to_none)


def train(it: Experiment, path: Path, watched: Path | None = None) -> None:
    """Train, and leave `path`/trainer_state.json; trimtab's callback writes to `watched`."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}
    from transformers import Trainer, TrainerCallback, TrainingArguments

    running = Running(it)
    draw = it.scenario.draw("log")
    every = draw.choice([1, 2, 5])
    callbacks: list[TrainerCallback] = []
    if watched is not None:
        from trimtab.integrations.huggingface import TrimtabCallback

        callbacks = [TrimtabCallback(watched, report=False)]
    model: WithLoss = type(NAMES[it.scenario.task], (WithLoss,), {})(running)

    class Planted(TrainerCallback):  # type: ignore[misc]
        """What happens at the edges of a step."""

        kept: Any = None

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            """Gradients are there, and clipped."""
            self.kept = it.before_update(running.step, running.parameters)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            """The update is done."""
            it.after_update(running.step, running.parameters, self.kept)

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            """Evaluate when it is time."""
            if it.is_evaluated(state.global_step):
                control.should_evaluate = True

    class Driven(Trainer):  # type: ignore[misc]
        """Takes micro-batches and judgement from the experiment."""

        micro = 0
        judged_at = 0

        def get_train_dataloader(self) -> Any:
            """The stream."""
            return DataLoader(Stream(running), batch_size=None, shuffle=False, collate_fn=named)

        def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **others: Any) -> Any:
            """The experiment's loss; summed over micro-batches where that is the fault."""
            loss = model(**inputs)["loss"]
            return loss * it.accumulation if it.sums_losses else loss

        def _prepare_inputs(self, inputs: Any) -> Any:
            return inputs

        def training_step(self, *arguments: Any, **others: Any) -> Tensor:
            """The step begins; backward, and then what happens to the gradients."""
            if self.micro % it.accumulation == 0:
                running.begin(self.state.global_step + 1)
            loss: Tensor = super().training_step(*arguments, **others)
            self.micro += 1
            if self.micro % it.accumulation == 0:
                it.on_gradients(running.step, running.parameters)
            return loss

        def evaluate(self, *arguments: Any, **others: Any) -> dict[str, float]:
            """On the held-out samples."""
            begun = time.perf_counter()
            found = {f"eval_{name}": value for name, value in running.evaluate(model, model.judged).items()}
            if not it.logs["accuracy"]:
                found.pop("eval_accuracy", None)
            found["eval_runtime"] = round(time.perf_counter() - begun, 4)
            self.log(found)
            if self.state.global_step != self.judged_at:  # by itself: the handler would forget the wish to evaluate
                self.judged_at = self.state.global_step
                for one in callbacks:
                    one.on_evaluate(self.args, self.state, self.control, metrics=found)
            return found

    arguments = TrainingArguments(
        output_dir=str(path),
        max_steps=it.steps,
        per_device_train_batch_size=it.batch,
        gradient_accumulation_steps=it.accumulation,
        learning_rate=it.rate,
        weight_decay=it.weight_decay,
        max_grad_norm=it.clip or 0.0,
        logging_steps=every,
        eval_strategy="no",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=it.scenario.seed,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_nan_inf_filter=draw.random() < 0.7,
    )
    scheduler = LambdaLR(running.optimizer, lambda done: running.factor(done + 1))
    trainer = Driven(
        model=model,
        args=arguments,
        train_dataset=Stream(running),
        eval_dataset=Stream(running),
        optimizers=(running.optimizer, scheduler),
        callbacks=[Planted(), *callbacks],
    )
    torch.manual_seed(it.scenario.seed)
    trainer.train()
    state = path / "trainer_state.json"
    trainer.state.save_to_json(str(state))
    for one in path.iterdir():
        if one != state:
            shutil.rmtree(one) if one.is_dir() else one.unlink()
