"""All that a report shows, taken once from a run: its renderers are functions of it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.doctor import Case, Diagnosis
from trimtab.doctor.narrate import unit_of
from trimtab.errors import TrimtabError
from trimtab.events import ArtifactLogged, DecisionTaken, Save
from trimtab.report.curves import Curve, smoothed
from trimtab.report.differences import differences_of
from trimtab.report.words import metric_name, metric_value
from trimtab.runs import format
from trimtab.runs.checkpoints import list_checkpoints
from trimtab.runs.counted import counted_in
from trimtab.runs.described import describe_decision
from trimtab.runs.directory import RunDirectory
from trimtab.runs.goodput import Goodput, goodput_of, shares
from trimtab.runs.history import History
from trimtab.runs.leading import leading_of
from trimtab.runs.machine import means_of_series
from trimtab.runs.metrics import selection_direction
from trimtab.runs.profiles import PROFILE
from trimtab.runs.reasons import reason_in_a_line
from trimtab.runs.record import event_to_json

SHOWN_SAMPLES = 8
SHOWN_DECISIONS = 60
SHOWN_ALERTS = 12
"""Settings that change no result, and name people: reports are passed on."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the key figures."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation, by the metric that chose checkpoints."""

    metric: str
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One metric of every layer: `values_WL` by window and layer; NaN where it was not measured."""

    metric: str
    steps: np.ndarray[Any, np.dtype[np.int64]]
    names: tuple[str, ...]
    values_WL: np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown. What is not known is empty."""

    name: str
    diagnosis: Diagnosis
    status: str
    """How the newest attempt ended, "killed", "running", or "" where nobody knows."""
    reason: str
    first_step: int
    last_step: int
    planned_steps: int
    curves: Mapping[str, Curve]
    """Metric to its values, evaluations among them."""
    best: Best | None
    restored_step: int | None
    layers: tuple[Layer, ...]
    figures: tuple[Figure, ...]
    decisions: tuple[DecisionTaken, ...]
    """Those that steered the run, and the newest of the others."""
    num_saves: int
    resumed: tuple[tuple[int, str], ...]
    alerts: tuple[tuple[int, str], ...]
    """What went wrong on the way, the first of it."""
    """Steps at which an attempt went on from a checkpoint, and how it came to that."""
    samples: tuple[ArtifactLogged, ...]
    checkpoints: tuple[tuple[int, str, int, str], ...]
    """Step, path in the run, bytes and reason of those that are kept."""
    time_split: Mapping[str, float]
    """Seconds by cause: of all attempts where the record tells them, else what the last one told."""
    down_seconds: float
    """Between attempts."""
    settings: Mapping[str, Any]
    """Dotted setting to value."""
    differences: tuple[tuple[str, Any, Any], ...]
    """Setting, its value in `base`, and here."""
    base: str
    """What the settings are compared with: "the preset gpt-1m" or "the defaults"."""
    facts: Mapping[str, Any]
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    path: str
    """The run as a command names it; "" for a run of another trainer."""
    command: str
    """What was typed, where that is known."""
    kept: str = ""
    """The configuration that it keeps, as a command names it; "" where no command trains it: a loop, Python objects."""
    again: str = ""
    """What trains the same into a new directory, where the command line can."""
    damaged_lines: int = 0
    machine: Mapping[str, float] = field(default_factory=dict)
    """Means of pace and machine, as `runs.machine` gives them."""
    profiles: tuple[str, ...] = ()
    """What each profile found that steps are bound by."""
    judged: Mapping[str, Any] = field(default_factory=dict)
    """Where the model is wrong on the validation set, where that was looked at."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """The temperature of its answers, and what it does, where one was fitted."""
    prompts: tuple[str, ...] = field(default=())
    counted: str = "tokens"
    """What the loss is a mean over."""

    def steered(self) -> list[tuple[int, str]]:
        """What steered the run, by step: decisions, what went wrong, and where it went on from a checkpoint."""
        decisions = [(taken.step, describe_decision(event_to_json(taken))) for taken in self.decisions]
        return sorted([*self.resumed, *self.alerts, *decisions], key=lambda row: row[0])


def gather(run: RunDirectory | None, case: Case, diagnosis: Diagnosis) -> Report:
    """What is known of a run: from its directory where there is one, else from the case alone."""
    history = case.history
    curves = {name: Curve.of(series) for name, series in sorted(history.series.items())}
    _add_gap(curves)
    environment = _read(run, run.environment) if run is not None else {}
    settings = dict(case.config)
    base, differences = differences_of(settings)
    ended = history.ended
    firsts = [int(curve.first[0]) for curve in curves.values() if len(curve.first)]
    spent = _goodput(run)
    split = dict(spent.seconds) if spent is not None else dict(ended.time_split) if ended is not None else {}
    steering = [taken for taken in history.decisions if not isinstance(taken.decision, Save)]
    best = _best(curves, settings)
    command = environment.get("command")
    arguments = [str(part) for part in command] if isinstance(command, Sequence) and command else []
    return Report(
        name=diagnosis.run or (run.name if run is not None else ""),
        diagnosis=diagnosis,
        status=ended.status if ended is not None else str(run.status()) if run is not None else "",
        reason=reason_in_a_line(ended.reason) if ended is not None else "",
        first_step=min(firsts, default=0),
        last_step=history.last_step,
        planned_steps=case.planned_steps,
        curves=curves,
        best=best,
        restored_step=ended.restored_step if ended is not None else None,
        layers=tuple(_layers(case)),
        figures=tuple(_figures(case, curves, best, split)),
        decisions=tuple(steering[-SHOWN_DECISIONS:]),
        num_saves=len(history.decisions) - len(steering),
        resumed=tuple(_resumed(history)),
        alerts=tuple(_alerts(history)),
        samples=_spread([one for one in history.artifacts if one.kind in ("sample", "text") and one.name != PROFILE]),
        profiles=tuple(one.text for one in history.artifacts if one.name == PROFILE),
        checkpoints=tuple(_checkpoints(run)) if run is not None else (),
        time_split=split,
        down_seconds=spent.down_seconds if spent is not None else 0.0,
        settings=settings,
        differences=differences,
        base=base,
        facts={key: value for key, value in case.facts.items() if key not in ("identity", "schema")},
        plan=_read(run, run.plan) if run is not None else {},
        environment={key: value for key, value in environment.items() if key not in ("schema", "command")},
        path=_path(run, arguments) if run is not None else "",
        command=_command(arguments),
        kept="" if run is None or not _is_of_commands(run) else f"{_path(run, arguments)}/config.yaml",
        again=_again(run, arguments),
        damaged_lines=history.damaged_lines,
        machine=means_of_series(history.series),
        judged=_read(run, run.details) if run is not None else {},
        calibration=_read(run, run.calibration) if run is not None else {},
        prompts=_prompts(settings),
        counted=counted_in(case.facts),
    )


def _alerts(history: History) -> Iterator[tuple[int, str]]:
    """What was told at each step; beyond so many they are counted alone."""
    for alert in history.alerts[:SHOWN_ALERTS]:
        yield alert.step, alert.text
    if (more := len(history.alerts) - SHOWN_ALERTS) > 0:
        yield history.alerts[-1].step, f"{format.count(more)} more of this kind; the record has them (AlertRaised)"


def _resumed(history: History) -> Iterator[tuple[int, str]]:
    """Where the run went on from a checkpoint, and why: it went back, or the attempt before had ended."""
    for back in history.rollbacks.made:
        yield back.to_step, f"at step {format.count(back.step)} {back.in_words()}: {back.reason}"
    attempt = 0
    for start, ended in zip(history.starts, history.ended_before, strict=True):
        if start.resumed_from is not None and start.attempt != attempt:
            if ended is None:
                why = f"attempt {start.attempt} goes on; the one before: killed, no end was written"
            else:
                why = f"attempt {start.attempt} goes on; the one before: {ended.status}, {ended.reason}"
            if restart := start.facts.get("restart"):
                why += f" ({restart})"
            yield start.resumed_from, why
        attempt = start.attempt


def _goodput(run: RunDirectory | None) -> Goodput | None:
    with contextlib.suppress(TrimtabError):
        return goodput_of(run) if run is not None else None
    return None


def _read(run: RunDirectory, path: Any) -> dict[str, Any]:
    with contextlib.suppress(TrimtabError):
        content = run.read_json(path)
        return {key: value for key, value in content.items() if key != "schema"}
    return {}


def _path(run: RunDirectory, arguments: Sequence[str]) -> str:
    """As it was given when the run began; the same from whichever directory the report is written."""
    for index, argument in enumerate(arguments):
        if argument == "--run" and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith("--run="):
            return argument.removeprefix("--run=")
    return f"runs/{run.name}"


def _is_of_commands(run: RunDirectory) -> bool:
    """Whether a command can train it again."""
    return run.source == "config"


def _again(run: RunDirectory | None, arguments: Sequence[str]) -> str:
    """The command without the directory, which is taken; or one with the run's own settings, where it was another."""
    if run is None or not _is_of_commands(run):
        return ""
    if len(arguments) < 3 or arguments[1] != "train":
        return f"trimtab train {shlex.quote(_path(run, arguments) + '/config.yaml')}"
    kept = [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if before != "--run" and argument not in ("--run", "--accept-drift") and not argument.startswith("--run=")
    ]
    return _command(kept)


