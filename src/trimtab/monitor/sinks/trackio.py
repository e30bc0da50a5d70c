"""trackio: a run in its local database, which `trackio show` draws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

from trackio.sqlite_storage import SQLiteStorage

from trimtab.events import Event, RunStarted
from trimtab.monitor.sinks.novelty import Told
from trimtab.monitor.sinks.points import Point, Points, points_of, said_in

_LEVELS: Final = {"info": "info", "warning": "warn", "error": "error"}


@final
class Trackio:
    """Writes rows by trackio's own storage: its `init` prints, and begins threads for what we measure ourselves."""

    def __init__(
        self,
        record: Path,
        name: str,
        *,
        config: Mapping[str, Any] | None = None,
        project: str = "trimtab",
        points: Points = "window",
        layers: bool = False,
    ) -> None:
        """`name` is the run's: attempts of one run go on under it."""
        SQLiteStorage.validate_project_name(project)
        self._record, self._name, self._project = record, name, project
        self._points, self._layers = points, layers
        self._config: dict[str, Any] | None = dict(config or {})
        self._told, self._begun = Told(), False

    def observe(self, event: Event) -> None:
        """Write what `event` says. Raises: what sqlite3 raises."""
        if isinstance(event, RunStarted):
            if self._begun:
                self._told.take_back(event.step)
            else:
                self._told.begins(event, self._record, self._known())
            self._begun = True
        told = replace(self._told)
        self._log([one for one in points_of(event, self._points, layers=self._layers) if told.is_new(event, one)])
        self._told = told
        now = datetime.now(UTC).isoformat()
        for said in said_in(event):
            SQLiteStorage.bulk_alert(
                project=self._project,
                run=self._name,
                titles=[said.name],
                texts=[said.text],
                levels=[_LEVELS[said.level]],
                steps=[said.step],
                timestamps=[now],
                run_id=self._name,
            )

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is held."""

    def _known(self) -> Told:
        """Up to where the database says that it was told."""
        told = Told()
        for row in SQLiteStorage.get_logs(self._project, self._name, run_id=self._name):
            step = int(row.get("step") or 0)
            if "train/loss" in row:
                told.steps = max(told.steps, step)
            if any(name.startswith("validation/") for name in row):
                told.evaluations = max(told.evaluations, step)
            if any(name.startswith("probe/") for name in row):
                told.examinations = max(told.examinations, step)
        return told

    def _log(self, points: list[Point]) -> None:
        if not points:
            return
        SQLiteStorage.bulk_log(
            project=self._project,
            run=self._name,
            metrics_list=[dict(one.values) for one in points],
            steps=[one.step for one in points],
            timestamps=[datetime.fromtimestamp(time.time(), UTC).isoformat()] * len(points),
            config=self._config,
            run_id=self._name,
        )
        self._config = None
