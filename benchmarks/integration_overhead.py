"""What TrimtabCallback costs a step of transformers' Trainer and of Lightning.

    python benchmarks/integration_overhead.py [--pairs 12] [--steps 40]

Two trainings of the same small GPT-2 (2.7 M parameters, 8 x 64 random tokens) alternate, one with the callback and one
without, timed on the processor, which other processes disturb less than the clock on the wall. Printed are the median
of the ratios of neighbours with its quartiles; and, more exactly, the part of the steps' time that is spent in the
callback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers

from trimtab.integrations.guard import Guard
from trimtab.integrations.huggingface import TrimtabCallback as ForTrainer
from trimtab.integrations.lightning import TrimtabCallback as ForLightning

VOCABULARY, LENGTH, ROWS, FIRST = 2048, 64, 8, 5


class Times:
    """Processor seconds at the beginning of each step, and those spent in the callback until then."""

    def __init__(self) -> None:
        self.now: list[float] = []
        self.inside: list[float] = []
        self.spent = 0.0

    def step(self) -> None:
        """A step begins."""
        self.now.append(time.process_time())
        self.inside.append(self.spent)

    def whole(self) -> tuple[float, float]:
        """Seconds of all steps but the first few, and of them in the callback."""
        return self.now[-1] - self.now[FIRST], self.inside[-1] - self.inside[FIRST]

    @contextlib.contextmanager
    def count_callback(self) -> Any:
        """Every call that the callback makes is timed."""
        call = Guard.call

        def timed(guard: Guard, function: Callable[..., object], *arguments: Any, **named: Any) -> None:
            begun = time.process_time()
            call(guard, function, *arguments, **named)
            self.spent += time.process_time() - begun

        Guard.call = timed  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Guard.call = call  # type: ignore[method-assign]


def model() -> Any:
    """The model that both train."""
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=192, n_layer=5, n_head=6, bos_token_id=0, eos_token_id=0
        )
    )


def with_trainer(folder: Path, steps: int, callback: bool, times: Times) -> None:
    """Train with transformers' Trainer."""

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *arguments: Any, **named: Any) -> None:
            times.step()

    tokens = torch.randint(0, VOCABULARY, (64, LENGTH))
    arguments = transformers.TrainingArguments(
        str(folder / "out"),
        max_steps=steps,
        per_device_train_batch_size=ROWS,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    callbacks = [ForTrainer(folder / "run", report=False), Clock()] if callback else [Clock()]
    data = [{"input_ids": row, "labels": row} for row in tokens]
    transformers.Trainer(model(), arguments, train_dataset=data, callbacks=callbacks).train()


def with_lightning(folder: Path, steps: int, callback: bool, times: Times) -> None:
    """Train with Lightning."""

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model()

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.model(input_ids=batch[0], labels=batch[0]).loss
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-4)

    class Clock(lightning.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            times.step()

    tokens = torch.randint(0, VOCABULARY, (ROWS * steps, LENGTH))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tokens), batch_size=ROWS)
    lightning.Trainer(
        max_steps=steps,
        logger=False,
        callbacks=[ForLightning(folder / "run", report=False), Clock()] if callback else [Clock()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    ).fit(Module(), loader)


def main() -> None:
    """Run the pairs and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=46)
    chosen = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    for name, run in (("Trainer", with_trainer), ("Lightning", with_lightning)):
        ratios, parts = [], []
        for pair in range(chosen.pairs):
            seconds: dict[bool, float] = {}
            for callback in (pair % 2 == 0, pair % 2 == 1):
                times = Times()
                with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
                    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
                    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
                    stack.enter_context(times.count_callback())
                    run(Path(folder), chosen.steps, callback, times)
                seconds[callback], inside = times.whole()
                if callback:
                    parts.append(inside / seconds[callback])
            ratios.append(seconds[True] / seconds[False])
        low, median, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name}: a step with the callback takes {median:.3f} of one without ({low:.3f} to {high:.3f}); "
            f"{100 * statistics.median(parts):.2f} % of it is spent in the callback"
        )


if __name__ == "__main__":
    main()
