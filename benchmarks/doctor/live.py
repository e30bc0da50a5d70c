"""What the doctor costs while a run goes on: seconds of the processor, in the thread that trains.

    python benchmarks/doctor/live.py                # replayed runs of 100 to 100,000 steps, sound and troubled
    python benchmarks/doctor/live.py --train 1000   # besides a real run of so many steps on this processor

A replayed run tells eight metrics of every step and 48 values of layers in windows of ten steps, and forty evaluations.
The lines of a window are made before, as the record makes them. Troubled: spikes, steps that scatter, heavy tails.
Of 4,000 steps every bucket holds one, which is the most that there is to read.
What else the machine does makes a consultation slower, never quicker: each run is replayed five times (`--rounds`), and
of each consultation the quickest counts. Runs before them import what is needed; what is kept of a plan from one
consultation to the next is forgotten between runs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from long_record import metrics

from trimtab.control import Acts, Doctor, Tripwire
from trimtab.control import doctor as module
from trimtab.control.doctor import MOST_TIMES
from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import findings_of
from trimtab.doctor.finding import Finding, Withheld
from trimtab.doctor.reading import planned
from trimtab.events import Decision, EvaluationEnded, Event, RunStarted, StepsEnded
from trimtab.runs.history import History
from trimtab.runs.record import lines_of

LENGTHS, WINDOW = (100, 1_000, 4_000, 10_000, 100_000), 10
BAR = 5.0
"""Milliseconds that a consultation may take."""
SETTINGS = {
    "schedule.name": "cosine",
    "schedule.warmup": 0.01,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "gradients.clip.name": "norm",
    "gradients.clip.threshold": 1.0,
    "training.batch_size": 32,
    "data.sequence_length": 128,
}
FACTS = {
    "task": "causal_lm",
    "tokens_per_step": 4096,
    "parameters": {"total": 10_000_000},
    "tokenizer": {"vocabulary_size": 4096},
    "identity": {f"config.{name}": value for name, value in SETTINGS.items()},
}
LAYERS = [f"layer/{index}/{one}" for index in range(12) for one in ("grad_norm", "weight_norm", "rms", "update_ratio")]


def run_of(steps: int, *, troubled: bool, step_seconds: float) -> Iterator[Event]:
    """What a run tells of itself."""
    columns, random = metrics(steps), np.random.default_rng(1)
    started = RunStarted(0, 1, 0, None, steps, FACTS)
    history = History()
    history.observe(started)
    factor = planned.planned_factor(Case(history, SETTINGS))
    assert factor is not None
    columns["learning_rate"] = 1e-3 * np.array([factor(step) for step in range(1, steps + 1)])
    columns["step_seconds"] = step_seconds * (1 + 0.01 * np.abs(random.normal(size=steps)))
    if troubled:
        rough = 0.06 * random.standard_t(2, steps) * (1 + (np.arange(steps) > 0.7 * steps))
        rough[random.choice(steps, max(1, steps // 300), replace=False)] += 3.0
        columns["train/loss"] = columns["train/loss"] + np.clip(rough, -1.0, None)
        columns["grad_norm"] = columns["grad_norm"] * np.exp(0.5 * random.normal(size=steps))
    yield started
    every = max(WINDOW, steps // MOST_TIMES // WINDOW * WINDOW)
    for first in range(1, steps + 1, WINDOW):
        last = first + WINDOW - 1
        part = {name: values[first - 1 : last] for name, values in columns.items()}
        layers = dict(zip(LAYERS, random.lognormal(0.0, 0.1, len(LAYERS)).tolist(), strict=True))
        yield StepsEnded(first, last, part, {"tokens_per_second": 4096 / step_seconds}, layers)
        if last % every == 0:
            loss = float(columns["train/loss"][max(0, last - 100) : last].mean()) + 0.1
            yield EvaluationEnded(last, {"validation/loss": loss}, 10 * step_seconds)


class Timed:
    """A doctor, and what each event took it, in seconds of the thread."""

    def __init__(self, doctor: Doctor, decide: Callable[[Doctor, Event], Decision | None] = Doctor.decide) -> None:
        self.windows: list[float] = []
        self.consultations: dict[tuple[str, int], float] = {}
        """By the kind of event and its step."""
        self._doctor, self._decide, self._asked = doctor, decide, False

    def decide(self, event: Event) -> Decision | None:
        """What the doctor says."""
        self._asked = False
        begun = time.thread_time()
        answer = self._decide(self._doctor, event)
        took = time.thread_time() - begun
        if self._asked:
            step = event.last_step if isinstance(event, StepsEnded) else getattr(event, "step", 0)
            self.consultations[type(event).__name__, step] = took
        else:
            self.windows.append(took)
        return answer

    def findings_of(self, case: Case) -> tuple[list[Finding], list[Withheld]]:
        """What it is asked; noted."""
        self._asked = True
        return findings_of(case)


def replay(steps: int, *, troubled: bool, step_seconds: float, acts: bool = False) -> tuple[Timed, float]:
    """A run that is told, and how long it would have taken."""
    timed, lasted = Timed(Doctor(Tripwire(), Acts() if acts else None)), 0.0
    module.findings_of = timed.findings_of
    for event in run_of(steps, troubled=troubled, step_seconds=step_seconds):
        if isinstance(event, RunStarted):
            planned._plan.cache_clear()  # what run_of has asked of it, too
        if isinstance(event, StepsEnded):
            list(lines_of(event))
            lasted += float(event.per_step["step_seconds"].sum())
        elif isinstance(event, EvaluationEnded):
            lasted += event.seconds
        timed.decide(event)
    module.findings_of = findings_of
    return timed, lasted


def told(rounds: list[Timed], lasted: float) -> str:
    """One row of a run that was told so many times."""
    least: dict[tuple[str, int], float] = {}
    for when, took in itertools.chain.from_iterable(timed.consultations.items() for timed in rounds):
        least[when] = min(1e3 * took, least.get(when, math.inf))
    asked = [least[when] for when in sorted(least, key=lambda when: when[1])] or [0.0]
    late, above = asked[-max(1, len(asked) // 4) :], sum(one > BAR for one in asked)
    once = 1e3 * max(max(timed.consultations.values(), default=0.0) for timed in rounds)
    every = statistics.mean(itertools.chain.from_iterable(timed.windows for timed in rounds))
    share = statistics.median(sum(timed.windows) + sum(timed.consultations.values()) for timed in rounds) / lasted
    return (
        f"asked {len(asked):2} times, {statistics.median(late):4.1f} ms at its end, {max(asked):4.1f} at most"
        f"{f' ({above} above {BAR:.0f})' if above else ''}, {once:4.1f} with all else; "
        f"{1e6 * every:3.0f} us for another event; {share:.3%} of {lasted:,.0f} s"
    )


def train(steps: int) -> str:
    """The same of a real run: a small language model on sources of Python's own."""
    from trimtab import LanguageModelTrainer

    timed: dict[Doctor, Timed] = {}
    decide = Doctor.decide

    def timing(doctor: Doctor, event: Event) -> Decision | None:
        if doctor not in timed:
            timed[doctor] = Timed(doctor, decide)
            module.findings_of = timed[doctor].findings_of
        return timed[doctor].decide(event)

    sources = sorted(Path(argparse.__file__).parent.glob("[a-d]*.py"))
    settings = {
        "data.tokenizer": {"name": "bytes"},
        "model": {"name": "decoder", "num_layers": 2, "hidden_size": 96, "num_heads": 4},
        "training.steps": steps,
        "stopping": {"name": "none"},
    }
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(path.read_text() for path in sources))
        Doctor.decide = timing  # type: ignore[method-assign, assignment]
        begun = time.perf_counter()
        LanguageModelTrainer(text, settings=settings, run=Path(folder) / "run", progress=False).fit()
        lasted = time.perf_counter() - begun
    return "\n            ".join(told([one], lasted) for one in timed.values())


def main() -> None:
    """Replay, print rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=0, metavar="STEPS")
    parser.add_argument("--step-seconds", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for troubled in (False, True):
        replay(100, troubled=troubled, step_seconds=given.step_seconds)
    for steps, troubled in itertools.product(LENGTHS, (False, True)):
        rounds = [replay(steps, troubled=troubled, step_seconds=given.step_seconds) for _ in range(given.rounds)]
        row = told([timed for timed, _ in rounds], rounds[0][1])
        print(f"{steps:7,} steps, {'troubled' if troubled else 'sound':8}: {row}", flush=True)
    if given.train:
        print(f"a real run: {train(given.train)}")


if __name__ == "__main__":
    main()
