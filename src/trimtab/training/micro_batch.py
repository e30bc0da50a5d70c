"""The largest micro-batch that memory holds: found at the start by trying, and made smaller where that was too much."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch

from trimtab.data import DataPlan, Loader, Window
from trimtab.errors import ResourceError
from trimtab.events import Adjust, DecisionTaken, Event
from trimtab.optimizer import Rehearsal
from trimtab.runs import format
from trimtab.signals import Batch, Gradients, seeded
from trimtab.training.capture import capture, held
from trimtab.training.checkpoint.model_state import modules_with_extra_state
from trimtab.training.estimate import estimate
from trimtab.training.gather import gather_together
from trimtab.training.memory import MemoryMeter, first_line, free_memory, is_out_of_memory
from trimtab.training.progress import Progress
from trimtab.training.step import Step

_LOWER: Final = (
    "lower data.sequence_length or the model (model.num_layers, model.hidden_size); "
    "training.precision.name=bf16 takes less for activations"
)


def find_micro_batch(
    step: Step,
    make_batch: Callable[[int], Batch],
    batch_size: int,
    *,
    most: int,
    meter: MemoryMeter,
    budget_bytes: float | None,
    grows: bool = False,
    report: Callable[[str, float], None] = lambda what, fraction: None,
) -> dict[str, Any]:
    """The largest divisor of `batch_size`, at most `most`, whose step fits; as the entry of plan.json.

    Sizes are tried from the smallest on, each at least twice the last, then those between the largest that fitted
    and the first that did not, halving what is left. A size fits when its step, an estimate of the curvature and a real
    update included, runs out of no memory and its peak is within the budget. Where memory that is not there takes the
    whole process along, a size whose peak would be beyond the budget, by what one more sequence took so far, is not
    tried at all. Weights, state and randomness stay as they are. A batch that `grows` later has several micro-batches
    then, whose gradients are summed apart.

    Raises: ResourceError when not even one sequence fits.
    """
    sizes = [size for size in range(step.statistics.least_rows, min(batch_size, most) + 1) if batch_size % size == 0]
    budget = meter.budget() if budget_bytes is None else float(budget_bytes)
    tried: dict[int, float | str] = {}
    passes: dict[int, float] = {}
    with _rehearsal(step, meter) as (rehearse, base, apart):

        def fits(size: int) -> bool:
            largest = max(passes, default=0)
            slope = (passes[largest] - base) / largest if largest else 0.0
            foreseen = passes[largest] + slope * (size - largest) if largest else 0.0
            if not meter.is_exact and foreseen > budget:
                tried[size] = f"not tried: about {format.size(foreseen)}"
                return False
            report(f"trying micro-batches of {size}", 0.0)
            parts = math.ceil(batch_size / size) * (2 if grows else 1)
            outcome = _try(step, make_batch(size), parts, meter, rehearse)
            free_memory(step.device)
            peak = max(outcome.passes, outcome.update) - apart
            tried[size] = peak if outcome.failure is None else outcome.failure
            if outcome.failure is None:
                passes[size] = outcome.passes - apart
            return outcome.failure is None and peak <= budget

        best, too_large, at = -1, len(sizes), 0
        while at < too_large:
            if not fits(sizes[at]):
                too_large = at
                break
            best, last = at, len(sizes) - 1
            doubled = (i for i, size in enumerate(sizes) if size >= 2 * sizes[best])
            at = next(doubled, last if best < last else len(sizes))
        while best >= 0 and too_large - best > 1:
            middle = (best + too_large) // 2
            best, too_large = (middle, too_large) if fits(sizes[middle]) else (best, middle)
    if best < 0:
        least = _sequences(sizes[0])
        raise ResourceError(
            f"out of memory: {least} at a time does not fit ({_in_words(tried[sizes[0]])}), and there are "
            f"{format.size(budget)} for it (training.micro_batch_size=auto)",
            hint=_LOWER + ("" if budget_bytes is None else "; or raise training.memory_budget_bytes"),
        )
    size = sizes[best]
    larger = [n for n in tried if n > size]
    why = "the whole batch fits" if size == batch_size else f"the largest tried that fits in {format.size(budget)}"
    if size == sizes[-1] and size < batch_size:
        why = f"no more than {size} are wanted at once"
    elif larger:
        why += f"; {min(larger)}: {_in_words(tried[min(larger)])}"
    return {
        "chosen": size,
        "accumulation": batch_size // size,
        "reason": why,
        "budget_bytes": int(budget),
        "tried": {str(n): int(value) if isinstance(value, float) else value for n, value in sorted(tried.items())},
    }


@contextmanager
def _rehearsal(step: Step, meter: MemoryMeter) -> Iterator[tuple[Rehearsal, float, float]]:
    """How an update is rehearsed; the bytes in use before a pass, with the optimizer's state and the estimate of the
    curvature that is held meanwhile; and, of those in use, what the rehearsal itself holds and a run does not.

    Raises: ResourceError when memory does not suffice for an update, whatever the micro-batch.
    """
    before = meter.start()
    with step.optimizer.rehearsal() as rehearse:
        apart = max(0.0, meter.start() - before)
        try:
            with _own_randomness(step):
                rehearse(_no_gradients(step), step.settings)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                f"out of memory in the optimizer's update, whatever the micro-batch: {first_line(error)}",
                hint="take a smaller model (model.num_layers, model.hidden_size), or an optimizer of less state",
            ) from error
        free_memory(step.device)
        weights = step.optimizer.storage.weights.values()
        estimate = 0 if step.optimizer.curvature is None else sum(4 * weight.numel() for weight in weights)
        yield rehearse, meter.start() - apart + estimate, apart


@contextmanager
def _own_randomness(step: Step) -> Iterator[None]:
    with seeded(0), torch.random.fork_rng(devices=[step.device] if step.device.type == "cuda" else []):
        yield


def _sequences(number: int) -> str:
    return "one sequence" if number == 1 else f"{number} sequences"


def _in_words(outcome: float | str) -> str:
    return outcome if isinstance(outcome, str) else format.size(outcome)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a step that was tried ran into, and its highest points."""

    failure: str | None
    passes: float
    """Bytes at the highest point of forward and backward passes."""
    update: float
    """And at that of the update; both stand for what was measured until it failed."""


