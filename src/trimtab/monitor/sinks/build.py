"""The sinks that a configuration names, each behind its queue."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from trimtab.config import (
    Config,
    CustomSink,
    MlflowSink,
    PrometheusSink,
    SinkConfig,
    TensorBoardSink,
    TrackioSink,
    WandbSink,
    flatten,
)
from trimtab.config.registry import load_target, require
from trimtab.config.registry.monitor import SINKS
from trimtab.config.secrets import hidden
from trimtab.errors import Notice
from trimtab.monitor.sinks.contract import Sink
from trimtab.monitor.sinks.queue import Queued
from trimtab.monitor.sinks.state import remembered
from trimtab.runs import RunDirectory


def require_sinks(sinks: Sequence[SinkConfig]) -> None:
    """Nothing, where all is there that they need. Raises: ConfigError for a missing package, or account."""
    for section in sinks:
        if (spec := SINKS.get(section.name)) is not None:
            require(spec, f"sinks: {section.name}")
    if any(isinstance(section, WandbSink) and section.mode == "online" for section in sinks):
        from trimtab.monitor.sinks.wandb import check_account

        check_account()


@contextmanager
def open_sinks(config: Config, run: RunDirectory) -> Iterator[tuple[Queued, ...]]:
    """Those of `config`; in the end each is waited for as long as its flush_seconds says.

    After a second interrupt none is waited for.
    """
    opened = [(section, _queued(section, config, run)) for section in config.sinks]
    waits = True
    try:
        yield tuple(sink for _, sink in opened)
    except KeyboardInterrupt:
        waits = False
        raise
    finally:
        for section, sink in opened:
            sink.close(section.flush_seconds if waits else 0.0)


def _queued(section: SinkConfig, config: Config, run: RunDirectory) -> Queued:
    load, make = _loaded(section, config, run)
    return Queued(
        section.target if isinstance(section, CustomSink) else section.name,
        make,
        load=load,
        queue_events=section.queue_events,
        max_failures=section.max_failures,
    )


def _loaded(section: SinkConfig, config: Config, run: RunDirectory) -> tuple[Callable[[], Any], Callable[[], Sink]]:
    """How its code is loaded, and how it is made after that."""
    path = section.target if isinstance(section, CustomSink) else SINKS[section.name].path

    def load() -> Any:
        return load_target(path, f"sinks: {section.name}")

    def make() -> Sink:
        sink: Sink = load()(**_arguments(section, config, run))
        if where := _where(section, run):
            warnings.warn(where, Notice, stacklevel=2)
        return sink

    return load, make


def _arguments(section: SinkConfig, config: Config, run: RunDirectory) -> dict[str, Any]:
    given = section.model_dump(exclude={"name", "queue_events", "flush_seconds", "max_failures"})
    folder, record = run.path, run.record
    match section:
        case TensorBoardSink():
            parameters = hyperparameters(config)
            return given | {
                "folder": folder / "tensorboard",
                "run": folder,
                "record": record,
                "hyperparameters": parameters,
            }
        case WandbSink():
            return given | {"folder": folder, "record": record, "name": run.name, "config": _nested(config)}
        case MlflowSink():
            return given | {"folder": folder, "record": record, "name": run.name, "config": hyperparameters(config)}
        case TrackioSink():
            return given | {"record": record, "name": run.name, "config": hyperparameters(config)}
        case PrometheusSink():
            return given | {"folder": folder, "name": run.name}
        case CustomSink():
            return dict(section.arguments)


def _where(section: SinkConfig, run: RunDirectory) -> str:
    """Where what is sent to a sink can be seen, in words; '' where its own maker knows."""
    kept = remembered(run.path / "sinks" / f"{section.name}.json")
    match section:
        case TensorBoardSink():
            return f"tensorboard: `tensorboard --logdir {run.path / 'tensorboard'}`"
        case WandbSink(mode="offline"):
            return f"wandb: `wandb sync {run.path / 'wandb'}/offline-run-*` uploads it"
        case WandbSink():
            return f"wandb: {kept.get('url')}"
        case MlflowSink():
            uri = str(kept.get("tracking_uri", ""))
            return f"mlflow: {uri}" if uri.startswith("http") else f"mlflow: `mlflow ui --backend-store-uri {uri}`"
        case TrackioSink():
            return f"trackio: `trackio show --project {section.project}`"
        case PrometheusSink():
            return f"prometheus: {kept.get('url')}"
        case _:
            return ""


def hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """Every value by its dotted key, without secrets; what is no plain value as text, what is not set left out."""
    values: Mapping[str, Any] = hidden(flatten(config))
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in values.items()
        if value is not None and value != () and not re.match(r"(sinks|privacy)(\.|$)", key)
    }


def _nested(config: Config) -> dict[str, Any]:
    values: dict[str, Any] = hidden(config.model_dump(mode="json", exclude={"sinks"}))
    return values