def _command(arguments: Sequence[str]) -> str:
    if not arguments:
        return ""
    program = arguments[0].replace("\\", "/").rsplit("/", 1)[-1]
    known = program if program in ("trimtab", "trimtab.exe") else arguments[0]
    return " ".join([shlex.quote(known), *map(shlex.quote, arguments[1:])])


def _prompts(settings: Mapping[str, Any]) -> tuple[str, ...]:
    prompts = settings.get("evaluation.samples.prompts")
    return tuple(map(str, prompts)) if isinstance(prompts, list | tuple) else ()


def _add_gap(curves: dict[str, Curve]) -> None:
    """The gap as validation minus training loss, where the run did not measure it on equal terms."""
    if "generalization_gap" in curves or "train/loss" not in curves or "validation/loss" not in curves:
        return
    steps, losses = curves["train/loss"].finite()
    at, values = curves["validation/loss"].finite()
    if len(steps) >= 4 and len(at) >= 2:
        training = np.interp(at, steps, smoothed(losses))
        curves["validation - training loss"] = Curve.points(at, values - training)


def _best(curves: Mapping[str, Curve], settings: Mapping[str, Any]) -> Best | None:
    metric = settings.get("checkpoint.metric")
    return _best_of(metric if isinstance(metric, str) and metric in curves else "validation/loss", curves)