def _try(step: Step, batch: Batch, parts: int, meter: MemoryMeter, rehearse: Rehearsal) -> _Outcome:
    """A step with micro-batches like `batch`, estimate of the curvature and update included. It changes nothing.

    An update that is held leaves out what a real one allocates: `rehearse` does not.
    """
    keepers = modules_with_extra_state(step.model).values()
    extra = [copy.deepcopy(module.get_extra_state()) for module in keepers]
    kept = held(step)
    in_parts = parts > 1
    failure, passes, update = None, 0.0, 0.0
    curvature = step.optimizer.curvature
    step.holds.fill_(1.0)
    meter.start()
    try:
        with _own_randomness(step), nullcontext() if curvature is None else curvature.left_alone():
            step.set(share=1.0 / parts, inverse_targets=1.0, inverse_sequences=1.0)
            if curvature is not None:
                estimate(step, curvature, [batch] * (2 if in_parts else 1), 1)
            step.begin(in_parts=in_parts)
            together = in_parts and step.caches
            if together:
                gather_together(step, [batch] * parts, 1, passed=2)
            for index in range(0 if together else 2 if in_parts else 1):
                step.accumulate_program(batch.to(step.device))
                if step.parts_probe is not None and in_parts:
                    step.parts_probe.part(step.optimizer.storage.gradients, first=index == 0)
            passes = meter.peak()
            meter.start()
            step.update_program(True)
            rehearse(_no_gradients(step), step.settings)
            update = meter.peak()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failure = f"out of memory: {first_line(error)}"[:200]
    finally:
        step.begin()
        step.holds.zero_()
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)
        for module, state in zip(keepers, extra, strict=True):
            module.set_extra_state(state)
    return _Outcome(failure, passes, update)


def _no_gradients(step: Step) -> Gradients:
    """Those of an update that is held."""
    by_name, zero = step.optimizer.storage.gradients, torch.zeros((), device=step.device)
    norms_P = torch.zeros(len(by_name), device=step.device)
    return Gradients(by_name, norms_P, zero, zero + 1.0, zero + 1.0, step.optimizer.storage.weights)


