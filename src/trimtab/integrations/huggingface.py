"""trimtab inside `transformers.Trainer`: `Trainer(..., callbacks=[TrimtabCallback("runs/mine")])`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from trimtab.integrations.facts import classes_of_model, facts_of_model, identity
from trimtab.integrations.first_batch import trains_in, watch_first_batch
from trimtab.integrations.guard import Guard
from trimtab.integrations.metrics import of_evaluation, of_training
from trimtab.integrations.recording import Recording
from trimtab.integrations.watch import EVERY, Watch

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "trimtab.integrations.huggingface needs transformers: pip install 'trimtab[huggingface]'"
    ) from error

_NEAR: Final = 0.01
"""Relative difference up to which the loss that was seen and the one that was logged are the same."""


@final
class TrimtabCallback(TrainerCallback):
    """Writes a run directory that `trimtab doctor`, `report`, `show` and `runs` read; raises nothing.

    In a directory whose run did not end it opens a new attempt; beside a finished one it takes `<directory>-2`.

    The loss of each step is that of the model's output, in training mode. It is compared with what Trainer logs; where
    Trainer's loss is another (its own compute_loss, several devices, label smoothing), the logged mean is kept alone.
    """

    def __init__(self, directory: str | Path, *, every: int = EVERY, layers: bool = True, report: bool = True) -> None:
        """`every`: steps in a window; `layers`: whether norms of each parameter are taken where a window ends."""
        self.directory = Path(directory)
        self._every, self._layers, self._report = max(1, every), layers, report
        self._guard = Guard()
        self._watch: Watch | None = None
        self._hook: Any = None
        self._first: Any = None
        self._evaluates = False
        self._mode: bool | None = None
        self._averages = False
        self._clip: float | None = None

    @property
    def run(self) -> Path | None:
        """The directory of the run that is written, or was written last; None before training."""
        return None if self._watch is None else self._watch.recording.run.path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the run."""
        self._guard = Guard()
        self._guard.silent = not state.is_world_process_zero
        self._guard.on_failure = self._let_go
        self._guard.call(self._begin, args, state, kwargs)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A batch is there."""
        if self._watch is not None:
            self._guard.call(self._watch.data_came)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Gradients are whole, and clipped."""
        if self._watch is not None:
            self._guard.call(self._watch.before_update, kwargs.get("optimizer"), self._clip)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The update was made."""
        self._evaluates = bool(control.should_evaluate)
        if self._watch is not None:
            self._guard.call(self._watch.step_ended, closes=bool(control.should_log), averaged=self._averages)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation may follow here, too."""
        self._evaluates = bool(control.should_evaluate)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Trainer logs means over the steps since it last did."""
        if self._watch is not None and logs:
            self._guard.call(self._logged, self._watch, dict(logs))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """An evaluation is over."""
        self._evaluates = False
        if self._watch is not None and metrics:
            self._guard.call(self._evaluated, self._watch, dict(metrics))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint is on the disk."""
        if self._watch is not None:
            self._guard.call(self._saved, self._watch, Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training is over, by its plan or by a callback's wish."""
        if self._watch is not None:
            self._guard.call(self._end, self._watch, args, state)
        self._remove_hook()

    def _begin(self, args: Any, state: Any, kwargs: Any) -> None:
        self._remove_hook()  # of a training that raised, of which Trainer tells nothing
        self._evaluates, self._mode = False, None
        model: nn.Module = kwargs["model"]
        self._clip = float(args.max_grad_norm) if args.max_grad_norm and args.max_grad_norm > 0 else None
        recording = Recording.open(
            self.directory,
            "huggingface",
            step=int(state.global_step),
            total_steps=int(state.max_steps),
            facts=_facts(args, state, kwargs),
            seed=int(args.seed),
            report=self._report,
        )
        every = self._every
        self._watch = Watch(recording, model, every=every, layers=self._layers, exact_times=True)
        alone = args.world_size == 1 and args.n_gpu <= 1
        alone = alone and not args.torch_compile and model._compiled_call_impl is None
        if alone and state.global_step == 0:
            self._first = watch_first_batch([model], lambda facts: self._guard.call(_tell, recording, model, facts))
        if alone and not args.label_smoothing_factor:
            self._watch.unverified = []
            self._hook = model.register_forward_hook(self._saw, with_kwargs=True)
        self._watch.paused()

    def _saw(self, module: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
        if self._watch is None or self._guard.silent:
            return
        if self._evaluates and not torch.is_grad_enabled():
            self._evaluates = False
            if self._mode != (mode := trains_in(module)):
                self._mode = mode
                self._guard.call(self._watch.recording.tell_facts, {"evaluated_in_training_mode": self._mode})
        if not module.training or not torch.is_grad_enabled():
            return
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if isinstance(loss, Tensor):
            # Trainer hands down how many items are in the whole step where the model divides by it.
            self._averages = named.get("num_items_in_batch") is None
            self._guard.call(self._watch.loss, loss)

    def _logged(self, watch: Watch, logs: dict[str, Any]) -> None:
        if "train_runtime" in logs:
            return
        values = of_training(logs)
        mean = values.pop("train/loss", None)
        for name, value in values.items():
            watch.value(name, value)
        if mean is not None and self._hook is None:
            watch.value("train/loss", mean)
        if mean is None:  # of an evaluation, or the user's own: the steps since the last mean are still to be compared
            watch.close()
            return
        seen = watch.take_losses()
        if self._hook is not None and seen and all(map(math.isfinite, seen)):
            ours = sum(seen) / len(seen)
            if abs(ours - mean) > _NEAR * max(abs(mean), 0.01):
                self._remove_hook()
                watch.take_losses_back(mean)
            watch.unverified = None
        watch.paused()

    def _evaluated(self, watch: Watch, metrics: dict[str, Any]) -> None:
        seconds = next((value for name, value in metrics.items() if name.endswith("_runtime")), 0.0)
        watch.evaluated(of_evaluation(metrics), float(seconds))

    def _saved(self, watch: Watch, folder: Path) -> None:
        if folder.is_dir():
            num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            watch.saved(os.path.relpath(folder, watch.recording.run.path), num_bytes)

    def _end(self, watch: Watch, args: Any, state: Any) -> None:
        watch.close()
        done = state.global_step >= state.max_steps
        best = (getattr(state, "best_global_step", None), state.best_metric)
        watch.recording.end(
            "finished" if done else "stopped",
            f"all {state.max_steps} steps are done" if done else "Trainer was asked to stop",
            best=best if all(value is not None for value in best) else (None, None),
            time_split=watch.time_split,
        )

    def _let_go(self) -> None:
        self._remove_hook()
        if self._watch is not None:
            self._watch.recording.abandon()

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self._first is not None:
            self._first()
            self._first = None


def _tell(recording: Recording, model: nn.Module, found: Mapping[str, Any]) -> None:
    """The first batch; that classes are not one of so many shows by then: transformers tells it by the labels."""
    facts: dict[str, Any] = {"first_batch": found}
    if "num_classes" in recording.started.facts and not classes_of_model(model):
        facts["num_classes"] = None
    recording.tell_facts(facts)


def _facts(args: Any, state: Any, kwargs: Any) -> dict[str, Any]:
    model: nn.Module = kwargs["model"]
    optimizer = kwargs.get("optimizer")
    optimizer = getattr(optimizer, "optimizer", optimizer)
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps_an_epoch = _length(kwargs.get("train_dataloader"))
    facts = {
        **facts_of_model(model),
        "optimizer": type(optimizer).__name__,
        "schedule": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "planned_steps": int(state.max_steps),
        "batch_size": batch,
        "accumulation": args.gradient_accumulation_steps,
        "ranks": args.world_size,
        "device": str(args.device),
        "logging_steps": state.logging_steps,
        "identity": identity(
            {
                "optimizer.learning_rate": args.learning_rate,
                "optimizer.weight_decay": args.weight_decay,
                "gradients.clip.threshold": args.max_grad_norm or None,
                "training.accumulation": args.gradient_accumulation_steps,
                "training.precision.name": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
                "objective.label_smoothing": args.label_smoothing_factor or None,
                "seed": args.seed,
            }
        ),
    }
    if steps_an_epoch:
        facts["epochs"] = state.max_steps * args.gradient_accumulation_steps / steps_an_epoch
    return facts


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
