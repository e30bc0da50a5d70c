"""Profiles of some steps: the trace of torch's profiler, and what is made of it, under artifacts/profiles/.

Which steps: those of profile.steps, and those that a file PROFILE in the run asks for, which may say how many. What a
profile costs beside the steps is booked apart; the profiled steps themselves are slower. Nothing that it does changes
what is trained, and where it fails the run goes on.
"""

from __future__ import annotations

import gzip
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, final

import orjson
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from trimtab.config import ProfileConfig
from trimtab.config.profile import MOST_STEPS, bounds
from trimtab.errors import StorageError
from trimtab.events import AlertRaised, ArtifactLogged, Event
from trimtab.runs import RunDirectory
from trimtab.runs.files import write_json, write_text
from trimtab.runs.profiles import FOLDER, MEMORY, PROFILE, SUMMARY, TABLE, TRACE, bottleneck, operators_table
from trimtab.runs.trace import memory_of_trace, read_trace
from trimtab.training.progress import Progress
from trimtab.training.step import Step

REQUEST: Final = "PROFILE"
_ASKED_STEPS: Final = 5
"""Where a request does not say."""
_PARTIAL: Final = ".partial"


class Counters(Protocol):
    """Performance counters of the device, over a stretch of time."""

    def begin(self) -> str:
        """Begin; gives "", or why there will be none."""
        ...

    def end(self) -> tuple[Mapping[str, float], str]:
        """Values since `begin`, and a line where some are missing."""
        ...


