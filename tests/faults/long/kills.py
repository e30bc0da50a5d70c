"""Kills and signals: at random moments, again and again, at each step of a save, and politely."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import judge
from harness import Child, Outcome, Place, events, strace, wait_for

PRECISIONS = ("fp32", "bf16")
LONGER = "training.steps=180"
"""So that most of a process's life is training."""


def same(run: Path, whole: Path) -> str:
    """ "" when a run ended with the bits, and told the losses, of another; else what differs."""
    if told := judge.difference(run, whole):
        return told
    if broken := judge.damage(run):
        return "; ".join(broken)
    if judge.losses(run / "record.jsonl") != judge.losses(whole / "record.jsonl"):
        return "the record tells other losses"
    return ""


def finished(place: Place, run: Path, whole: Path, *overrides: str) -> str:
    """Go on to the end, and compare; "" when all is right."""
    code, told = place.train(run, *overrides)
    return f"exit {code}: {told}" if code else same(run, whole)


def random_kills(place: Place, tries: Iterable[int]) -> Outcome:
    """SIGKILL once, at a moment drawn evenly from the whole life of the process; then the run is gone on with."""
    outcome, references = Outcome("SIGKILL at a random moment, then resumed: same bits"), {}
    for number in tries:
        precision = PRECISIONS[number % 2]
        setting = f"training.precision={{name: {precision}}}"
        if precision not in references:
            references[precision] = place.whole(setting, LONGER)
        whole, seconds = references[precision]
        while True:
            run = place.path()
            child = place.start("train", place.config, setting, LONGER, "--run", run)
            with contextlib.suppress(TimeoutError):
                _sleep(place.random.uniform(0.02, seconds), child)
            child.send(signal.SIGKILL)
            if child.wait() == -signal.SIGKILL:
                break
        record = run / "record.jsonl"
        steps = max([0, *(event["step"] for event in judge.events(record))]) if record.exists() else -1
        outcome.counts["before step 1" if steps <= 0 else "while training"] += 1
        right = finished(place, run, whole, setting, LONGER)
        outcome.take(not right, lambda n=number, w=right, s=steps: f"try {n}, killed about step {s}: {w}")
    return outcome


def _sleep(seconds: float, child: Child) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.001)