def _best_of(metric: str, curves: Mapping[str, Curve]) -> Best | None:
    if metric not in curves or not len((finite := curves[metric].finite())[0]):
        return None
    steps, values = finite
    at = int(values.argmax() if selection_direction(metric) == "higher" else values.argmin())
    return Best(metric, int(steps[at]), float(values[at]))


def _layers(case: Case) -> Iterable[Layer]:
    windows, examined = case.history.layers, case.history.examined
    for metric in ("grad_norm", "weight_norm", "update_ratio", "activation_rms", "dead_fraction"):
        layers = windows if windows.has(metric) else examined
        if layers.has(metric):
            steps, names, values_WL = layers.values(metric)
            if len(steps) > 1:
                yield Layer(metric, steps, names, values_WL)


def _checkpoints(run: RunDirectory) -> Iterable[tuple[int, str, int, str]]:
    for info in list_checkpoints(run.path):
        yield info.step, info.path.relative_to(run.path).as_posix(), info.bytes, info.reason


def _spread(samples: Sequence[ArtifactLogged]) -> tuple[ArtifactLogged, ...]:
    """The first and the last, and others evenly between them."""
    if len(samples) <= SHOWN_SAMPLES:
        return tuple(samples)
    places = np.unique(np.rint(np.linspace(0, len(samples) - 1, SHOWN_SAMPLES)).astype(int))
    return tuple(samples[int(place)] for place in places)


