"""What a run will cost on a device: time, memory, utilization and energy, from counted work and ceilings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, final

from trimtab.config import Config, HuggingFaceConfig
from trimtab.planning.counts import Measured, ModelCounts, count_model
from trimtab.planning.devices import Device
from trimtab.planning.memory import USABLE, memory_of
from trimtab.planning.settings import COMPILE_PAYS_AFTER_SECONDS, Ways, ways_of
from trimtab.planning.work import Work, extra_passes, gaps, micro_batch_work, scaled, update_work
from trimtab.schedules import build_stairs

MFU_NOTE = "training counted as 6 N + 12 L H K T a token, against the data sheet's peak"


@final
@dataclass(frozen=True, slots=True)
class Prediction:
    """One configuration on one device."""

    device: Device
    ways: Ways
    counts: ModelCounts
    micro_batch_size: int
    accumulation: int
    steps: int
    multiple: float
    """How often the accumulation of the first step fits into that of the mean one."""
    parts: tuple[Work, ...]
    """Of a step, the longest first."""
    memory: dict[str, float]
    flops_per_step: float
    """As utilization counts them."""
    left_out: tuple[str, ...] = ()
    """What the configuration costs besides, and is in none of the numbers."""

    @property
    def step_seconds(self) -> float:
        """Of a mean step."""
        return sum(part.seconds for part in self.parts)

    @property
    def ceiling_seconds(self) -> float:
        """What a step would take at the device's ceilings."""
        return sum(part.ceiling_seconds for part in self.parts)

    @property
    def tokens_per_step(self) -> float:
        """Positions, where every sequence is full."""
        return self.micro_batch_size * self.accumulation * self.multiple * self.counts.tokens

    @property
    def tokens_per_second(self) -> float:
        """Of training, without evaluations and saves."""
        return self.tokens_per_step / self.step_seconds

    @property
    def utilization(self) -> float:
        """Model FLOPs utilization: see `MFU_NOTE`."""
        return self.flops_per_step / self.step_seconds / self.device.peak[self.ways.precision]

    @property
    def memory_bytes(self) -> float:
        """Allocated at the highest point."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether that is within what a device's memory leaves for it."""
        return self.memory_bytes <= USABLE * self.device.memory_bytes

    @property
    def training_seconds(self) -> float:
        """Of all steps, without evaluations and saves."""
        return self.steps * self.step_seconds

    @property
    def training_interval(self) -> tuple[float, float]:
        """Where that is expected to lie: by how far predictions for the device were off, and by what else it does."""
        off = self.device.spread
        return self.training_seconds * (1 - off), self.training_seconds * (1 + off) * self.device.company

    @property
    def kilowatt_hours(self) -> float | None:
        """At the most that the board draws."""
        watts = self.device.watts
        return None if watts is None else watts * self.training_seconds / 3.6e6

    def to_json(self) -> dict[str, Any]:
        """As JSON values, in seconds, bytes and operations."""
        return {
            "device": asdict(self.device),
            "ways": asdict(self.ways),
            "parameters": {"total": self.counts.total_parameters, "groups": self.counts.parameters},
            "micro_batch_size": self.micro_batch_size,
            "accumulation": self.accumulation,
            "sequence_length": self.counts.tokens,
            "steps": self.steps,
            "tokens_per_step": self.tokens_per_step,
            "step_seconds": self.step_seconds,
            "ceiling_seconds": self.ceiling_seconds,
            "tokens_per_second": self.tokens_per_second,
            "flops_per_step": self.flops_per_step,
            "mfu": self.utilization,
            "parts": [asdict(part) for part in self.parts],
            "memory": {**self.memory, "total": self.memory_bytes},
            "fits": self.fits,
            "left_out": list(self.left_out),
            "training_seconds": self.training_seconds,
            "training_interval": list(self.training_interval),
            "kilowatt_hours": self.kilowatt_hours,
        }


