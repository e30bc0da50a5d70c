"""What a trace of torch's profiler says: which operators took the time, how busy the device was, and its memory.

Traces are lists of events in the form that Chrome and Perfetto open; times are in microseconds.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

MARK: Final = "trimtab: "
"""Before the name of a part of the step."""
_KERNELS: Final = ("kernel", "gpu_memcpy", "gpu_memset")
_MEMORY: Final = "[memory]"
_POINTS: Final = 400
_LARGEST: Final = 20

_WORDS: Final[Mapping[str, str]] = {
    "communication": r"nccl|all_?reduce|all_?gather|reduce_?scatter|c10d|gloo",
    "autograd": r"^autograd::|^\w+backward\d*$",
    "attention": r"attention|flash|fmha|sdpa|scaled_dot_product",
    "optimizer": r"adam|_foreach_|multi_tensor",
    "matmul": r"(^|::|_)(mm|bmm|addmm|baddbmm|matmul|linear|mv|dot|einsum)(_|$)|gemm|gemv|cutlass|xmma|nvjet|cublas"
    r"|conv",
    "normalization": r"layer_?norm|rms_?norm|batch_?norm|group_?norm",
    "loss": r"nll|softmax|cross_entropy|logsumexp",
    "embedding": r"embedding|index_select|index_add|gather|scatter",
    "copy": r"memcpy|memset|copy|transpose_kernel|(::|_)(to|cat|clone|contiguous|fill_?|zero_?|zeros|ones|pad|stack)$",
    "view": r"::(t|view|_unsafe_view|reshape|transpose|permute|expand|slice|select|unsqueeze|squeeze|as_strided|detach"
    r"|split|chunk|unbind|narrow|alias|empty\w*|_reshape_alias|result_type|is_\w+|resize_|set_data|lift\w*)$",
    "compiled": r"compiled|inductor",
    "reduction": r"triton_(red|per)|reduce|(::|_)(sum|mean|norm|max|min|any|all|cumsum)$",
}
"""Kind of work to what the names of its operators and kernels look like; the first that fits. Else: elementwise."""
_KINDS: Final = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _WORDS.items()}
_OVERHEAD: Final = ("autograd", "view")
"""Kinds that compute nothing: what they take on a processor is the price of starting the others."""


def kind_of(name: str) -> str:
    """The kind of work that an operator or a kernel does, by its name."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(name)), "elementwise")


@final
@dataclass(slots=True)
class Operator:
    """All calls of an operator, or of a kernel."""

    name: str
    kind: str
    calls: int = 0
    seconds: float = 0.0
    """Its own: without the operators that it calls."""


@final
@dataclass(frozen=True, slots=True)
class Trace:
    """What the events of a trace come to."""

    operators: tuple[Operator, ...]
    """The longest first: kernels where there are any, else operators of the processor."""
    parts: Mapping[str, float]
    """Seconds between the marks of the step, by part: the device's where it has them, else the host's."""
    busy_seconds: float
    """In which something was computed: by any kernel, or by operators that do more than to start others."""
    on_device: bool

    @property
    def kinds(self) -> dict[str, float]:
        """Seconds by kind of work, the longest first."""
        totals: dict[str, float] = {}
        for one in self.operators:
            totals[one.kind] = totals.get(one.kind, 0.0) + one.seconds
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    @property
    def calls(self) -> int:
        """Of all operators."""
        return sum(one.calls for one in self.operators)


def read_trace(events: Iterable[Mapping[str, Any]]) -> Trace:
    """Add up the events of a trace. Where there are marks, what was begun between them counts alone: no evaluation that
    took place meanwhile, and of a processor's threads no other.

    A kernel belongs to the part in which the host launched it, from whichever thread: the backward pass has its own.
    """
    whole = [event for event in events if event.get("ph") == "X" and "dur" in event]
    marks = _Marks(whole)
    operators: dict[str, Operator] = {}
    kernels = [event for event in whole if event.get("cat") in _KERNELS]
    if on_device := bool(kernels):
        kernels, parts = _by_part(kernels, whole, marks)
        own_times = [(str(kernel["name"]), float(kernel["dur"])) for kernel in kernels]
    else:
        parts = marks.lengths()
        own_times = _own_times([event for event in whole if not marks or marks.at(float(event["ts"])) is not None])
    for name, own in own_times:
        one = operators.setdefault(name, Operator(name, kind_of(name)))
        one.calls += 1
        one.seconds += own / 1e6
    if on_device:
        busy = _covered((float(one["ts"]), float(one["ts"]) + float(one["dur"])) for one in kernels) / 1e6
    else:
        busy = sum(one.seconds for one in operators.values() if one.kind not in _OVERHEAD)
    ordered = sorted(operators.values(), key=lambda one: -one.seconds)
    return Trace(tuple(ordered), {part: length / 1e6 for part, length in parts.items()}, busy, on_device)


