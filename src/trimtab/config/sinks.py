"""Where else a run's metrics go: one section for each kind of sink."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trimtab.config.base import Count, Custom, Positive, Section, Texts

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Sink(Section):
    """What all sinks have: they never slow a run, and what they cannot take is left out."""

    queue_events: Count = Field(1_000, description="events that may wait for it; of more the oldest are dropped")
    flush_seconds: Positive = Field(10.0, description="at the end of a run it is waited for so long, and no longer")
    max_failures: Count = Field(6, description="so many failures on end, and it is left out for the rest of the run")


class TensorBoardSink(Sink):
    """Event files in the run's folder tensorboard/: `tensorboard --logdir runs` (extra: tensorboard)."""

    name: Literal["tensorboard"] = "tensorboard"
    points: Literal["step", "window"] = Field("step", description="a point a step, or one of each window")
    layers: bool = Field(True, description="the values of every layer, too")


class WandbSink(Sink):
    """A run of Weights & Biases, online or as files that `wandb sync` uploads (extra: wandb)."""

    name: Literal["wandb"] = "wandb"
    project: str = Field("trimtab", min_length=1, description="the project that the run is in")
    entity: str | None = Field(None, min_length=1, description="the user or team; null: the account's own")
    group: str | None = Field(None, min_length=1, description="a group of runs; null: none")
    tags: Texts = Field((), description="the run's tags")
    mode: Literal["online", "offline"] = Field("online", description="online needs an account, offline none")
    points: Literal["step", "window"] = Field("window", description="a point a step, or one of each window")
    layers: bool = Field(False, description="the values of every layer, too")


class MlflowSink(Sink):
    """A run of MLflow, on a server or in files (extra: mlflow)."""

    name: Literal["mlflow"] = "mlflow"
    tracking_uri: str | None = Field(
        None,
        min_length=1,
        description="http://…, sqlite:///…, or a folder; null: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db here",
    )
    experiment: str = Field("trimtab", min_length=1, description="the experiment that the run is in")
    tags: dict[str, str] = Field(default_factory=dict, description="the run's tags, besides trimtab's own")
    artifacts: bool = Field(True, description="config.yaml and report.html are copied there, too")
    points: Literal["step", "window"] = Field("window", description="a point a step, or one of each window")
    layers: bool = Field(False, description="the values of every layer, too")

    @model_validator(mode="after")
    def _has_no_password(self) -> Self:
        if self.tracking_uri is not None and re.search(r"://[^/@]+@", self.tracking_uri):
            raise ValueError(
                "tracking_uri holds a password, and this configuration is written into the run; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_URI, in the environment"
            )
        return self


class TrackioSink(Sink):
    """A run in trackio's local database: `trackio show` (extra: trackio)."""

    name: Literal["trackio"] = "trackio"
    project: str = Field("trimtab", min_length=1, description="the project that the run is in")
    points: Literal["step", "window"] = Field("window", description="a point a step, or one of each window")
    layers: bool = Field(False, description="the values of every layer, too")


class PrometheusSink(Sink):
    """The newest values at http://HOST:PORT/metrics, for Prometheus to collect; needs no package."""

    name: Literal["prometheus"] = "prometheus"
    host: str = Field("127.0.0.1", min_length=1, description="the address that it listens at")
    port: int = Field(9464, ge=0, le=65_535, description="0: a free one, which sinks/prometheus.json names")
    token_variable: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="the environment variable with the bearer token that a reader must send; null: none",
    )
    layers: bool = Field(False, description="the values of every layer, too")

    @model_validator(mode="after")
    def _is_not_open_to_all(self) -> Self:
        if self.host not in LOOPBACK and self.token_variable is None:
            raise ValueError(
                f"host {self.host} shows the run to the network; name the environment variable of a bearer token in "
                "token_variable"
            )
        return self


class CustomSink(Sink, Custom):
    """A third party's: an object with observe(event), flush() and close(), called in a thread of its own."""

    name: Literal["custom"] = "custom"


def _named(value: Any) -> Any:
    """A sink's name alone is the sink with its defaults."""
    return {"name": value} if isinstance(value, str) else value


SinkConfig = Annotated[
    TensorBoardSink | WandbSink | MlflowSink | TrackioSink | PrometheusSink | CustomSink, Field(discriminator="name")
]


def _listed(value: Any) -> Any:
    if isinstance(value, str | Mapping):
        value = [value]
    return [_named(one) for one in value] if isinstance(value, list | tuple) else value


SinksConfig = Annotated[tuple[SinkConfig, ...], Field(strict=False), BeforeValidator(_listed)]


def sinks_twice(sinks: tuple[SinkConfig, ...]) -> list[str]:
    """Why these sinks cannot stand together."""
    names = [one.name for one in sinks]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1 and name != "custom"]
    return [f"sinks names {', '.join(twice)} twice"] if twice else []
