"""A run that goes on, as it stands: what `trimtab top` shows, as JSON values, from files that are only read."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, final

import numpy as np

from trimtab.errors import TrimtabError
from trimtab.events import Advise, Evaluate, Save
from trimtab.runs import History, RunDirectory, Series, live_holder
from trimtab.runs.described import describe_decision
from trimtab.runs.files import SCHEMA, json_value
from trimtab.runs.leading import leading_of
from trimtab.runs.metrics import better_direction
from trimtab.runs.record import RecordReader, event_to_json, surviving
from trimtab.runs.rule_alerts import read_rule_alerts

POINTS: Final = 120
"""Values in the curve of a metric."""
_SHOWN: Final = (
    "train/loss",
    "validation/loss",
    "grad_norm",
    "grad_cosine",
    "learning_rate",
    "tokens_per_second",
    "mfu",
    "memory_bytes",
)
_HARDWARE: Final = ("utilization_percent", "power_watts", "temperature_celsius")
_NEWEST: Final = 5
"""Of findings, alerts and decisions."""
_PACE_WINDOWS: Final = 50


@final
class Follower:
    """Reads what a run has written since it was asked last. It writes nothing, and takes no lock for itself."""

    def __init__(self, run: RunDirectory, *, now: Callable[[], float] = time.time) -> None:
        self.run = run
        self._now = now
        self._begin()

    def _begin(self) -> None:
        self._reader = RecordReader(self.run.record)
        self._history = History()
        self._branch: int | None = None
        self._first_time: float | None = None
        self._last_time: float | None = None
        self._pace: deque[tuple[float, int]] = deque(maxlen=_PACE_WINDOWS)

    def frame(self) -> dict[str, Any]:
        """The run now. Raises: UsageError when a newer trimtab writes it; StorageError."""
        self._read()
        history, run = self._history, self.run
        status, holder = run.status(), live_holder(run.lock)
        step = history.last_step
        left = self._seconds_left(step) if status == "running" else None
        ended = history.ended
        return {
            "schema": SCHEMA,
            "time": round(self._now(), 3),
            "run": str(run.path),
            "name": run.name,
            "status": status,
            "reason": ended.reason if ended is not None and status != "running" else None,
            "step": step,
            "total_steps": history.total_steps,
            "seconds_left": left,
            "seconds": None if self._first_time is None else max(0.0, self._until(status) - self._first_time),
            "pid": None if holder is None else holder.pid,
            "host": None if holder is None else holder.host,
            "alive_seconds_ago": None if holder is None else max(0.0, self._now() - holder.heartbeat),
            "told_seconds_ago": None if self._last_time is None else max(0.0, self._now() - self._last_time),
            "attempt": history.starts[-1].attempt if history.starts else None,
            "branch": self._branch,
            "best": self._best(),
            "metrics": {name: _curve(history.series[name], step) for name in self._names()},
            "findings": self._findings(),
            "alerts": self._alerts(),
            "decisions": [
                {"step": decision.step, "text": describe_decision(event_to_json(decision))}
                for decision in history.decisions
                if not isinstance(decision.decision, Save | Evaluate | Advise)
            ][-_NEWEST:],
            "num_alerts": len(history.alerts) + len(read_rule_alerts(self.run.alerts)),
            "num_evaluations": len(history.evaluation_seconds),
            "num_checkpoints": len(history.checkpoints),
            "damaged_lines": self._reader.damaged,
        }

    def _read(self) -> None:
        with suppress(OSError):
            if self.run.record.stat().st_size < self._reader.offset:  # another run has taken its place
                self._begin()
        lines = self._reader.read()
        if not lines:
            return
        branches = {line["branch"] for line in lines}
        if self._branch is None or branches != {self._branch}:
            # Whatever a new branch took back is to go, and a history cannot be taken apart.
            self._begin()
            lines = surviving(self._reader.read())
        self._history.extend(lines)
        self._branch = max(line["branch"] for line in lines)
        if self._first_time is None:
            self._first_time = lines[0]["time"]
        self._last_time = lines[-1]["time"]
        self._pace.extend((line["time"], line["last_step"]) for line in lines if line["event"] == "StepsEnded")

    def _until(self, status: str) -> float:
        return self._now() if status == "running" or self._last_time is None else self._last_time

    def _seconds_left(self, step: int) -> float | None:
        """By the clock, so that evaluations and checkpoints count."""
        total = self._history.total_steps
        if len(self._pace) < 2 or total is None:
            return None
        (then, earlier), (now, later) = self._pace[0], self._pace[-1]
        if later <= earlier or now <= then:
            return None
        left = (now - then) / (later - earlier) * (total - step) - (self._now() - now)
        return max(0.0, left)

    def _names(self) -> list[str]:
        series = self._history.series
        first = [self._metric(), *leading_of(self._facts())]
        names = [name for name in dict.fromkeys([_SHOWN[0], *first, *_SHOWN[1:]]) if name in series]
        for last in _HARDWARE:
            names += sorted(name for name in series if name.startswith("hardware/") and name.endswith(f"/{last}"))[:2]
        return names

    def _facts(self) -> Mapping[str, Any]:
        with suppress(TrimtabError):
            return self.run.read_json(self.run.facts)
        return {}

    def _metric(self) -> str:
        """The one that chooses checkpoints."""
        with suppress(KeyError, TypeError):
            return str(self._facts()["identity"]["config.checkpoint.metric"])
        return "validation/loss"

    def _best(self) -> dict[str, Any] | None:
        series = self._history.get(metric := self._metric())
        if series is None or not len(series.finite()[1]):
            return None
        higher = better_direction(metric) == "higher"
        values = series.maximum if higher else series.minimum
        place = int(np.nanargmax(values) if higher else np.nanargmin(values))
        return {"metric": metric, "value": float(values[place]), "step": int(series.steps[place])}

    def _findings(self) -> list[dict[str, Any]]:
        """Those of the verdict where the run is over, else the newest that were told."""
        history = self._history
        if history.ended is not None and self.run.diagnosis.exists():
            with suppress(TrimtabError, AttributeError, TypeError):
                return [_finding(one) for one in self.run.read_json(self.run.diagnosis)["findings"]][:_NEWEST]
        told = {str(one.get("code")): _finding(one) | {"step": e.step} for e in history.findings for one in e.findings}
        return list(told.values())[-_NEWEST:]

    def _alerts(self) -> list[dict[str, Any]]:
        found = [{"step": one.step, "text": one.text} for one in self._history.alerts]
        found += [{"step": one["step"], "text": one["text"]} for one in read_rule_alerts(self.run.alerts)]
        return sorted(found, key=lambda one: int(str(one["step"])))[-_NEWEST:]


def _finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    remedies = finding.get("remedies") or [{}]
    return {
        "severity": str(finding.get("severity", "")),
        "code": str(finding.get("code", "")),
        "step": finding.get("onset_step"),
        "text": str(finding.get("cause", "")),
        "remedy": str(remedies[0].get("summary", "")),
    }


def _curve(series: Series, last_step: int) -> dict[str, Any]:
    """A metric over the run in equal stretches of steps: its mean in each, "nan" where a sample was not finite."""
    steps, values = series.finite()
    low, high = series.minimum, series.maximum
    has_any = bool(len(values))
    points: list[float | None] = [None] * POINTS
    held: float | None = None
    places = np.clip((steps - 1) * POINTS // max(last_step, 1), 0, POINTS - 1)
    bad = set(np.clip((series.steps[series.bad > 0] - 1) * POINTS // max(last_step, 1), 0, POINTS - 1).tolist())
    counts = np.bincount(places, minlength=POINTS)
    totals = np.bincount(places, weights=values, minlength=POINTS)
    for place in range(POINTS):
        held = float(totals[place] / counts[place]) if counts[place] else held
        points[place] = math.nan if place in bad else held
    return {
        "last": json_value(series.last),
        "minimum": float(np.nanmin(low)) if has_any else None,
        "maximum": float(np.nanmax(high)) if has_any else None,
        "curve": json_value(points),
    }