@final
class _Marks:
    """The parts of the step on the host, one after the other."""

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        self.spans = sorted(
            (float(one["ts"]), float(one["ts"]) + float(one["dur"]), str(one["name"]).removeprefix(MARK))
            for one in events
            if one.get("cat") == "user_annotation" and str(one["name"]).startswith(MARK)
        )
        self._begins = [begun for begun, _, _ in self.spans]

    def __len__(self) -> int:
        return len(self.spans)

    def at(self, now: float) -> int | None:
        """Which of the spans a moment lies in."""
        index = bisect_right(self._begins, now) - 1
        return index if index >= 0 and now <= self.spans[index][1] else None

    def part(self, now: float) -> str:
        """The part that a moment lies in, "between" where in none."""
        return "between" if (index := self.at(now)) is None else self.spans[index][2]

    def lengths(self) -> dict[str, float]:
        """Of each part, all its spans together."""
        parts: dict[str, float] = {}
        for begun, ended, part in self.spans:
            parts[part] = parts.get(part, 0.0) + ended - begun
        return parts


def _by_part(
    kernels: Sequence[Mapping[str, Any]], whole: Iterable[Mapping[str, Any]], marks: _Marks
) -> tuple[list[Mapping[str, Any]], dict[str, float]]:
    """The kernels that were launched in a part of the step, and how long each part lasted on the device: from the
    begin of its first to the end of its last."""
    launches = {
        event["args"]["correlation"]: float(event["ts"])
        for event in whole
        if event.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in event.get("args", {})
    }
    kept: list[Mapping[str, Any]] = []
    reached: dict[int, tuple[float, float]] = {}
    for kernel in kernels:
        launched = launches.get(kernel.get("args", {}).get("correlation"))
        index = None if launched is None else marks.at(launched)
        if marks and launched is not None and index is None:
            continue
        kept.append(kernel)
        if index is not None:
            begun, ended = float(kernel["ts"]), float(kernel["ts"]) + float(kernel["dur"])
            first, last = reached.get(index, (begun, ended))
            reached[index] = (min(first, begun), max(last, ended))
    parts: dict[str, float] = {}
    for index, (begun, ended) in reached.items():
        part = marks.spans[index][2]
        parts[part] = parts.get(part, 0.0) + ended - begun
    return kept, parts


