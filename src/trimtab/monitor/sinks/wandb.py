"""Weights & Biases: one run of theirs for one run of ours, however many attempts it takes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
import wandb

from trimtab.errors import ConfigError
from trimtab.events import ArtifactLogged, Event, ExaminationEnded, RunEnded, RunStarted
from trimtab.monitor.sinks.histogram import Histogram, histogram_of, of_bins
from trimtab.monitor.sinks.novelty import Told
from trimtab.monitor.sinks.points import Points, Said, points_of, said_in
from trimtab.monitor.sinks.state import as_state, remember, remembered, told_of
from trimtab.runs.metrics import METRICS

_LEVELS: Final = {"info": "INFO", "warning": "WARN", "error": "ERROR"}
_LOG_FLUSH_SECONDS: Final = 1.0
"""W&B's own log of a run, which a killed process leaves behind; theirs is 15."""


@final
class WeightsAndBiases:
    """Logs against the metric `step`, so that a rollback shows, and never asks for what is typed at a terminal.

    Nothing but what is given here is sent: no code, no git state, no command line, no console.
    """

    def __init__(
        self,
        folder: Path,
        record: Path,
        name: str,
        *,
        config: Mapping[str, Any] | None = None,
        project: str = "trimtab",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: Literal["online", "offline"] = "online",
        points: Points = "window",
        layers: bool = False,
    ) -> None:
        """`folder` is the run's: W&B's files go into its wandb/, and the id of the run into sinks/wandb.json."""
        self._folder, self._record = folder, record
        self._state = folder / "sinks" / "wandb.json"
        self._points, self._layers = points, layers
        kept = remembered(self._state)
        self._known, self._told = told_of(kept), Told()
        identity = str(kept.get("id") or uuid.uuid4().hex[:8])
        self._begun = False
        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=_LOG_FLUSH_SECONDS,
        )
        wandb.setup(wandb.Settings(silent=True))
        self._run: Any = wandb.init(
            project=project,
            entity=entity,
            group=group,
            name=name,
            id=identity,
            tags=list(tags),
            mode=mode,
            dir=str(folder),
            config=dict(config or {}),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )
        self._identity, self._url = identity, None if mode == "offline" else self._run.url
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        for metric, better in (("validation/loss", "min"), *_summarized()):
            self._run.define_metric(metric, step_metric="step", summary=better)
        self._keep()

    def observe(self, event: Event) -> None:
        """Log what `event` says."""
        if isinstance(event, RunStarted):
            if self._begun:
                self._told.take_back(event.step)
            else:
                self._told.begins(event, self._record, self._known)
            self._begun = True
        for one in points_of(event, self._points, layers=self._layers):
            if self._told.is_new(event, one):
                self._run.log({**one.values, "step": one.step})
        for said in said_in(event):
            self._say(said)
        if isinstance(event, ArtifactLogged):
            self._log_artifact(event)
        if isinstance(event, ExaminationEnded) and self._layers:
            bars = {name: of_bins(one.low, one.high, one.counts) for name, one in event.histograms.items()}
            if bars:
                self._run.log({name: _bars(one) for name, one in bars.items()} | {"step": event.step})
        if isinstance(event, RunEnded):
            self._run.summary.update(_end(event))

    def flush(self) -> None:
        """W&B writes by itself; what it was told is remembered."""
        self._keep()

    def close(self) -> None:
        """Finish the run: online, that waits until all is uploaded."""
        self._keep()
        self._run.finish()

    def _say(self, said: Said) -> None:
        if said.level == "info":
            self._run.summary[f"text/{said.name}"] = said.text[:10_000]
        else:
            self._run.alert(title=said.name, text=f"step {said.step}: {said.text}", level=_LEVELS[said.level])
        self._run.log({f"text/{said.name}": wandb.Html(_escaped(said.text), inject=False), "step": said.step})

    def _log_artifact(self, event: ArtifactLogged) -> None:
        if event.kind == "picture" and event.path is not None:
            self._run.log({event.name: wandb.Image(str(self._folder / event.path)), "step": event.step})
        elif event.kind == "histogram" and (found := histogram_of(event)) is not None:
            self._run.log({event.name: _bars(found), "step": event.step})

    def _keep(self) -> None:
        told = as_state(self._told) if self._begun else {}
        kept = remembered(self._state) if not self._begun else {}
        remember(self._state, kept | {"id": self._identity, "url": self._url} | told)


def _bars(one: Histogram) -> Any:
    return wandb.Histogram(np_histogram=(np.array(one.counts), np.array(one.edges)))


def check_account() -> None:
    """Raises: ConfigError where nobody is logged in, before a run begins and W&B would ask at the terminal."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    from wandb.sdk.lib.wbauth import HostUrl, read_netrc_auth

    host = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    if read_netrc_auth(host=HostUrl(host)) is None:
        raise ConfigError(
            f"sinks: wandb is online, and there is no account for {host} on this machine",
            hint="`wandb login`, or WANDB_API_KEY in the environment; without an account: "
            "sinks=[{name: wandb, mode: offline}]",
        )


def _summarized() -> list[tuple[str, str]]:
    """Metrics of an evaluation, with the word for which of their values stands for the run."""
    words = {"lower": "min", "higher": "max"}
    return [
        (name, words[metric.better])
        for name, metric in METRICS.items()
        if metric.window == "evaluation" and metric.better in words and "<" not in name and name != "validation/loss"
    ]


def _end(event: RunEnded) -> dict[str, Any]:
    found: dict[str, Any] = {"status": event.status, "reason": event.reason, "seconds": event.seconds}
    found |= {f"time/{cause}_seconds": seconds for cause, seconds in event.time_split.items()}
    if event.best_step is not None:
        found |= {"best/step": event.best_step, "best/value": event.best_value}
    return found


def _escaped(text: str) -> str:
    """As HTML that shows the text and does nothing."""
    shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<pre>{shown}</pre>"