def _figures(
    case: Case, curves: Mapping[str, Curve], best: Best | None, split: Mapping[str, float]
) -> Iterable[Figure]:
    """Ten numbers at most, the most telling first."""
    history = case.history
    tokens = history.get("tokens")
    total = float(tokens.columns.total.sum()) if tokens is not None else 0.0
    steps, planned = history.last_step, case.planned_steps
    shown = format.count(steps) if steps >= planned else f"{format.count(steps)} of {format.count(planned)}"
    counted, epochs = counted_in(case.facts), case.epochs()
    unit = unit_of(case)
    passes = f"{epochs:.2f} epochs" if epochs and unit == "step" else ""
    notes = [f"{format.short(total)} {counted}" if total else "", passes]
    yield Figure(f"{unit}s", shown, ", ".join(note for note in notes if note))
    if curves.get("train/loss"):
        _, values = curves["train/loss"].finite()
        few = max(1, len(values) // 20)
        mean = "" if few == 1 else "; the mean of its last twentieth"
        note = f"from {format.decimal(float(values[0]))}{mean}"
        yield Figure("training loss", format.decimal(float(values[-few:].mean())), note)
    if best is not None:
        _, values = curves[best.metric].finite()
        last = float(values[-1])
        ended = "" if last == best.value else f"; {metric_value(best.metric, last)} at the end"
        note = f"at {unit} {format.count(best.step)}{ended}"
        yield Figure(f"best {metric_name(best.metric)}", metric_value(best.metric, best.value), note)
    if (gap := curves.get("generalization_gap")) and len(gap.finite()[1]):
        last = float(gap.finite()[1][-1])
        yield Figure("generalization gap", format.signed(last), "validation less training loss, both without dropout")
    if (bits := curves.get("validation/bits_per_byte")) and len(bits.finite()[1]):
        yield Figure(
            "compression (less is better)", format.bits_per_byte(float(bits.finite()[1].min())), _yardsticks(case)
        )
    told = {"validation/loss", "validation/bits_per_byte", None if best is None else best.metric}
    for name in leading_of(case.facts) or ("validation/accuracy",):
        if name not in told and (found := _best_of(name, curves)):
            yield Figure(
                metric_name(name),
                metric_value(name, found.value),
                f"of {counted}, at best" if case.fact("task") else "at best",
            )
    parameters = case.number("parameters", "total")
    if parameters:
        frozen = case.number("parameters", "frozen") or 0
        yield Figure("parameters", format.short(parameters), f"{format.short(frozen)} frozen" if frozen else "")
    if speed := curves.get("tokens_per_second"):
        yield Figure("speed", format.tokens_per_second(float(np.median(speed.finite()[1]))), "typical")
    if split:
        note = "start, evaluation and checkpoints included"
        if "productive" in split:
            note = f"{shares(split)['productive']:.0f} % of it in updates that count"
        yield Figure("time", format.duration(sum(split.values())), note)
    bad = sum(int(curves[name].bad.sum()) for name in ("train/loss",) if name in curves)
    if bad:
        yield Figure("non-finite losses", format.count(bad), f"{unit}s")
    skipped = history.get("skipped")
    if skipped is not None and (num := float(skipped.columns.total.sum())):
        yield Figure("skipped updates", format.count(num), "steps")


def _yardsticks(case: Case) -> str:
    known = {name: case.number("yardsticks", name) for name in ("bigram", "zlib", "lzma")}
    return ", ".join(f"{name} {value:.2f}" for name, value in known.items() if value)