def predict(
    config: Config,
    device: Device,
    *,
    compiled: bool | None = None,
    micro_batch_size: int | None = None,
    counts: ModelCounts | None = None,
) -> Prediction:
    """What `config` costs on `device`; with micro_batch_size=auto in the largest micro-batch that fits.

    `compiled` and `micro_batch_size` are what auto came to in a run, where that is known; `counts` what the model was
    measured to be, which those that are no transformers of ours need.
    Raises: UsageError for a model from outside; ConfigError for a precision that the device does not have.
    """
    counts = count_model(config) if counts is None else counts
    if micro_batch_size is None and config.split is not None:
        micro_batch_size = config.split.micro_batch_size
    if micro_batch_size is not None:
        return _least(config, device, counts, micro_batch_size, compiled)
    batch = config.sequences_per_step
    sizes = [size for size in range(batch, 0, -1) if batch % size == 0]
    for size in sizes:
        found = _predicted(config, device, counts, size, compiled)
        if found.fits:
            break
    return found if found.fits else _least(config, device, counts, sizes[-1], compiled)


def that_fits(config: Config, prediction: Prediction) -> Prediction | None:
    """The same batch in the largest smaller micro-batches that fit; None where none does."""
    whole = prediction.micro_batch_size * prediction.accumulation
    for size in range(prediction.micro_batch_size - 1, 0, -1):
        if whole % size == 0:
            found = _predicted(config, prediction.device, prediction.counts, size, prediction.ways.compiled)
            if found.fits:
                return found
    return None


def _least(
    config: Config, device: Device, counts: ModelCounts, micro_batch_size: int, compiled: bool | None
) -> Prediction:
    """With training.recompute=auto in the least with which this micro-batch fits, as training finds it."""
    modes: tuple[Literal["none", "selective", "full"], ...] = ("none", "selective", "full")
    if isinstance(counts.shape, Measured):
        modes = ("none", "full")
    for how in modes if config.training.recompute == "auto" else modes[:1]:
        found = _predicted(config, device, counts, micro_batch_size, compiled, how)
        if found.fits:
            break
    return found


def _predicted(
    config: Config,
    device: Device,
    counts: ModelCounts,
    micro_batch_size: int,
    compiled: bool | None,
    recompute: Literal["none", "selective", "full"] = "none",
) -> Prediction:
    ways = partial(ways_of, config, device, recompute=recompute)
    if compiled is None:
        eager = _with_ways(config, device, counts, micro_batch_size, ways(compiled=False))
        # On a processor training measures whether compiled code is faster, which is not foreseen here.
        compiled = device.kind == "cuda" and eager.training_seconds >= COMPILE_PAYS_AFTER_SECONDS[device.kind]
    return _with_ways(config, device, counts, micro_batch_size, ways(compiled=compiled))


def _with_ways(config: Config, device: Device, counts: ModelCounts, micro_batch_size: int, ways: Ways) -> Prediction:
    training = config.training
    accumulation = config.sequences_per_step // micro_batch_size
    multiple = build_stairs(training.accumulation_schedule, training.steps).mean(training.steps)
    repeats = accumulation * multiple
    works = scaled(micro_batch_work(counts, device, ways, micro_batch_size), repeats * (1.0 + extra_passes(config)))
    works.append(update_work(config, counts, device, ways, accumulation))
    works += gaps(works, device, ways)
    return Prediction(
        device=device,
        ways=ways,
        counts=counts,
        micro_batch_size=micro_batch_size,
        accumulation=accumulation,
        steps=training.steps,
        multiple=multiple,
        parts=tuple(sorted(_merged(works), key=lambda work: -work.seconds)),
        memory=memory_of(config, counts, ways, micro_batch_size, accumulation),
        flops_per_step=counts.training_flops(square=True) * micro_batch_size * repeats,
        left_out=_left_out(config),
    )


def _left_out(config: Config) -> tuple[str, ...]:
    # Its size stands in a run or a folder that need not be there yet.
    teacher = getattr(config.objective, "distillation", None)
    found = ["the teacher of objective.distillation: its forward passes and its weights"] if teacher is not None else []
    if isinstance(config.model, HuggingFaceConfig) and config.model.lora is not None:
        found.append("model.lora: what is saved where weights take no gradient, and what the updates cost")
    return tuple(found)


def _merged(works: list[Work]) -> list[Work]:
    """One for each part, without those that take no time."""
    by_part: dict[str, list[Work]] = defaultdict(list)
    for work in works:
        by_part[work.part].append(work)
    found = []
    for part, some in by_part.items():
        fields = (
            sum(getattr(one, name) for one in some)
            for name in ("flops", "bytes", "kernels", "seconds", "ceiling_seconds")
        )
        found.append(Work(part, *fields))
    return [work for work in found if work.seconds > 0]
