"""One update, as two programs: `accumulate` runs once a micro-batch, `update` once a step.

Neither waits for the device, and where every part allows it both are replayed as CUDA graphs (capture.py).
The loss of a micro-batch is divided by the count of the whole step before backward, so that any split of the
same targets into micro-batches gives the same gradient. An optimizer may ask for estimates of the curvature: the steps
that make one begin with a further pass over their micro-batches, on targets drawn from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from trimtab.errors import CheckpointError
from trimtab.model.embeddings import EmbeddingTransforms
from trimtab.model.fp8 import DelayedScaling
from trimtab.objective.procedures import Plain
from trimtab.optimizer import Noise, Optimizer, WeightAverage
from trimtab.signals import (
    Batch,
    FollowingExamination,
    Gradients,
    GradientTransform,
    InlineProbe,
    ModelOutput,
    PartsProbe,
    Pass,
    Procedure,
    RememberingProbe,
    Ring,
    StepSignals,
    Task,
    set_randomness,
)
from trimtab.training.calibrate import calibrate
from trimtab.training.capture import Captured, capture
from trimtab.training.estimate import estimate
from trimtab.training.gather import gather
from trimtab.training.passes import passes_of_step
from trimtab.training.precision import Precision
from trimtab.training.sharpness import Sharpness
from trimtab.training.split import StepTimer
from trimtab.training.statistics import RunningStatistics


@final
class Step:
    """Model, task, optimizer and probes, put together into the two programs."""

    def __init__(
        self,
        *,
        model: nn.Module,
        task: Task,
        optimizer: Optimizer,
        transforms: Sequence[GradientTransform],
        probes: Sequence[InlineProbe],
        precision: Precision,
        ring: Ring,
        device: torch.device,
        seed: int,
        remembering: Sequence[RememberingProbe] = (),
        parts_probe: PartsProbe | None = None,
        average: WeightAverage | None = None,
        scaling: DelayedScaling | None = None,
        optimizers: Sequence[Callable[[], Optimizer]] = (),
        procedure: Procedure | None = None,
        sharpness: Sharpness | None = None,
        embeddings: EmbeddingTransforms | None = None,
        caches: bool = False,
    ) -> None:
        """`parts_probe`, when given, is one of `remembering`, and these of `probes`; `scaling` is that of a model in
        fp8. `optimizers` build, over the weights as they are, each of those that may train; `optimizer` is the first.
        With `caches` the objective is taken over all micro-batches together."""
        self.model, self.task, self.optimizer = model, task, optimizer
        self.transforms, self.probes = tuple(transforms), tuple(probes)
        self.remembering, self.parts_probe = tuple(remembering), parts_probe
        self.precision, self.ring, self.device, self.seed = precision, ring, device, seed
        self.average, self.scaling = average, scaling
        self._optimizers, self._optimizer = tuple(optimizers), 0
        self._names = tuple(optimizer.storage.weights)
        self._order: Tensor | None = None  # of these names in the storage in use, where that has another
        self._is_stale = False
        self._draws = any(isinstance(transform, Noise) for transform in self.transforms)

        def scalar() -> Tensor:
            return torch.zeros((), dtype=torch.float32, device=device)

        self._scalar = scalar
        self.settings: dict[str, Tensor] = {
            name: scalar()
            for name in (
                "learning_rate",
                "weight_decay",
                "clip_threshold",
                "inverse_targets",
                "inverse_sequences",
                "share",
                "loss",
                "averages",
                *sorted({group.rate_setting for group in optimizer.groups} - {"learning_rate"}),
            )
        }
        self._on_host: dict[str, float] = {}
        self.inverse = {
            "target": self.settings["inverse_targets"],
            "sequence": self.settings["inverse_sequences"],
        }
        self.procedure, self.sharpness, self.caches = Plain() if procedure is None else procedure, sharpness, caches
        self.adds = caches or self.procedure.num_backwards > 1
        if sharpness is not None:
            sharpness.prepare(list(optimizer.storage.weights.values()))
        self.passes, self.statistics = passes_of_step(self, embeddings), RunningStatistics(model)
        self._means = {name: scalar() for name in (*task.term_names, *self.procedure.term_names)}
        self._scores = {name: scalar() for name in task.score_names}
        self._signals: Tensor | None = None  # one value a signal of the model, and views of it by name
        self._signal_views: dict[str, Tensor] = {}
        self._unread = [torch.zeros(len(probe.columns), device=device) for probe in self.probes]
        self._one = torch.ones((), device=device)
        self.holds = scalar()
        """At 1.0 an update changes nothing: how a warm-up runs without being a step."""
        self.captured: Captured | None = None
        self.timer = StepTimer(device)
        self._updates_after: tuple[torch.cuda.Event, ...] = ()
        self.examinations: tuple[FollowingExamination, ...] = ()
        """What checkpoints keep of those that look at this model between steps."""
        self.at_step: list[Callable[[int], None]] = []
        """Each is called with the number of each step before it runs."""
        self.at_begun: list[Callable[[int], None]] = []
        """The same once its sums were emptied, before its first micro-batch."""
        self.is_updating = False
        """Whether `run` came to what changes weights or the optimizer's state, and is not over."""
        self.is_keeping_estimate = False
        """Whether `run` came to keeping an estimate of the curvature, and is not over."""
        self._estimated = 0

    def set(self, **settings: float) -> None:
        """Change device scalars; only those that differ are sent."""
        for name, value in settings.items():
            if self._on_host.get(name) != value:
                self._on_host[name] = value
                self.settings[name].fill_(value)

    def run(self, batches: Sequence[Batch], step: int, *, ends_window: bool = True) -> None:
        """Attempt update number `step` (counted from 1) on the micro-batches, and write its row of the ring."""
        for tell in self.at_step:
            tell(step)
        num_targets = sum(batch.count for batch in batches)
        num_sequences = sum(batch.tokens_BT.shape[0] for batch in batches)
        self.set(inverse_targets=1.0 / max(1, num_targets), inverse_sequences=1.0 / max(1, num_sequences))
        if self.average is not None:
            self.set(averages=float(step > self.average.start))
        in_parts = len(batches) > 1
        self.is_updating = self.is_keeping_estimate = False
        if self.captured is not None and (self._is_stale or self.captured.in_parts != in_parts):
            self.captured = capture(self, batches[0], in_parts=in_parts)
            self._is_stale = False
        if self.scaling is not None and not self.scaling.is_measured:
            calibrate(self, self.scaling, batches[0], step)
        curvature = self.optimizer.curvature
        if curvature is not None and curvature.is_due(step) and self._estimated != step:
            estimate(self, curvature, batches, step)
            self._estimated = step  # a step that is tried again does not count it twice
        self.statistics.begin()
        self.timer.begin(step, batches)
        self.timer.mark("optimizer" if self.captured is None else "update")
        self.begin(in_parts=in_parts)
        for tell in self.at_begun:
            tell(step)
        looks = self.parts_probe if in_parts and self.parts_probe and self.parts_probe.measures(step) else None
        if self.sharpness is None:
            gather(self, batches, step, looks)
        else:
            self.sharpness(self, batches, step, looks)
        if looks is not None:
            scaler = self.precision.scaler
            unscale = self._one if scaler is None else 1.0 / scaler.scale
            looks.whole(self.optimizer.storage.gradients, len(batches), num_sequences, unscale)
        if self._draws:
            set_randomness(self.seed, step, 0, "gradient", self.device)
        self.is_updating = True
        self.update(ends_window=ends_window)
        self.is_updating, self._estimated = False, 0
        self.statistics.end()
        self.timer.end()

    def use_optimizer(self, index: int) -> None:
        """Let optimizer number `index` train from the next update on, with a fresh state; weights and average stay.

        At a boundary alone: its storage is new, so that what was captured is captured again.
        Raises: CheckpointError when the configuration has no such optimizer.
        """
        if index == self._optimizer:
            return
        if not 0 <= index < len(self._optimizers):
            raise CheckpointError(
                f"the checkpoint was trained with optimizer {index + 1}, and the configuration has but "
                f"{max(1, len(self._optimizers))}",
                hint="put optimizer_switch, or model.unfreeze, back",
            )
        self.optimizer.storage.hand_back()
        self.optimizer, self._optimizer = self._optimizers[index](), index
        if self.average is not None:
            self.average.move(self.optimizer.storage)
        for group in self.optimizer.groups:
            self.settings.setdefault(group.rate_setting, self._scalar())
        for probe in self.remembering:
            probe.follow(self.optimizer.storage.gradients)
        names = tuple(self.optimizer.storage.weights)
        places = [names.index(name) for name in self._names]
        self._order = None if names == self._names else torch.tensor(places, device=self.device)
        self._is_stale = self.captured is not None

    @property
    def is_part(self) -> bool:
        """Whether the micro-batch under way is not all of its step."""
        return self._on_host["share"] < 1.0

    def begin(self, *, in_parts: bool = False) -> None:
        """Empty the sums of the step before; `in_parts` when several micro-batches follow."""
        self.optimizer.storage.zero_gradients(in_parts=in_parts or self.adds)
        if self.scaling is not None:
            self.scaling.begin()
        torch._foreach_zero_(self.sums)

    @property
    def sums(self) -> list[Tensor]:
        """What the micro-batches of a step add to, beside the gradient."""
        signals = () if self._signals is None else (self._signals,)
        return [self.settings["loss"], *self._means.values(), *self._scores.values(), *signals]

    def accumulate(self, batch: Batch, share: float = 1.0) -> None:
        """Forward, backward and sums of one micro-batch; `share` is its weight in the mean of model signals."""
        self.set(share=share)
        if self.captured is not None and self.captured.fits(batch):
            self.timer.mark("accumulate")
            self.captured.accumulate(batch)
        else:
            self.timer.mark("host_to_device")
            self.accumulate_program(batch.to(self.device))

    def update(self, *, ends_window: bool = True) -> None:
        """Norms, transforms, optimizer, and the row of the ring."""
        self.wait_for_readers()
        self.timer.mark("optimizer" if self.captured is None else "update")
        if self.captured is not None:
            self.captured.update(ends_window)
        else:
            self.update_program(ends_window)
        self.ring.count_row()

    def updates_after(self, events: Sequence[torch.cuda.Event]) -> None:
        """Let the device hold the next update until `events` have happened: something still reads the state."""
        self._updates_after = tuple(events)

    def wait_for_readers(self) -> None:
        """Let the device hold what follows until no one reads the weights and the state any more."""
        for event in self._updates_after:
            torch.cuda.current_stream(self.device).wait_event(event)
        self._updates_after = ()

    def accumulate_program(self, batch: Batch) -> None:
        """What `accumulate` does on the device: nothing in it may depend on a value that changes on the host."""
        if self.scaling is not None:
            self.scaling.expect(batch.tokens_BT.numel())
        found = self.procedure(self.passes, batch)
        if self.scaling is not None:
            self.scaling.collect()
        self.take(found)
        if isinstance(found.output, ModelOutput):
            self.take_signals(found.output.signals)

    def take(self, found: Pass) -> None:
        """Add what came of a pass to the sums of the step."""
        self.settings["loss"] += found.total.detach()
        for name, mean in self._means.items():
            mean += found.means[name]
        for name, score in self._scores.items():
            score += found.scores[name]

    def take_signals(self, signals: Mapping[str, Tensor]) -> None:
        """Add the model's signals, all in one: a kernel for each would be most of what they cost."""
        if not signals:
            return
        if self._signals is None:
            self._signals = torch.zeros(len(signals), device=self.device)
            self._signal_views = dict(zip(signals, self._signals.unbind(), strict=True))
        values = torch.stack([signals[name].detach().float() for name in self._signal_views])
        self._signals.addcmul_(values, self.settings["share"])

    @torch.no_grad()
    def update_program(self, ends_window: bool) -> None:
        """What `update` does on the device."""
        storage, scaler = self.optimizer.storage, self.precision.scaler
        norms_P = torch.stack(torch._foreach_norm(list(storage.gradients.values()), 2.0, torch.float32))
        unscale = self._one
        if scaler is not None:
            unscale = 1.0 / scaler.scale
            norms_P = norms_P * unscale
        gradients = Gradients(
            by_name=storage.gradients,
            norms_P=norms_P,
            total_norm=torch.linalg.vector_norm(norms_P),
            scale=unscale,
            skip=self.holds.clone(),
            weights=storage.weights,
            unscale=unscale,
        )
        for transform in self.transforms:
            transform.apply(gradients, self.settings)
        self.optimizer.update(gradients, self.settings)
        if self.parts_probe is not None:
            self.parts_probe.settle(gradients.skip)
        if self.average is not None:
            self.average.update(gradients.skip, self.settings["averages"])
        self.statistics.settle(gradients.skip)
        if self.scaling is not None:
            self.scaling.update(gradients.skip)
        self.timer.mark("probe")
        self._write_row(gradients, ends_window)
        if scaler is not None:
            # An outlying step is skipped, too, and says nothing of the loss scale.
            finite = torch.isfinite(gradients.total_norm) & torch.isfinite(self.settings["loss"])
            scaler.update((~finite).to(gradients.skip.dtype))

    def _write_row(self, gradients: Gradients, ends_window: bool) -> None:
        row = [self.settings["loss"]]
        if len(self._means) > 1:
            row += self._means.values()
        row += [score * self.settings["inverse_targets"] for score in self._scores.values()]
        row += [gradients.total_norm, gradients.skip]
        if self.precision.scaler is not None:
            row.append(self.precision.scaler.scale)
        weights = self.optimizer.storage.weights
        if self._order is not None:  # the columns keep their names
            clipped_P = None if gradients.clipped_P is None else gradients.clipped_P[self._order]
            gradients = replace(gradients, norms_P=gradients.norms_P[self._order], clipped_P=clipped_P)
            weights = {name: weights[name] for name in self._names}
        signals = StepSignals(gradients, weights, self._signal_views)
        for probe, unread in zip(self.probes, self._unread, strict=True):
            row.append(probe.read(signals) if ends_window or not probe.only_at_window_end else unread)
        self.ring.write(row)
