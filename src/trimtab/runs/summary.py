"""What a run came to: facts for programs, and a page for people."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.errors import TrimtabError
from trimtab.events import (
    AlertRaised,
    DecisionTaken,
    EvaluationEnded,
    Event,
    FindingsChanged,
    RunEnded,
    RunStarted,
    StepsEnded,
)
from trimtab.runs import format
from trimtab.runs.checkpoints import disk_bytes, list_checkpoints, shared_bytes, verify
from trimtab.runs.counted import counted_in
from trimtab.runs.described import YARDSTICKS as YARDSTICKS
from trimtab.runs.described import describe_decision as describe_decision
from trimtab.runs.described import describe_differences as describe_differences
from trimtab.runs.described import describe_finding as describe_finding
from trimtab.runs.described import describe_metrics as describe_metrics
from trimtab.runs.described import describe_pace as describe_pace
from trimtab.runs.described import describe_quality as describe_quality
from trimtab.runs.described import describe_split as describe_split
from trimtab.runs.described import describe_verdict as describe_verdict
from trimtab.runs.described import wrapped as wrapped
from trimtab.runs.directory import RunDirectory, list_runs
from trimtab.runs.goodput import describe_goodput, goodput
from trimtab.runs.leaked import MANY, leaked_share
from trimtab.runs.lock import live_holder
from trimtab.runs.machine import describe_machine, describe_parts, means_of
from trimtab.runs.metrics import better_direction, of_the_same_weights
from trimtab.runs.pace import Pace
from trimtab.runs.printable import printable
from trimtab.runs.program import command
from trimtab.runs.ranks import records_of_ranks
from trimtab.runs.reasons import next_command, reason_and_hint, reason_in_a_line, with_other_settings, would_repeat
from trimtab.runs.record import (
    RecordReader,
    decode_line,
    event_from_json,
    event_to_json,
    lines_backwards,
    surviving,
)
from trimtab.runs.rule_alerts import read_rule_alerts
from trimtab.runs.start import resumes_from

_TAIL_BYTES = 131_072
_ALERTS = 4
_SENTENCES = ("settings", "step", "machine", "verdict", "soup")
_INDENT = 14


def summarize(run: RunDirectory) -> dict[str, Any]:
    """All that the record and the checkpoints tell, as JSON values; from the branch that survived.

    "best" is by the metric that chose checkpoints; "goodput" counts seconds by cause over all attempts, "time_split"
    those of attempts whose work survives.
    """
    reader = RecordReader(run.record)
    lines = reader.read()
    every = _events(lines)
    kept = _events(surviving(lines))
    attempts = [event for _, event in every if isinstance(event, RunStarted)]
    windows = [event for _, event in kept if isinstance(event, StepsEnded)]
    outline = _outline(run, lines)
    goes_on_from = resumes_from(run, outline["status"])
    running = outline["status"] == "running"
    spent = goodput(lines, resumes_from=goes_on_from, running=running) if run.trainer == "trimtab" else None
    return {
        **outline,
        "attempts": max((event.attempt for event in attempts), default=0),
        "branches": [
            {"branch": event.branch, "attempt": event.attempt, "resumed_from": event.resumed_from} for event in attempts
        ],
        "restarts": [
            {"attempt": event.attempt, "reason": event.facts["restart"]}
            for event in attempts
            if event.facts.get("restart")
        ],
        "endings": _endings([event for _, event in every]),
        "would_repeat": would_repeat(event for _, event in every),
        "is_soup": "soup" in _facts(run),
        "tokens": sum(int(event.per_step["tokens"].sum()) for event in windows if "tokens" in event.per_step),
        "skipped": sum(int(event.per_step["skipped"].sum()) for event in windows if "skipped" in event.per_step),
        "machine": means_of(windows),
        "pace": None if (pace := Pace.of(event for _, event in kept)) is None else pace.to_json(),
        "tokens_per_second": windows[-1].values.get("tokens_per_second") if windows else None,
        "evaluations": sum(isinstance(event, EvaluationEnded) for _, event in kept),
        "decisions": [
            {key: value for key, value in event_to_json(event).items() if key != "event"}
            for _, event in every
            if isinstance(event, DecisionTaken)
        ],
        "alerts": [
            {"step": event.step, "kind": event.kind, "text": event.text}
            for _, event in kept
            if isinstance(event, AlertRaised)
        ],
        "rule_alerts": read_rule_alerts(run.alerts),
        "findings": next(
            (list(event.findings) for _, event in reversed(kept) if isinstance(event, FindingsChanged)), []
        ),
        "checkpoints": [
            {
                "step": info.step,
                "path": str(info.path.relative_to(run.path)),
                "reason": info.reason,
                "bytes": info.bytes,
                "shared_bytes": shared_bytes(info.path),
                "metrics": dict(info.metrics),
                "whole": not verify(info.path, hashes=False),
            }
            for info in list_checkpoints(run.path)
        ],
        "disk_bytes": disk_bytes(run.path),
        "ranks": 1 + len(records_of_ranks(run.record)),
        "damaged_lines": reader.damaged,
        "task": str(_facts(run).get("task", "causal_lm")),
        "counted": counted_in(_facts(run)),
        "resumes_from": goes_on_from,
        "goodput": None if spent is None else spent.to_json(),
    }


def list_summaries(parent: Path) -> list[dict[str, Any]]:
    """The outline of every run in `parent`, by name, from the end of its record: quick for hundreds of runs."""
    return [_outline(run, _newest_lines(run)) for run in list_runs(parent)]


def render(summary: Mapping[str, Any], width: int | None = None) -> str:
    """What `summarize` gave, as text for people; it ends with what to run next.

    In lines of at most `width`, that of a terminal; else sentences are wrapped, and facts have a line each.
    """
    rows: list[tuple[str, str]] = []
    done, total = summary["step"], summary["total_steps"]
    steps = format.count(done) if not total else f"{format.count(done)} of {format.count(total)}"
    if summary["attempts"] > 1:
        steps += f" in {summary['attempts']} attempts{_resumed(summary['branches'])}"
    rows.append(("steps", steps))
    if summary.get("base"):
        told = describe_differences(summary["differences"], summary["base"])
        rows.append(("settings", told))
    begins = summary["phase"] == "starting"
    for ending in summary["endings"] if begins else summary["endings"][:-1]:
        told = reason_in_a_line(ending["reason"])
        why = f"{ending['status']}: {told}" if told else "killed: no end was written"
        rows.append(("attempt", f"{ending['attempt']} ended at step {format.count(ending['step'])}, {why}"))
    rows += [
        ("restart", f"attempt {restart['attempt']} by the supervisor: {printable(restart['reason'])}")
        for restart in summary["restarts"]
    ]
    if begins:
        rows.append(("now", "a process has taken the run, and is about to go on"))
    elif summary["phase"] == "closing":
        rows.append(("now", f"is over ({reason_in_a_line(summary['ended']['reason'])}); the report is being written"))
    elif summary["ended"] is not None:
        told, hint = reason_and_hint(summary["ended"]["reason"])
        rows += [("ended", told), *([("hint", hint)] if hint else [])]
    elif summary["status"] == "killed":
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary["last_seconds"]))
        rows.append(("ended", f"killed: no end was written; step {format.count(done)} was seen last, at {when}"))
    elif summary["status"] == "new":
        rows.append(("ended", "before its first step; nothing was trained yet"))
    if summary["resumes_from"] is not None:
        again = max(0, done - summary["resumes_from"])  # a save is in the record before its window's values
        redone = f"; {format.count(again)} step{'' if again == 1 else 's'} at least will be done again" if again else ""
        where = f"step {format.count(summary['resumes_from'])}" if summary["resumes_from"] else "the beginning"
        rows.append(("resume", f"goes on from {where}{redone}"))
        if summary["would_repeat"]:
            rows.append(("", "as it is, it would come to the same; with what the doctor says to change:"))
            rows.append(("", with_other_settings(printable(summary["run"]))))
    if (best := summary["best"]) is not None:
        restored = summary["ended"] is not None and summary["ended"]["restored_step"] == best["step"]
        where = f"{printable(best['metric'])} {format.decimal(best['value'])} at step {format.count(best['step'])}"
        rows.append(("best", where + (", restored" if restored else "")))
        if quality := describe_quality(best["bits_per_byte"], summary["yardsticks"]):
            rows.append(("quality", quality))
    if (newest := summary["validation"]) is not None:
        rows.append(("validation", f"step {format.count(newest['step'])}: {describe_metrics(newest['metrics'])}"))
    if summary["train_loss"] is not None:
        counted = summary["counted"]
        tokens = f", {format.short(summary['tokens'])} {counted}" if summary["tokens"] else ""
        speed = summary["tokens_per_second"]
        tokens += f", {format.tokens_per_second(speed)}" if speed else ""
        rows.append(("training", f"loss {format.decimal(summary['train_loss'])} in the last window{tokens}"))
    if (pace := summary["pace"]) is not None:
        rows.append(("step", describe_pace(pace)))
    of_machine = (("step", describe_parts), ("machine", describe_machine))
    rows += [(label, told) for label, describe in of_machine if (told := describe(summary["machine"]))]
    if summary["skipped"]:
        rows.append(("skipped", f"{_part(summary['skipped'], done)} updates, which changed nothing"))
    if summary["ranks"] > 1:
        rows.append(("ranks", f"{summary['ranks']}, of which the values here are rank 0's"))
    if summary["goodput"] is not None:
        rows.append(("time", describe_goodput(summary["goodput"])))
    elif summary["seconds"]:
        split = describe_split(summary["time_split"])
        rows.append(("time", format.duration(summary["seconds"]) + (f": {split}" if split else "")))
    for checkpoint in summary["checkpoints"]:
        reason = printable(checkpoint["reason"], limit=60) + ("" if checkpoint["whole"] else "; damaged")
        rows.append(
            (
                "checkpoint",
                f"step {format.count(checkpoint['step'])}, {format.size(checkpoint['bytes'])}, {reason}",
            )
        )
    whole = sum(checkpoint["bytes"] for checkpoint in summary["checkpoints"])
    if any(checkpoint["shared_bytes"] for checkpoint in summary["checkpoints"]):
        rows.append(("on disk", f"{format.size(summary['disk_bytes'])} of {format.size(whole)}: the same bytes once"))
    steering = [line for line in summary["decisions"] if line["decision"]["kind"] not in ("Save", "Evaluate", "Advise")]
    rows += [("decision", f"step {format.count(line['step'])}, {describe_decision(line)}") for line in steering]
    alerts = summary["alerts"]
    rows += [
        ("alert", f"step {format.count(one['step'])}, {printable(one['text'], limit=200)}") for one in alerts[:_ALERTS]
    ]
    if len(alerts) > _ALERTS:
        rows.append(("alert", f"and {format.count(len(alerts) - _ALERTS)} more (show --json has all)"))
    rules = summary["rule_alerts"]
    rows += [
        ("rule", f"step {format.count(one['step'])}, {printable(one['text'], limit=200)}") for one in rules[-_ALERTS:]
    ]
    if len(rules) > _ALERTS:
        rows.append(("rule", f"the newest of {format.count(len(rules))} (alerts.jsonl has all)"))
    if (diagnosis := summary.get("diagnosis")) is not None:
        verdict = f"{describe_verdict(diagnosis['verdict'], diagnosis.get('beaten_by', ''))}: "
        label, verdict = ("soup", "") if summary["is_soup"] else ("verdict", verdict)
        rows.append((label, verdict + diagnosis["summary"]))
    findings = summary["findings"] if diagnosis is None else diagnosis["findings"]
    rows += [("finding", describe_finding(one)) for one in findings if not one.get("guess")]  # `trimtab doctor` tells
    if summary["damaged_lines"]:
        rows.append(("damaged", f"{format.counted(summary['damaged_lines'], 'line')} of the record left out"))
    lines = [f"{printable(summary['name'])}: {summary['status']}"]
    previous = ""
    for label, text in rows:
        parts = [text] if width is None and label not in _SENTENCES else wrapped(text, (width or 114) - _INDENT)
        for part in parts:
            lines.append(f"  {label if label != previous else '':<11} {part}")
            previous = label
    after = {"source": summary["source"], "task": summary["task"], "repeats": summary["would_repeat"]}
    lines.append(f"next: {next_command(summary['status'], summary['run'], **after)}")
    return "\n".join(lines)


def render_list(summaries: Sequence[Mapping[str, Any]], parent: Path) -> str:
    """What `list_summaries` gave, one line a run, the newest last; it ends with what to run next."""
    if not summaries:
        return f"no runs in {printable(str(parent))}\nnext: {command('demo')}"
    table = [("run", "status", "steps", "best", "at step", "train loss", "time")]
    for summary in summaries:
        total, best = summary["total_steps"], summary["best"]
        table.append(
            (
                printable(summary["name"], limit=60),
                summary["status"],
                _steps(summary["step"], total),
                (format.decimal(best["value"]) if best else "-") + ("*" if summary["leaked"] else ""),
                format.count(best["step"]) if best else "-",
                format.decimal(summary["train_loss"]) if summary["train_loss"] is not None else "-",
                format.duration(summary["seconds"]) if summary["seconds"] else "-",
            )
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    if any(summary["leaked"] for summary in summaries):
        lines.append("* judged on what it was trained on: validation texts are in the training set")
    return "\n".join([*lines, f"next: {command('show', printable(summaries[-1]['run']))}"])


def _steps(done: int, total: int | None) -> str:
    """How far a run is; where nobody planned how far it goes, its steps alone."""
    return f"{format.count(done)}/{format.count(total)}" if total else format.count(done) if done else "-"


def _outline(run: RunDirectory, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    events = _events(surviving(lines))
    started = next((event for _, event in reversed(events) if isinstance(event, RunStarted)), None)
    ended = next((event for _, event in reversed(events) if isinstance(event, RunEnded | RunStarted)), None)
    windows = (event for _, event in reversed(events) if isinstance(event, StepsEnded))
    window = next((event for event in windows if "train/loss" in event.per_step), None)
    evaluations = [event for _, event in events if isinstance(event, EvaluationEnded)]
    newest = evaluations[-1] if evaluations else None
    split = dict(ended.time_split) if isinstance(ended, RunEnded) else {}
    status = run.status()
    phase = None if status != "running" else _phase(run, lines, has_ended=isinstance(ended, RunEnded))
    elapsed = lines[-1]["time"] - lines[0]["time"] if lines else 0.0
    return {
        "schema": 1,
        "run": str(run.path),
        "name": run.name,
        "trainer": run.trainer,
        "source": run.source,
        "status": status,
        "phase": phase,
        "step": max((int(line["step"]) for line, _ in events), default=0),
        "total_steps": started.total_steps if started is not None else None,
        "started_seconds": lines[0]["time"] if lines else None,
        "last_seconds": lines[-1]["time"] if lines else None,
        "seconds": sum(split.values()) or max(elapsed, 0.0),
        "time_split": split,
        "train_loss": _mean_loss(window),
        "validation": None if newest is None else {"step": newest.step, "metrics": dict(newest.metrics)},
        "best": _best(run, evaluations),
        "yardsticks": _facts(run).get("yardsticks") or {},
        "leaked": leaked_share(_facts(run), least=MANY),
        "ended": {
            "status": ended.status,
            "reason": ended.reason,
            "step": ended.step,
            "restored_step": ended.restored_step,
        }
        if isinstance(ended, RunEnded) and phase != "starting"
        else None,
    }


def _phase(run: RunDirectory, lines: Sequence[dict[str, Any]], *, has_ended: bool) -> str:
    """What the process does that has a run: "starting" before its first line, "closing" after its last."""
    holder = live_holder(run.lock)
    if holder is None or not lines or holder.process_started > lines[-1]["time"]:
        return "starting"
    return "closing" if has_ended else "training"


def _endings(events: Sequence[Event]) -> list[dict[str, Any]]:
    """How each attempt ended, and after which step; "killed" and no reason where it wrote no end."""
    endings: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, RunStarted) and (not endings or event.attempt != endings[-1]["attempt"]):
            endings.append({"attempt": event.attempt, "status": "killed", "reason": "", "step": event.step})
        elif endings and isinstance(event, RunEnded):
            endings[-1] |= {"status": event.status, "reason": event.reason, "step": event.step}
        elif endings:
            step = event.last_step if isinstance(event, StepsEnded) else event.step
            endings[-1]["step"] = max(endings[-1]["step"], step)
    return endings


def _newest_lines(run: RunDirectory) -> list[dict[str, Any]]:
    """The first line of the record, and those at its end."""
    lines: list[dict[str, Any]] = []
    try:
        with open(run.record, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = decode_line(file.readline())
            for raw, start in lines_backwards(file):
                line = decode_line(raw)
                if line is not None and start > 0:
                    lines.append(line)
                if start < size - _TAIL_BYTES:
                    break
    except OSError:
        return []
    return ([first] if first is not None else []) + lines[::-1]


def _facts(run: RunDirectory) -> Mapping[str, Any]:
    """What was known before step 1; empty where that cannot be read."""
    with contextlib.suppress(TrimtabError):
        return run.read_json(run.facts)
    return {}


def _resumed(branches: Sequence[Mapping[str, Any]]) -> str:
    """From which steps attempts went on, those in a row from one step once; a rollback within an attempt is none."""
    first = {branch["attempt"]: branch["resumed_from"] for branch in reversed(branches)}
    at = [first[attempt] for attempt in sorted(first) if attempt > 1]
    told = []
    for step, several in itertools.groupby(at):
        times = len(list(several))
        where = "the beginning" if step is None else f"step {format.count(step)}"
        told.append(where + (f" ({times} times)" if times > 1 else ""))
    return f", resumed at {', '.join(told)}" if told else ""


def _part(number: float, whole: float) -> str:
    return f"{format.count(number)} of {format.count(whole)}"


def _best(run: RunDirectory, evaluations: Sequence[EvaluationEnded]) -> dict[str, Any] | None:
    """By the metric that chooses checkpoints, from evaluations and from the checkpoints that were kept."""
    metric = "validation/loss"
    with contextlib.suppress(TrimtabError, KeyError, TypeError):
        metric = str(run.read_json(run.facts)["identity"]["config.checkpoint.metric"])
    sign = -1.0 if better_direction(metric) == "higher" else 1.0
    measured = [(event.step, event.metrics) for event in evaluations]
    measured += [(info.step, info.metrics) for info in list_checkpoints(run.path)]
    values = [
        (sign * value, step) for step, metrics in measured if math.isfinite(value := metrics.get(metric, math.nan))
    ]
    if not values:
        return None
    value, step = min(values)
    name = of_the_same_weights("validation/bits_per_byte", metric)
    bits = next((m.get(name) for s, m in measured if s == step), None)
    return {"metric": metric, "value": sign * value, "step": step, "bits_per_byte": bits}


def _events(lines: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], Event]]:
    """Lines with their events, without those that this version does not know."""
    known = []
    for line in lines:
        try:
            known.append((line, event_from_json(line)))
        except ValueError:
            continue
    return known


def _mean_loss(window: StepsEnded | None) -> float | None:
    if window is None or "train/loss" not in window.per_step or not len(window.per_step["train/loss"]):
        return None
    return float(window.per_step["train/loss"].mean())
