"""thread-oversubscription: more threads than cores, so that they wait for each other.

Looks for: a run on a processor whose library computes with more threads than the process may use cores, as containers
    and schedulers allow fewer than the machine has; and a machine whose load is far above its cores all along, while
    this process gets less than three fifths of what its threads could take, and loses a minute or more by it.
Why it matters: the parts of a product are done together; when one thread waits for a core all others wait for it, by
    default in loops that take the cores from the one that is waited for. A step may take many times as long.
Evidence: threads and cores, as they were found when the run began; the load, where it was measured.
Remedy: as many threads as cores, divided by the number of processes: `training.threads`, or OMP_NUM_THREADS.
False alarms: a GPU computes, and the threads have nothing to do: then nothing is said. Fewer than half again as many
    threads as cores are a remark.
Source: own; the cost of waiting in turn after the OpenMP specification 5.2, OMP_WAIT_POLICY.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

GRAVE: Final = 1.5
"""Threads for each core."""
CROWDED: Final = 2.0
"""Load for each core."""
ENOUGH: Final = 0.6
LEAST_SECONDS: Final = 60.0
"""That are lost: nobody minds less."""


def check(case: Case) -> Iterator[Finding]:
    """A warning for half again as many threads as cores, else a remark."""
    threads, cores = case.number("identity", "plan.threads") or case.number("threads"), case.number("cores")
    device = case.fact("device")
    if not threads or not cores or (device is not None and not str(device).startswith("cpu")):
        return
    load = _load(case, cores)
    if threads > cores:
        evidence = [
            Evidence(
                "facts.threads",
                (0, 0),
                threads,
                cores,
                f"torch computes with {threads:.0f} threads, and the process may use {cores:.0f} cores",
            ),
            *load,
        ]
        yield Finding(
            "thread-oversubscription",
            "warning" if threads >= GRAVE * cores else "info",
            0.9,
            1,
            f"{threads:.0f} threads share {format.counted(cores, 'core')}, and wait for each other in every product",
            tuple(evidence),
            remedies=(_fewer(case, int(cores)),),
        )
    elif load and (got := _part_of(case, threads)) < ENOUGH and (lost := (1 - got) * _seconds(case)) >= LEAST_SECONDS:
        yield Finding(
            "thread-oversubscription",
            "info",
            0.6,
            load[0].steps[0],
            f"other programs compute on the same {format.counted(cores, 'core')}: this one got {got:.0%} of what its "
            f"{format.counted(threads, 'thread')} could take, which cost up to {format.duration(lost)}",
            tuple(load),
            remedies=(Remedy("give each program cores of its own (taskset, or a limit), or let them run in turn"),),
        )


def _load(case: Case, cores: float) -> list[Evidence]:
    curve = Curve.of(case.history.get("hardware/load"))
    if curve is None or len(curve) < 4 or (usual := median(curve.values)) < CROWDED * cores:
        return []
    text = f"{usual:.1f} processes run or wait for {cores:.0f} cores, as a median"
    return [Evidence("hardware/load", (curve.first_step, curve.last_step), usual, cores, text)]


def _part_of(case: Case, threads: float) -> float:
    """The part of its threads' time that the process got, as a median; 1 where that is not known."""
    percent = Curve.of(case.history.get("hardware/process_cpu_percent"))
    return 1.0 if percent is None else median(percent.values) / (100.0 * threads)


def _seconds(case: Case) -> float:
    """Of all steps together."""
    series = case.history.get("step_seconds")
    return 0.0 if series is None else float(series.columns.total.sum())


def _fewer(case: Case, cores: int) -> Remedy:
    if case.target == "trimtab":
        return Remedy(f"compute with {cores} threads", "trimtab", {"training.threads": cores})
    return Remedy(f"compute with {cores} threads: torch.set_num_threads({cores}), or OMP_NUM_THREADS={cores}")