@final
class StepProfiler:
    """Looks into the steps that were asked for, one stretch after the other."""

    def __init__(
        self, config: ProfileConfig, run: RunDirectory, step: Step, progress: Progress, counters: Counters | None
    ) -> None:
        self._config, self._run, self._step, self._progress = config, run, step, progress
        self._counters = counters
        self._planned = None if config.steps is None else bounds(config.steps)
        self._request = run.path / REQUEST
        self._last: int | None = None
        self._events: list[Event] = []
        self._profile: Any = None
        self._first = self._steps = 0
        self._notes: list[str] = []
        self._held: dict[str, int] = {}
        self._pointers: tuple[int, ...] = ()
        self._begun = 0.0
        self._spent: dict[str, float] = {}

    def before(self, step: int) -> float:
        """Begin where `step` is the first of a stretch; gives the seconds that it took."""
        if self._profile is not None:
            return 0.0
        last = self._due(step)
        if last is None:
            return 0.0
        begun = time.perf_counter()
        with self._harmless(step):
            self._start(step, last)
        return self._book(begun)

    def after(self, step: int) -> float:
        """End where `step` was the last; gives the seconds that it took."""
        if self._profile is None or self._last is None:
            return 0.0
        self._steps += 1
        if step < self._last:
            return 0.0
        begun = time.perf_counter()
        with self._harmless(step):
            self._finish(step)
        return self._book(begun)

    def events(self) -> list[Event]:
        """What is to be told of profiles that are complete, once."""
        told, self._events = self._events, []
        return told

    def close(self) -> None:
        """A stretch that was cut off is not written."""
        self._stop()

    def _due(self, step: int) -> int | None:
        """The last step of the stretch that begins with `step`, if one does."""
        if self._planned is not None and self._planned[0] <= step <= self._planned[1]:
            planned, self._planned = self._planned, None
            return planned[1]
        if not self._request.is_file():
            return None
        steps = _ASKED_STEPS
        with suppress(OSError, ValueError):
            steps = min(MOST_STEPS, max(1, int(self._request.read_text() or _ASKED_STEPS)))
        with suppress(OSError):
            self._request.unlink(missing_ok=True)
            return step + steps - 1
        return None

    def _start(self, step: int, last: int) -> None:
        device = self._step.device
        self._first, self._last, self._steps, self._notes = step, last, 0, []
        # Else it writes lines of its own to the standard error.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        if self._step.captured is not None:
            # CUPTI that is torn down and begun anew may crash replays: as torch itself does for graphs of its compiler,
            # https://github.com/pytorch/pytorch/issues/75504
            os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
            os.environ.setdefault("TEARDOWN_CUPTI", "0")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._wait()
        self._held = self._held_bytes()
        self._pointers = self._gradient_pointers()
        follower = profile(activities=activities, profile_memory=self._config.memory, acc_events=True)
        follower.start()
        self._profile, self._step.timer.annotates = follower, True
        if self._counters is not None and (why := self._counters.begin()):
            self._notes.append(why)
        self._begun, self._spent = time.perf_counter(), dict(self._progress.seconds)

    def _finish(self, step: int) -> None:
        self._wait()
        elapsed = time.perf_counter() - self._begun
        counters: Mapping[str, float] = {}
        if self._counters is not None:
            counters, why = self._counters.end()
            self._notes += [why] if why else []
        follower = self._stop()
        # Where the run went back meanwhile, these did, too.
        now = self._progress.seconds.items()
        spent = {name: max(0.0, value - self._spent.get(name, 0.0)) for name, value in now}
        beside = sum(value for name, value in spent.items() if name not in ("training", "data", "profile"))
        folder = self._run.artifacts / FOLDER / f"step-{self._first:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        events = _write_trace(follower, folder)
        summary = self._summary(events, step, max(0.0, elapsed - beside), spent.get("data", 0.0), counters)
        if memory := summary.pop("memory_in_full", None):
            write_json(folder / MEMORY, memory)
        write_text(folder / TABLE, operators_table(summary["operators"], summary["step_seconds"]) + "\n")
        write_json(folder / SUMMARY, summary)
        where = folder.relative_to(self._run.path).as_posix()
        told = f"steps {self._first} to {step}: {summary['bottleneck']['text']}"
        self._events.append(ArtifactLogged(step, "text", PROFILE, told, f"{where}/{SUMMARY}"))

    def _summary(
        self,
        events: list[dict[str, Any]],
        last_step: int,
        seconds: float,
        waited: float,
        counters: Mapping[str, float],
    ) -> dict[str, Any]:
        found = read_trace(events)
        num_steps = self._steps  # more than the numbers say, where the run went back meanwhile
        step_seconds = seconds / num_steps
        parts = {"data": waited / num_steps} | {name: value / num_steps for name, value in found.parts.items()}
        parts["other"] = max(0.0, step_seconds - sum(parts.values()))
        kinds = {name: value / num_steps for name, value in found.kinds.items()}
        memory = self._memory(events) if self._config.memory else {}
        notes = list(self._notes)
        if self._step.captured is not None:
            notes.append("the step is captured: its graphs have parts accumulate and update, and allocate nothing")
        return {
            "first_step": self._first,
            "last_step": last_step,
            "num_steps": num_steps,
            "device": self._step.device.type,
            "step_seconds": step_seconds,
            "parts": parts,
            "busy_seconds": found.busy_seconds / num_steps,
            "kinds": kinds,
            "operators": [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "calls": one.calls / num_steps,
                    "seconds": one.seconds / num_steps,
                }
                for one in found.operators[: self._config.operators]
            ],
            "counters": dict(counters),
            "memory": {name: memory[name] for name in ("peak_bytes", "part", "categories")} if memory else None,
            "notes": notes,
            "bottleneck": bottleneck(
                step_seconds=step_seconds,
                parts=parts,
                busy_seconds=found.busy_seconds / num_steps,
                kinds=kinds,
                calls=found.calls / num_steps,
                on_device=found.on_device,
            ),
            "memory_in_full": memory,
        }

    def _memory(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        on_device = self._step.device.type == "cuda"
        moved = self._gradient_pointers() != self._pointers
        return memory_of_trace(events, self._held, device_type=int(on_device), gradients_move=moved)

    def _held_bytes(self) -> dict[str, int]:
        """What is in use between steps, by category; a storage that several share counts for the first."""
        step, seen = self._step, set[int]()

        def new(tensors: Iterable[Tensor]) -> int:
            total = 0
            for tensor in tensors:
                storage = tensor.untyped_storage()
                if tensor.device.type == step.device.type and storage.data_ptr() not in seen:
                    seen.add(storage.data_ptr())
                    total += storage.nbytes()
            return total

        storage = step.optimizer.storage
        held = {
            "weights": new([*step.model.parameters(), *step.model.buffers(), *storage.weights.values()]),
            "gradients": new(storage.gradients.values()),
            "optimizer": new(t for slots in step.optimizer.state_by_name().values() for t in slots.values()),
        }
        if step.average is not None:
            held["averages"] = new(step.average.tensors().values())
        if step.device.type == "cuda":
            rest = max(0, torch.cuda.memory_allocated(step.device) - sum(held.values()))
            held["other" if step.captured is None else "graphs"] = rest
        return held

    def _gradient_pointers(self) -> tuple[int, ...]:
        return tuple(gradient.data_ptr() for gradient in self._step.optimizer.storage.gradients.values())

    def _wait(self) -> None:
        if self._step.device.type == "cuda":
            torch.cuda.synchronize(self._step.device)

    def _stop(self) -> Any:
        follower, self._profile, self._last = self._profile, None, None
        self._step.timer.annotates = False
        if follower is not None:
            follower.stop()
        return follower

    def _book(self, begun: float) -> float:
        seconds = time.perf_counter() - begun
        self._progress.spend("profile", seconds)
        return seconds

    @contextmanager
    def _harmless(self, step: int) -> Iterator[None]:
        """Within it an error ends the profile, and not the run."""
        try:
            yield
        except Exception as error:
            self._failed(step, error)

    def _failed(self, step: int, error: Exception) -> None:
        with suppress(Exception):
            self._stop()
        text = f"the profile from step {self._first} on failed: {type(error).__name__}: {error}"
        warnings.warn(text, stacklevel=2)
        if isinstance(error, OSError | StorageError):
            self._events.append(AlertRaised(step, "write_failed", text))


def _write_trace(follower: Any, folder: Path) -> list[dict[str, Any]]:
    """Write the trace, compressed; gives its events."""
    plain = folder / f"{TRACE.removesuffix('.gz')}{_PARTIAL}"
    try:
        follower.export_chrome_trace(str(plain))
        content = plain.read_bytes()
    finally:
        plain.unlink(missing_ok=True)
    packed = folder / f"{TRACE}{_PARTIAL}"
    try:
        packed.write_bytes(gzip.compress(content, compresslevel=3))
        packed.replace(folder / TRACE)
    finally:
        packed.unlink(missing_ok=True)
    found: list[dict[str, Any]] = orjson.loads(content)["traceEvents"]
    return found