def _own_times(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Each operator of the processor, with its time without that of those inside it."""
    found: list[tuple[str, float]] = []
    marked = {event.get("tid") for event in events if str(event.get("name", "")).startswith(MARK)}
    for thread, calls in _by_thread(events).items():
        if marked and thread not in marked:
            continue
        stack: list[tuple[float, int]] = []  # where each open one ends, and its place in `found`
        for event in calls:
            begun, lasted = float(event["ts"]), float(event["dur"])
            while stack and stack[-1][0] <= begun:
                stack.pop()
            if stack:
                name, own = found[stack[-1][1]]
                if name == event["name"]:  # an overload that calls another is one call
                    stack.append((begun + lasted, stack[-1][1]))
                    continue
                found[stack[-1][1]] = (name, max(0.0, own - lasted))
            stack.append((begun + lasted, len(found)))
            found.append((str(event["name"]), lasted))
    return found


def _by_thread(events: Iterable[Mapping[str, Any]]) -> dict[Any, list[Mapping[str, Any]]]:
    """Operators of the processor by thread, outer ones before those inside them."""
    threads: dict[Any, list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "cpu_op":
            threads.setdefault(event.get("tid"), []).append(event)
    for calls in threads.values():
        calls.sort(key=lambda event: (float(event["ts"]), -float(event["dur"])))
    return threads


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what the spans cover together."""
    total, reached = 0.0, float("-inf")
    for begun, ended in sorted(spans):
        if ended > reached:
            total += ended - max(begun, reached)
            reached = ended
    return total


@dataclass(slots=True)
class _Allocation:
    bytes: int
    at: float
    part: str
    thread: Any
    freed: float = field(default=float("inf"))


def memory_of_trace(
    events: Iterable[Mapping[str, Any]], held: Mapping[str, int], *, device_type: int, gradients_move: bool
) -> dict[str, Any]:
    """The highest point of memory, by category, as JSON values.

    `held` is what was in use before the first step, by category: weights, gradients, optimizer … and other. What the
    forward pass allocates are activations; what the backward pass leaves for the update is gradients; the rest is
    other. `device_type` is torch's number (0: CPU, 1: CUDA). With `gradients_move` the gradients of the step before
    are among what is freed.
    """
    whole = list(events)
    marks = _Marks(e for e in whole if e.get("ph") == "X" and "dur" in e)
    changes = sorted(
        (
            (float(e["ts"]), int(e["args"]["Bytes"]), e["args"].get("Addr"), e.get("tid"))
            for e in whole
            if e.get("name") == _MEMORY and e["args"].get("Device Type") == device_type
        ),
        key=lambda change: change[0],
    )

    before = sum(held.values())
    live: dict[Any, _Allocation] = {}
    every: list[_Allocation] = []
    gone: list[tuple[float, int]] = []  # of what was held before
    total = highest = before
    peak_at = changes[0][0] if changes else 0.0
    timeline: list[tuple[float, int]] = []
    for now, size, address, thread in changes:
        total += size
        if size > 0:
            live[address] = _Allocation(size, now, marks.part(now), thread)
            every.append(live[address])
        elif (ended := live.pop(address, None)) is not None:
            ended.freed = now
        else:
            gone.append((now, -size))
        timeline.append((now, total))
        if total > highest:
            highest, peak_at = total, now
    updates = [begun for begun, _, part in marks.spans if part in ("optimizer", "update")]
    categories = dict.fromkeys(("weights", "gradients", "optimizer", "activations", "other"), 0) | dict(held)
    for now, size in gone:
        if now <= peak_at:
            old = min(size, categories["gradients"]) if gradients_move else 0
            categories["gradients"] -= old
            categories["other"] -= size - old
    at_peak = [one for one in every if one.at <= peak_at < one.freed]
    largest: list[dict[str, Any]] = []
    threads = _by_thread(e for e in whole if e.get("ph") == "X" and "dur" in e)
    for one in sorted(at_peak, key=lambda one: -one.bytes):
        category = _category(one, updates)
        categories[category] += one.bytes
        if len(largest) < _LARGEST:
            operator = _operator_at(threads.get(one.thread, ()), one.at)
            largest.append({"bytes": one.bytes, "part": one.part, "category": category, "operator": operator})
    if categories["other"] < 0:  # freed on the way: more than was known to be held
        categories["other"] = 0
    return {
        "peak_bytes": sum(categories.values()),
        "part": marks.part(peak_at) if changes else "between",
        "categories": categories,
        "held_before_bytes": before,
        "largest": largest,
        "timeline": _thinned(timeline),
    }


def _category(one: _Allocation, updates: Sequence[float]) -> str:
    if one.part in ("forward", "accumulate"):
        return "activations"
    following = bisect_right(updates, one.at)
    if one.part == "backward" and following < len(updates) and one.freed > updates[following]:
        return "gradients"
    return "other"


def _operator_at(calls: Sequence[Mapping[str, Any]], now: float) -> str:
    """The innermost operator that ran at a moment."""
    index = bisect_right(calls, now, key=lambda event: float(event["ts"]))
    for event in reversed(calls[max(0, index - 64) : index]):
        if float(event["ts"]) + float(event["dur"]) >= now:
            return str(event["name"])
    return ""


def _thinned(timeline: Sequence[tuple[float, int]]) -> list[list[float]]:
    """[milliseconds, bytes] at the highest point of each of at most so many stretches."""
    if not timeline:
        return []
    width = -(-len(timeline) // _POINTS)
    begun = timeline[0][0]
    stretches = (timeline[start : start + width] for start in range(0, len(timeline), width))
    return [
        [round((at - begun) / 1e3, 3), size]
        for at, size in (max(stretch, key=lambda point: point[1]) for stretch in stretches)
    ]