@final
class Attempts:
    """Runs steps; one for which memory does not suffice is run again in smaller micro-batches, on the same data.

    The weights are as before it, because memory ran out before the update. Each micro-batch draws its random numbers
    by its number in the step, so with dropout the step that is tried again draws other masks than it would have in
    larger ones. What a module from outside wrote into buffers during the failed attempt stays there.

    `keep` is told what was chosen, to write it into plan.json, and `tell` the decision.
    """

    def __init__(
        self,
        step: Step,
        loader: Loader,
        progress: Progress,
        *,
        keep: Callable[[Mapping[str, Any]], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._step, self._loader, self._progress = step, loader, progress
        self._keep, self._tell = keep, tell
        self._recapture = False

    def run(self, number: int, micro_batches: Callable[[], int], *, ends_window: bool) -> Window:
        """Attempt update `number` on the next `micro_batches`; gives these, with all the seconds waited for them.

        Raises: ResourceError when memory ran out where nothing can be made smaller.
        """
        waited = 0.0
        while True:
            taken = self._loader.take(micro_batches())
            waited += taken.seconds_waited
            try:
                if self._recapture:
                    parts = len(taken.batches) > 1
                    self._step.captured, self._recapture = capture(self._step, taken.batches[0], in_parts=parts), False
                self._step.run(taken.batches, number, ends_window=ends_window)
                return replace(taken, seconds_waited=waited)
            except Exception as error:
                self._step.timer.abandon()
                if not is_out_of_memory(error):
                    raise
                if (refusal := self._why_not(number, taken, error)) is not None:
                    raise refusal from error
                said = first_line(error)
            # Outside of the handler: the error's traceback holds what the attempt had allocated.
            self._divide(number, said)

    def _why_not(self, number: int, taken: Window, error: BaseException) -> ResourceError | None:
        if self._step.is_keeping_estimate:
            return ResourceError(
                f"out of memory at step {number}, where the estimate of the curvature is kept, which takes four bytes "
                f"a parameter whatever the micro-batch: {first_line(error)}. Weights and state are as before the step",
                hint=f"`trimtab resume RUN` goes on from the newest checkpoint; {_LOWER}; other optimizers need no "
                "estimate",
            )
        if self._step.is_updating:
            return ResourceError(
                f"out of memory in the update of step {number}, after its gradient was complete, on "
                f"{self._in_words(taken)}. {first_line(error)}. The weights may be changed in part, so the step is not "
                "tried again",
                hint=f"`trimtab resume RUN` goes on from the newest checkpoint; {_LOWER}",
            )
        if self._smaller() is not None:
            return None
        each = _sequences(self._progress.micro_batch_size)
        return ResourceError(
            f"out of memory at step {number}, {each} at a time: {self._in_words(taken)}. {first_line(error)}",
            hint=_LOWER,
        )

    def _smaller(self) -> int | None:
        """The next smaller micro-batch; None where there is none, or its statistics would be of one text."""
        before, least = self._progress.micro_batch_size, self._step.statistics.least_rows
        return max((size for size in range(least, before // 2 + 1) if before % size == 0), default=None)

    def _in_words(self, taken: Window) -> str:
        """Which data, and of what size."""
        rows = taken.batches[0].tokens_BT.shape[0]
        longest = max(batch.tokens_BT.shape[1] for batch in taken.batches)
        samples = [int(sample) for batch in taken.batches for sample in batch.sample_ids_B]
        more = " …" if len(samples) > 8 else ""
        return (
            f"{len(taken.batches)} micro-batches of {rows} × {longest:,} tokens, samples "
            f"{', '.join(map(str, samples[:8]))}{more} from position {self._progress.position} on"
        )

    def _divide(self, number: int, said: str) -> None:
        progress, before = self._progress, self._progress.micro_batch_size
        after = self._smaller()
        assert after is not None
        self._recapture = self._recapture or self._step.captured is not None
        self._step.captured = None
        progress.micro_batch_size, progress.accumulation = after, progress.accumulation * before // after
        self._step.begin()
        self._loader.close()
        free_memory(self._step.device)
        self._loader.resize(after)
        self._loader.start(progress.position, DataPlan.from_json(progress.plan))
        reason = f"out of memory at step {number} with micro-batches of {before}: {said}"
        self._keep({"chosen": after, "accumulation": progress.accumulation, "reason": reason})
        decision, note = (
            Adjust(reason, "micro_batch_size", float(after)),
            f"accumulation is {progress.accumulation} now",
        )
        self._tell(DecisionTaken(progress.step, progress.step, "memory", decision, "taken", note))