def one_run(place: Place, tries: Iterable[int]) -> Outcome:
    """One run that is killed at every try, every third of them while it starts again; it ends with the same bits."""
    outcome = Outcome("kills in one run, some while it resumes: same bits")
    steps = "training.steps=240"
    whole, seconds = place.whole(steps)
    run, kills = place.path(), 0
    record = run / "record.jsonl"
    for number in tries:
        told = record.read_text(errors="replace").count('"event":"StepsEnded"') if record.exists() else 0
        child = place.start("train", place.config, steps, "--run", run)
        if number % 3 == 2:
            _sleep(place.random.uniform(0.05, 0.15) * seconds, child)
            outcome.counts["while it started"] += 1
        else:
            _progressed(record, told + 2, child)
        child.send(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    right = finished(place, run, whole, steps)
    spent = json.loads(place.must("show", run, "--json"))["goodput"]
    added = sum(spent["seconds"].values())
    if not right and abs(added - spent["elapsed_seconds"]) > 1e-6:
        right = "goodput does not add up"
    outcome.tries, outcome.passed = kills, 0 if right else kills
    outcome.failures += [right] if right else []
    (line,) = (line for line in place.must("show", run).splitlines() if line.startswith("  time"))
    outcome.note = f"goodput: {line.split(maxsplit=1)[1]}"
    return outcome


def _progressed(record: Path, windows: int, child: Child) -> None:
    while not record.exists() or record.read_text(errors="replace").count('"event":"StepsEnded"') < windows:
        if child.poll() is not None:
            raise RuntimeError(f"ended with {child.code}: {child.told()}")
        time.sleep(0.003)


SAVES = (
    "training.steps=22",
    "checkpoint.keep_latest=1",
    "checkpoint.keep_best=0",
    "checkpoint.background=false",
    "model.num_layers=6",
)
SYSCALLS = ("write", "fsync", "rename", "unlink", "unlinkat", "mkdir", "rmdir", "openat", "close")


def stop_at_save() -> None:
    """In the process: it stands still before its first save writes, until strace has it."""
    from trimtab.training.checkpoint import keeper

    write = keeper.write_snapshot

    def stopped(*arguments: object) -> object:
        keeper.write_snapshot = write  # a save that is tried again goes on
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # this very thread stops before its next call
        return write(*arguments)  # type: ignore[arg-type]

    keeper.write_snapshot = stopped  # type: ignore[assignment]


def half(place: Place) -> Path:
    """A run of 22 steps that was killed after the save of step 11."""
    run = place.path("half")
    place.killed_at(run, '"event":"CheckpointSaved"', *SAVES)
    if [path.name for path in judge.checkpoints(run)] != ["step-00000011"]:
        raise RuntimeError(f"{run} holds {judge.checkpoints(run)}")
    return run


def at_save(place: Place, run: Path, *rules: str, log: Path | None = None) -> Child:
    """Go on with a run until it stands still before its save; trace it from there."""
    child = place.start("train", place.config, *SAVES, "--run", run, before=stop_at_save)
    deadline = time.monotonic() + 60
    threads = Path(f"/proc/{child.pid}/task")
    while any((one / "stat").read_text().rpartition(")")[2].split()[0] != "T" for one in threads.iterdir()):
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no save came: {child.told()}")
        time.sleep(0.002)
    tracer = strace(child, *rules, log=log)
    try:
        child.wait()
    finally:
        tracer.wait(timeout=20)
    return child


def points_of_a_save(place: Place, base: Path) -> list[tuple[str, int]]:
    """Name and number of each system call in a save, from the first of its thread to the last of pruning."""
    run, log = place.copied(base), place.path("strace")
    child = at_save(place, run, f"trace={','.join(SYSCALLS)}", log=log)
    if child.code:
        raise RuntimeError(f"exit {child.code}: {child.told()}")
    calls = re.findall(r"^(\d+) +(\w+)\((.*)$", log.read_text(), re.MULTILINE)
    thread = next(pid for pid, name, rest in calls if name == "mkdir" and ".tmp-step-" in rest)
    own = [(name, rest) for pid, name, rest in calls if pid == thread]
    # What the thread does after removing the last thing that was pruned is waiting.
    end = max(index for index, (name, rest) in enumerate(own) if name == "rmdir" or ".trash-" in rest)
    counted: Counter[str] = Counter()
    points = []
    for name, _ in own[: end + 1]:
        counted[name] += 1
        points.append((name, counted[name]))
    return points


def kills_in_a_save(place: Place, tries: Iterable[int]) -> Outcome:
    """SIGKILL at a system call of a save: the one before it, or the new one, is whole; nothing else is listed."""
    outcome = Outcome("SIGKILL at each system call of a save: a whole checkpoint, none in part, same bits")
    base = half(place)
    whole, _ = place.whole(*SAVES)
    points = [point for point in points_of_a_save(place, base) if point[0] not in ("openat", "close")]
    for number in tries:
        if number >= len(points):
            continue
        name, when = points[number]
        outcome.counts[name] += 1
        run = place.copied(base)
        child = at_save(place, run, f"trace={name}", f"inject={name}:signal=KILL:when={when}")
        listed = json.loads(place.must("show", run, "--json"))["checkpoints"]
        kept = judge.checkpoints(run)
        names = {path.name for path in kept} | {path.name[5:] for path in (run / "checkpoints").glob(".old-step-*")}
        problem = ""
        if child.code != -signal.SIGKILL:
            problem = f"was not killed: exit {child.code}"
        elif broken := judge.damage(run):
            problem = f"listed in part: {broken}"
        elif not names:
            problem = "no checkpoint is left"
        elif {Path(str(one["path"])).name.removeprefix(".old-") for one in listed} != names:
            problem = f"listed are {listed}, there are {names}"
        else:
            problem = finished(place, run, whole, *SAVES)
        outcome.counts["left the older one"] += "step-00000011" in names
        outcome.counts["left the new one"] += "step-00000022" in names
        outcome.take(not problem, f"{name} {when}: {problem}")
    return outcome


def errors_in_a_save(place: Place, tries: Iterable[int]) -> Outcome:
    """EIO once, at a system call of a save: it is tried again, and the run ends as if nothing had been."""
    outcome = Outcome("EIO once in a save: tried again, exit 0, same bits")
    base = half(place)
    whole, _ = place.whole(*SAVES)
    points = [point for point in points_of_a_save(place, base) if point[0] in ("write", "fsync", "rename", "openat")]
    for number in tries:
        name, when = points[number * len(points) // ERRORS % len(points)]
        outcome.counts[name] += 1
        run = place.copied(base)
        child = at_save(place, run, f"trace={name}", f"inject={name}:error=EIO:when={when}")
        problem = f"exit {child.code}: {child.told()[-600:]}" if child.code else same(run, whole)
        outcome.take(not problem, f"{name} {when}: {problem}")
    return outcome


ERRORS = 24


def _slowly(place_name: str, name: str, told: str, seconds: float) -> Callable[[], None]:
    """In the process: `name` of a module says so and takes its time, so that a signal meets it."""

    def patch() -> None:
        import importlib

        module = importlib.import_module(place_name)
        quick = getattr(module, name)

        def slow(*arguments: object, **named: object) -> object:
            print(told, flush=True)
            time.sleep(seconds)
            return quick(*arguments, **named)

        setattr(module, name, slow)

    return patch


def _slow_evaluation() -> None:
    """In the process: each evaluation says so, and takes its time."""
    from trimtab.evaluation.round import Evaluation

    quick = Evaluation.__call__

    def slow(self: object, step: int) -> object:
        print("slow evaluation", flush=True)
        time.sleep(0.3)
        return quick(self, step)  # type: ignore[arg-type]

    Evaluation.__call__ = slow  # type: ignore[method-assign, assignment]


MOMENTS: dict[str, tuple[Callable[[], None], str, tuple[str, ...]]] = {
    "training": (lambda: None, "", ()),
    "evaluation": (_slow_evaluation, "slow evaluation", ()),
    "saving": (
        _slowly("trimtab.training.checkpoint.keeper", "write_snapshot", "slow save", 0.4),
        "slow save",
        ("checkpoint.background=false",),
    ),
    "compilation": (
        _slowly("trimtab.training.execution", "_compile", "slow compilation", 0.2),
        "slow compilation",
        ("training.compile=on", "training.steps=12"),
    ),
}


def polite(place: Place, tries: Iterable[int]) -> Outcome:
    """SIGTERM while training, evaluating, saving or compiling: saved at this very step, exit 75, in less than 30 s."""
    outcome, references = Outcome("SIGTERM: saved at the current step, exit 75, within 30 s, same bits"), {}
    longest = 0.0
    for number in tries:
        moment = ("training", "evaluation", "saving")[number % 3] if number < 18 else "compilation"
        patch, told, overrides = MOMENTS[moment]
        outcome.counts[f"in {moment}"] += 1
        if overrides not in references:
            references[overrides] = place.whole(*overrides)[0]
        run = place.path()
        child = place.start("train", place.config, *overrides, "--run", run, before=patch)
        if moment == "training":
            wait_for(run / "record.jsonl", f'"last_step":{7 * place.random.randrange(1, 6)}', child)
        else:
            _said(child, told, place.random.randrange(1, 3) if moment != "compilation" else 1)
            time.sleep(0.05 if moment != "compilation" else place.random.uniform(0, 2))
        begun = time.monotonic()
        child.send(signal.SIGTERM)
        code = child.wait(60)
        took = time.monotonic() - begun
        longest = max(longest, took)
        problem = ""
        if code != 75 or took > 30:
            problem = f"exit {code} after {took:.1f} s: {child.told()[-500:]}"
        elif (run / "record.jsonl").exists():
            end, saved = events(run, "RunEnded")[-1], events(run, "CheckpointSaved")[-1]
            if end["status"] != "interrupted" or end["step"] != saved["step"]:
                problem = f"ended {end['status']} at {end['step']}, saved {saved['step']}"
        elif moment != "compilation":
            problem = "no record"
        problem = problem or finished(place, run, references[overrides], *overrides)
        outcome.take(not problem, f"{moment}: {problem}")
    outcome.note = f"the longest took {longest:.1f} s"
    return outcome


def _said(child: Child, text: str, times: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while child.told().count(text) < times:
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{text!r} was not said: {child.told()}")
        time.sleep(0.005)


def two_writers(place: Place, tries: Iterable[int]) -> Outcome:
    """A second process in a run is refused by pid and host, and the first goes on as if alone."""
    outcome = Outcome("a second writer is refused, the first ends with the same bits")
    whole, _ = place.whole()
    for number in tries:
        run = place.path()
        child = place.start("train", place.config, "--run", run)
        wait_for(run / "record.jsonl", '"last_step":1', child)
        child.send(signal.SIGSTOP)  # alive, and in the middle of the run
        code, told = place.train(run)
        child.send(signal.SIGCONT)
        ended = child.wait()
        problem = ""
        if code != 5 or str(child.pid) not in told:
            problem = f"the second ended with {code}: {told[-400:]}"
        elif ended:
            problem = f"the first ended with {ended}: {child.told()[-400:]}"
        outcome.take(not (problem := problem or same(run, whole)), f"try {number}: {problem}")
    return outcome
