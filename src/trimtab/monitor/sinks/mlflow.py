"""MLflow: parameters, metrics, tags and artifacts of a run, on a server or in files."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from trimtab.events import ArtifactLogged, Event, RunEnded, RunStarted
from trimtab.monitor.sinks.novelty import Told
from trimtab.monitor.sinks.points import Point, Points, points_of, said_in
from trimtab.monitor.sinks.state import remember, remembered

logging.getLogger("mlflow").setLevel(logging.ERROR)  # it speaks of its own tables, which nobody asked for

_MOST_METRICS: Final = 1_000
_MOST_PARAMETERS: Final = 100
_LONGEST_PARAMETER: Final = 6_000
_LONGEST_TAG: Final = 5_000
_LONGEST_NAME: Final = 250
_ENDS: Final = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


@final
class Mlflow:
    """One run of MLflow's for one of ours, by its own client: the process has no active run of MLflow's."""

    def __init__(
        self,
        folder: Path,
        record: Path,
        name: str,
        *,
        config: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
        experiment: str = "trimtab",
        tags: Mapping[str, str] | None = None,
        artifacts: bool = True,
        points: Points = "window",
        layers: bool = False,
    ) -> None:
        """`folder` is the run's; the id of MLflow's run is in its sinks/mlflow.json."""
        self._folder, self._record = folder, record
        self._points, self._layers, self._artifacts = points, layers, artifacts
        self._names: dict[str, str] = {}
        self._told, self._begun = Told(), False
        state = folder / "sinks" / "mlflow.json"
        kept = remembered(state)
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        place = _absolute(str(kept.get("tracking_uri") or uri))
        if place.startswith(("/", "file:")):  # MLflow 3 asks whoever wants files to say so
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=place)
        found = self._found(str(kept["run_id"])) if "run_id" in kept else None
        self._run_id = self._made(experiment, name, dict(tags or {})) if found is None else found
        if found is None:
            # A password is never written; the environment gives it again.
            where = {} if "@" in uri else {"tracking_uri": _absolute(uri)}
            remember(state, {"run_id": self._run_id} | where)
            self._log_parameters(config or {})
        else:
            self._client.update_run(self._run_id, status=RunStatus.to_string(RunStatus.RUNNING))

    def observe(self, event: Event) -> None:
        """Log what `event` says."""
        if isinstance(event, RunStarted):
            if self._begun:
                self._told.take_back(event.step)
            else:
                self._told.begins(event, self._record, self._known())
                if self._artifacts:
                    self._copy("config.yaml")
            self._begun = True
        told = replace(self._told)
        new = [one for one in points_of(event, self._points, layers=self._layers) if told.is_new(event, one)]
        self._log(new)
        self._told = told
        tags = [RunTag(f"trimtab.{self._name(said.name)}", _cut(said.text, _LONGEST_TAG)) for said in said_in(event)]
        if tags:
            self._client.log_batch(self._run_id, tags=tags)
        if isinstance(event, ArtifactLogged) and self._artifacts and event.path is not None:
            self._copy(event.path)
        if isinstance(event, RunEnded):
            self._client.set_terminated(self._run_id, status=_ENDS[event.status])

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is held."""

    def _log_parameters(self, config: Mapping[str, Any]) -> None:
        parameters = [Param(self._name(key), _cut(value, _LONGEST_PARAMETER)) for key, value in config.items()]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=parameters[start : start + _MOST_PARAMETERS])

    def _found(self, run_id: str) -> str | None:
        """The run of an earlier attempt; None where it is no longer there."""
        try:
            return str(self._client.get_run(run_id).info.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _made(self, experiment: str, name: str, tags: dict[str, str]) -> str:
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found is not None else self._client.create_experiment(experiment)
        own = {"mlflow.source.name": "trimtab", "trimtab.run": str(self._folder.resolve())}
        return str(self._client.create_run(number, run_name=name, tags=own | tags).info.run_id)

    def _known(self) -> Told:
        """Up to where MLflow itself says that it was told."""
        latest = self._client.get_run(self._run_id).data.metrics
        evaluated = next((name for name in latest if name.startswith("validation/")), None)
        trained = "train/loss" if "train/loss" in latest else None
        examined = next((name for name in latest if name.startswith("probe/")), None)
        return Told(self._newest(trained), self._newest(evaluated), self._newest(examined))

    def _newest(self, name: str | None) -> int:
        if name is None:
            return 0
        return max((one.step for one in self._client.get_metric_history(self._run_id, name)), default=0)

    def _log(self, points: list[Point]) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [
            Metric(self._name(name), float(value), now, one.step)
            for one in points
            for name, value in one.values.items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _MOST_METRICS])

    def _copy(self, path: str) -> None:
        source = self._folder / path
        if source.is_file():
            folder = str(Path(path).parent)
            self._client.log_artifact(self._run_id, str(source), None if folder == "." else folder)

    def _name(self, name: str) -> str:
        """`name` as MLflow takes it: `validation/loss@ema` is `validation/loss.ema`; no two become one."""
        if (known := self._names.get(name)) is None:
            taken_out = re.sub(r"[^\w\-. :/]", "_", name.replace("@", "."))
            parts = ["_" * len(part) if set(part) == {"."} else part for part in taken_out.split("/") if part]
            known = base = "/".join(parts)[:_LONGEST_NAME].strip("/ ") or "_"
            taken, number = set(self._names.values()), 2
            while known in taken:
                known, number = f"{base}_{number}", number + 1
            self._names[name] = known
        return known


def _absolute(uri: str) -> str:
    """A file by its whole path, so that the run is found again from another folder."""
    for kind in ("sqlite:///", "file://"):
        if uri.startswith(kind) and not uri.removeprefix(kind).startswith("/"):
            return kind + os.path.abspath(uri.removeprefix(kind))
    return uri if "://" in uri or uri in ("databricks", "uc") else os.path.abspath(uri)


def _cut(value: object, longest: int) -> str:
    text = str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"
