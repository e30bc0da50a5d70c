"""A loop with all that it needs, on a tiny real model over random tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab.config import DecoderConfig, Fp32
from trimtab.data import Loader, Order, PackedSequences
from trimtab.events import (
    ArtifactLogged,
    Decision,
    EvaluationEnded,
    Event,
    RunEnded,
    RunStarted,
    StepsEnded,
)
from trimtab.model import build_model, set_dropout_factor
from trimtab.monitor.probes import GradientCosine, GradientNoiseScale, WeightNorms
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy
from trimtab.optimizer import AdamW, clip_by_norm, parameter_groups, skip_non_finite
from trimtab.runs import Recorder, RunDirectory
from trimtab.schedules import Constant
from trimtab.signals import Ring
from trimtab.training import (
    Adjustments,
    Calendar,
    Keeper,
    Loop,
    Precision,
    Progress,
    Requests,
    Settings,
    Step,
    Windows,
    columns_of_step,
)
from trimtab.training.alerts import StepAlerts
from trimtab.training.checkpoint.clock import SaveClock
from trimtab.training.step_data import StepData

VOCABULARY, LENGTH = 31, 8


class Scripted:
    """Answers events as a table says: (kind of event, its step) -> decision."""

    name = "scripted"

    def __init__(self, answers: Mapping[tuple[type, int], Decision], name: str = "scripted") -> None:
        self.answers = dict(answers)
        self.name = name
        self.seen: list[Event] = []

    def decide(self, event: Event) -> Decision | None:
        self.seen.append(event)
        step = event.last_step if isinstance(event, StepsEnded) else event.step
        return self.answers.pop((type(event), step), None)

    def state(self) -> dict[str, Any]:
        return {"left": len(self.answers)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


class Watch:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Rig:
    """All that a loop needs, over random tokens."""

    folder: Path
    controllers: Sequence[Any] = ()
    steps: int = 12
    log_every: int = 4
    evaluate_every: int = 6
    save_every: int = 6
    accumulation: int = 1
    precision: Any = field(default_factory=Fp32)
    watch: Watch = field(default_factory=Watch)
    evaluate: Callable[[int], tuple[EvaluationEnded, Sequence[ArtifactLogged]]] | None = None
    synchronize: Callable[[], None] = lambda: None
    heartbeat: Callable[[int], None] = lambda micro_batches: None
    layers: bool = False
    noise_every: int = 0
    cosine: bool = False
    in_background: bool = True
    failure_stops: bool = True
    clock: SaveClock = field(default_factory=SaveClock)
    frozen: tuple[str, ...] = ()
    differential: bool = False
    keep_latest: int = 10
    tokens: np.ndarray[Any, Any] | None = None
    """Read in their order; random ones, shuffled, if not given."""
    transforms: Sequence[Any] = ()
    """Further ones, before those that clip and skip."""

    def build(self) -> Loop:
        tokens = self.tokens
        if tokens is None:
            tokens = np.random.default_rng(0).integers(0, VOCABULARY, 4000)
        sequences = PackedSequences(tokens.astype(np.uint16), np.array([0]), LENGTH, num_bytes=len(tokens))
        config = DecoderConfig.model_validate(
            {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": 0.2}}
        )
        self.model = build_model(config, vocabulary_size=VOCABULARY, sequence_length=LENGTH, seed=1)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen or ("-",)))
        device = torch.device("cpu")
        task = CausalLanguageModelingTask(CrossEntropy())
        precision = Precision(self.precision, device)
        optimizer = AdamW(parameter_groups(self.model, 0.1))
        probes = [WeightNorms(list(optimizer.storage.weights))] if self.layers else []
        noise_scale = GradientNoiseScale(self.noise_every, 5, device) if self.noise_every else None
        remembering: list[Any] = [noise_scale] if noise_scale else []
        remembering += [GradientCosine(optimizer.storage.gradients, 5)] if self.cosine else []
        probes = [*probes, *remembering]
        columns = columns_of_step(task.term_names, scaled=precision.scaler is not None)
        ring = Ring([*columns, *(name for probe in probes for name in probe.columns)], self.log_every, device)
        step = Step(
            model=self.model,
            task=task,
            optimizer=optimizer,
            transforms=[*self.transforms, clip_by_norm(), skip_non_finite()],
            probes=probes,
            precision=precision,
            ring=ring,
            device=device,
            seed=5,
            remembering=remembering,
            parts_probe=noise_scale,
        )
        windows = Windows(ring, lambda: 0.0)
        progress = Progress(accumulation=self.accumulation, micro_batch_size=2)
        self.run = RunDirectory(self.folder)
        self.folder.mkdir(exist_ok=True)
        self.keeper = Keeper(
            self.run,
            step=step,
            windows=windows,
            progress=progress,
            controllers=self.controllers,
            keep_latest=self.keep_latest,
            differential=self.differential,
            keep_best=1,
            metric="validation/loss",
            better="lower",
            description={},
            failure_stops=self.failure_stops,
            clock=self.clock,
        )
        self.resumed_from = self.keeper.resume()
        attempts = self.run.attempts()
        progress.attempt, progress.branch = len(attempts) + 1, len(attempts)
        self.recorder = Recorder.open(self.run, branch=progress.branch)
        order = Order(len(sequences), seed=2, shuffle=self.tokens is None)
        self.loader = Loader(sequences, order, 2, prefetch=2)
        self.adjusted: list[tuple[str, float]] = []

        def set_dropout(factor: float) -> None:
            self.adjusted.append(("dropout", factor))
            set_dropout_factor(self.model, factor)

        adjustments = Adjustments(progress, {"dropout": set_dropout}, {"z_loss": "objective.z_loss is 0"})
        adjustments.restore()
        return Loop(
            step=step,
            loader=self.loader,
            windows=windows,
            calendar=Calendar(self.steps, self.log_every, self.evaluate_every, self.save_every),
            settings=[Settings(Constant(), learning_rate=1e-2, clip_threshold=1.0)],
            progress=progress,
            controllers=self.controllers,
            monitors=[self.watch],
            recorder=self.recorder,
            evaluate=self.evaluate or (lambda step: (EvaluationEnded(step, {"validation/loss": 5.0 - step}, 0.0), ())),
            checkpoints=self.keeper,
            requests=Requests(self.folder, self.clock),
            selection_metric="validation/loss",
            restore_best=False,
            adjustments=adjustments,
            heartbeat=self.heartbeat,
            saves_in_background=self.in_background,
            synchronize=self.synchronize,
            data_of=StepData(progress, order).of_decision,
            alerts=StepAlerts(StepData(progress, order).of_steps).of,
        )

    def go(self) -> RunEnded:
        loop = self.build()
        self.loop = loop
        progress = loop.progress
        started = RunStarted(progress.step, progress.attempt, progress.branch, self.resumed_from, self.steps)
        try:
            return loop.run(started)
        finally:
            self.loader.close()
            self.keeper.close()
            self.recorder.close()

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])
