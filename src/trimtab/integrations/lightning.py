"""trimtab inside `lightning.Trainer`: `Trainer(..., callbacks=[TrimtabCallback("runs/mine")])`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from trimtab.integrations.facts import facts_of_model, identity
from trimtab.integrations.first_batch import parts_of, trains_in
from trimtab.integrations.first_look import FirstLook
from trimtab.integrations.guard import Guard
from trimtab.integrations.measuring import at_fetches
from trimtab.integrations.metrics import of_evaluation, of_training
from trimtab.integrations.recording import Recording, described
from trimtab.integrations.watch import EVERY, Watch

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as error:
    raise ImportError("trimtab.integrations.lightning needs lightning: pip install 'trimtab[lightning]'") from error


@final
class TrimtabCallback(Callback):
    """Writes a run directory that `trimtab doctor`, `report`, `show` and `runs` read; raises nothing.

    In a directory whose run did not end it opens a new attempt; beside a finished one it takes `<directory>-2`. The
    loss is what training_step gives, on the first rank; other metrics are those that the module logs.
    """

    def __init__(self, directory: str | Path, *, every: int = EVERY, layers: bool = True, report: bool = True) -> None:
        """`every`: steps in a window; `layers`: whether norms of each parameter are taken where a window ends."""
        super().__init__()
        self.directory = Path(directory)
        self._every, self._layers, self._report = max(1, every), layers, report
        self._guard = Guard()
        self._watch: Watch | None = None
        self._updates = 0
        self._began_evaluation: float | None = None
        self._newest_checkpoint = ""
        self._modes: list[bool | None] = []
        """Before and after the first batch of an evaluation."""
        self._first: FirstLook | None = None
        """While the first batch lasts."""
        self._ends: list[Callable[[], None]] = []
        """What takes back each change to the model or the trainer."""

    @property
    def run(self) -> Path | None:
        """The directory of the run that is written, or was written last; None before training."""
        return None if self._watch is None else self._watch.recording.run.path

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the run."""
        self._guard = Guard()
        self._guard.silent = not trainer.is_global_zero
        self._guard.on_failure = self._let_go
        self._guard.call(self._begin, trainer, pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch is there."""
        if self._watch is not None:
            self._guard.call(self._batch_came, self._watch, trainer, batch)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Gradients are whole, and not clipped yet."""
        if self._watch is not None:
            self._guard.call(self._watch.before_update, optimizer, None)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A micro-batch is over, with an update or without."""
        if self._watch is not None:
            self._guard.call(self._batch_ended, self._watch, trainer, outputs)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """An evaluation begins."""
        self._began_evaluation = time.perf_counter()

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        """The first batch of an evaluation tells whether the model trains in it."""
        if batch_idx == 0 and self._watch is not None and not trainer.sanity_checking and len(self._modes) < 2:
            self._guard.call(self._look_at_mode, self._watch, pl_module)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *given: Any) -> None:
        """So does what validation_step left."""
        self.on_validation_batch_start(trainer, pl_module, *given)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """An evaluation is over."""
        if self._watch is not None and not trainer.sanity_checking:
            self._guard.call(self._evaluated, self._watch, trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Training broke off."""
        if self._watch is not None:
            self._guard.call(self._broke_off, self._watch, exception)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Training is over, by its plan or by a callback's wish."""
        if self._watch is not None:
            self._guard.call(self._end, self._watch, trainer)

    def _begin(self, trainer: Any, module: Any) -> None:
        self._take_back()
        planned = trainer.estimated_stepping_batches
        recording = Recording.open(
            self.directory,
            "lightning",
            step=int(trainer.global_step),
            total_steps=int(planned) if math.isfinite(planned) and planned > 0 else 0,
            facts=_facts(trainer, module, planned),
            seed=int(os.environ.get("PL_GLOBAL_SEED") or torch.initial_seed() % (1 << 63)),
            report=self._report,
        )
        if trainer.world_size == 1 and trainer.global_step == 0:
            self._first = FirstLook(parts_of(module), lambda facts: self._guard.call(recording.tell_facts, facts))
            self._ends.append(self._first.end)
        self._modes = []
        self._updates = int(trainer.global_step)
        self._newest_checkpoint = _checkpoint(trainer)
        on_cpu = module.device.type != "cuda"
        self._watch = watch = Watch(recording, module, every=self._every, layers=self._layers, exact_times=on_cpu)
        self._ends.append(at_fetches(trainer.profiler, lambda: self._guard.call(watch.asks_for_data)))
        watch.paused()

    def _look_at_mode(self, watch: Watch, module: Any) -> None:
        self._modes.append(trains_in(module))
        told = True if True in self._modes else None if None in self._modes else False
        watch.recording.tell_facts({"evaluated_in_training_mode": told})

    def _batch_ended(self, watch: Watch, trainer: Any, outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if self._first is not None:
            self._first.batch_ended(loss, trainer.accumulate_grad_batches)
            self._first = None
        if isinstance(loss, Tensor):
            watch.loss(loss)
        if trainer.global_step == self._updates:
            watch.asks_for_data()
            return
        self._updates = trainer.global_step
        watch.step_ended()
        if watch.is_due:
            values = of_training(trainer.callback_metrics)
            for name, value in values.items():
                if name not in ("train/loss", "grad_norm"):
                    watch.value(name, value)
            watch.close()
            watch.paused()

    def _batch_came(self, watch: Watch, trainer: Any, batch: Any) -> None:
        if self._first is not None:
            self._first.batch_came(batch)
        self._look_for_checkpoint(watch, trainer)
        watch.data_came()

    def _look_for_checkpoint(self, watch: Watch, trainer: Any) -> None:
        name = _checkpoint(trainer)
        path = Path(name)
        if name == self._newest_checkpoint:
            return
        self._newest_checkpoint = name
        if path.exists():
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            where = os.path.relpath(path, watch.recording.run.path)
            watch.saved(where, sum(file.stat().st_size for file in files))

    def _evaluated(self, watch: Watch, trainer: Any) -> None:
        metrics = of_evaluation(trainer.callback_metrics)
        seconds = time.perf_counter() - (self._began_evaluation or time.perf_counter())
        watch.evaluated(metrics, seconds)

    def _broke_off(self, watch: Watch, exception: BaseException) -> None:
        self._take_back()
        watch.close()
        by_hand = isinstance(exception, KeyboardInterrupt | SystemExit) or "SIGTERM" in type(exception).__name__
        watch.recording.end("interrupted" if by_hand else "failed", described(exception), time_split=watch.time_split)

    def _end(self, watch: Watch, trainer: Any) -> None:
        self._take_back()
        watch.close()
        self._look_for_checkpoint(watch, trainer)
        done = trainer.global_step >= (watch.recording.started.total_steps or math.inf)
        epochs = trainer.max_epochs
        done = done or (epochs is not None and 0 <= epochs <= trainer.current_epoch)
        checkpoint = trainer.checkpoint_callback
        value = getattr(checkpoint, "best_model_score", None)
        monitored = getattr(checkpoint, "monitor", None)
        watch.recording.end(
            "finished" if done else "stopped",
            f"all {watch.step:,} steps are done" if done else "Trainer was asked to stop",
            best=(None, float(value)) if monitored and value is not None else (None, None),
            time_split=watch.time_split,
        )

    def _let_go(self) -> None:
        self._take_back()
        if self._watch is not None:
            self._watch.recording.abandon()

    def _take_back(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            end()


def _checkpoint(trainer: Any) -> str:
    """The checkpoint that was written last, by the trainer's own callback."""
    callback = trainer.checkpoint_callback
    return str(getattr(callback, "_last_checkpoint_saved", "") or getattr(callback, "best_model_path", "") or "")


def _facts(trainer: Any, module: Any, planned: float) -> dict[str, Any]:
    optimizers = trainer.optimizers
    first = optimizers[0] if optimizers else None
    group = first.param_groups[0] if first is not None else {}
    rate = group.get("initial_lr", group.get("lr"))
    batches = trainer.num_training_batches
    facts = {
        **facts_of_model(module),
        "optimizer": type(first).__name__,
        "planned_steps": int(planned) if math.isfinite(planned) and planned > 0 else None,
        "batch_size": getattr(trainer.train_dataloader, "batch_size", None),
        "accumulation": trainer.accumulate_grad_batches,
        "ranks": trainer.world_size,
        "device": str(module.device),
        "identity": identity(
            {
                "optimizer.learning_rate": float(rate) if isinstance(rate, int | float) else None,
                "optimizer.weight_decay": group.get("weight_decay"),
                "gradients.clip.threshold": trainer.gradient_clip_val,
                "training.accumulation": trainer.accumulate_grad_batches,
                "training.precision.name": _precision(str(trainer.precision)),
            }
        ),
    }
    if math.isfinite(batches) and batches > 0 and math.isfinite(planned) and planned > 0:
        facts["epochs"] = planned * trainer.accumulate_grad_batches / batches
    return facts


def _precision(name: str) -> str:
    return "bf16" if name.startswith("bf16") else "fp16" if name.startswith("16") else "fp32"
