"""The newest values of a run at an address, in the text format that Prometheus collects."""

from __future__ import annotations

import hmac
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, final

from trimtab.config.sinks import LOOPBACK
from trimtab.events import AlertRaised, Event, RunEnded, RunStarted, StepsEnded
from trimtab.monitor.sinks.points import points_of
from trimtab.monitor.sinks.state import remember
from trimtab.runs.metrics import METRICS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SOCKET_SECONDS: Final = 10.0


@final
class Prometheus:
    """Serves /metrics in threads of its own until it is closed."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        host: str = "127.0.0.1",
        port: int = 9464,
        token_variable: str | None = None,
        layers: bool = False,
    ) -> None:
        """`folder` is the run's: the address is in its sinks/prometheus.json.

        Raises: OSError where the port is taken; ValueError where the variable with the token is empty.
        """
        token = None if token_variable is None else os.environ.get(token_variable, "")
        if token == "":
            raise ValueError(f"the environment variable {token_variable} with the bearer token is not set")
        self._name, self._layers = name, layers
        self._values: dict[str, float] = {}
        self._counted = {"steps": 0.0, "tokens": 0.0, "alerts": 0.0, "skipped_steps": 0.0}
        self._lock = threading.Lock()
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(self.exposition, token, host in LOOPBACK))
        except OSError as error:
            hint = "another run may serve there: sinks.prometheus port=0 takes a free one"
            raise OSError(f"{host}:{port} cannot be listened at ({error.strerror}); {hint}") from error
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}/metrics"
        remember(folder / "sinks" / "prometheus.json", {"url": self.url, "pid": os.getpid()})
        threading.Thread(target=self._server.serve_forever, name="trimtab-prometheus", daemon=True).start()

    def observe(self, event: Event) -> None:
        """Take the newest values."""
        with self._lock:
            for one in points_of(event, "window", layers=self._layers):
                self._values |= one.values
            match event:
                case RunStarted():
                    self._values |= {"run/step": float(event.step), "run/total_steps": float(event.total_steps)}
                    self._values["run/running"] = 1.0
                case StepsEnded():
                    self._values["run/step"] = float(event.last_step)
                    self._counted["steps"] += event.last_step - event.first_step + 1
                    for key, name in (("tokens", "tokens"), ("skipped_steps", "skipped")):
                        if (array := event.per_step.get(name)) is not None:
                            self._counted[key] += float(array.sum())
                case AlertRaised():
                    self._counted["alerts"] += 1
                case RunEnded():
                    self._values["run/running"] = 0.0

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._server.server_close()

    def exposition(self) -> str:
        """All values in the text format."""
        with self._lock:
            values, counted = dict(self._values), dict(self._counted)
        return "".join(
            [
                *_family("trimtab_time_seconds", "gauge", "when this was read", {self._name: time.time()}),
                *(
                    part
                    for name, value in counted.items()
                    for part in _family(f"trimtab_{name}_total", "counter", _COUNTED[name], {self._name: value})
                ),
                *_gauges(values, self._name),
            ]
        )


_COUNTED: Final = {
    "steps": "steps of this process",
    "tokens": "counted targets of these steps",
    "alerts": "alerts of this process",
    "skipped_steps": "updates of this process that were skipped",
}


def _gauges(values: Mapping[str, float], run: str) -> list[str]:
    """Families of gauges: values of layers and of further sets are labels of one name."""
    families: dict[str, dict[str, float]] = {}
    about: dict[str, str] = {}
    for name, value in values.items():
        family, labels = _family_of(name)
        row = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"run": run, **labels}.items())
        families.setdefault(family, {})[row] = value
        metric = METRICS.get(name)
        about.setdefault(family, f"{metric.description} ({metric.unit})" if metric else name)
    return [part for family, rows in sorted(families.items()) for part in _family(family, "gauge", about[family], rows)]


def _family_of(name: str) -> tuple[str, dict[str, str]]:
    """The metric's name for Prometheus, and what of `name` is a label."""
    plain, _, variant = name.partition("@")
    labels = {"weights": variant} if variant else {}
    parts = plain.split("/")
    if parts[0] in ("layer", "group") and len(parts) > 2:
        labels = {parts[0]: "/".join(parts[1:-1]), **labels}
        parts = [parts[0], parts[-1]]
    elif parts[0] == "validation" and len(parts) > 2:
        labels = {"set": "/".join(parts[1:-1]), **labels}
        parts = [parts[0], parts[-1]]
    return "trimtab_" + re.sub(r"[^A-Za-z0-9_]", "_", "_".join(parts)), labels


def _family(name: str, kind: str, about: str, rows: Mapping[str, float]) -> list[str]:
    """HELP, TYPE and samples; a row is labels, or the bare name of the run."""
    text = about.replace("\\", r"\\").replace("\n", " ")
    lines = [f"# HELP {name} {text}\n", f"# TYPE {name} {kind}\n"]
    for row, value in rows.items():
        labels = row if row.startswith('run="') else f'run="{_escaped(row)}"'
        lines.append(f"{name}{{{labels}}} {_number(value)}\n")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return repr(float(value)) if math.isfinite(value) else "+Inf" if value > 0 else "-Inf"


def _handler(exposition: Callable[[], str], token: str | None, only_here: bool) -> type[BaseHTTPRequestHandler]:
    """Answers GET /metrics. At a loopback address a foreign Host is refused: a page in a browser may send one."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _SOCKET_SECONDS
        server_version, sys_version = "trimtab", ""

        def do_GET(self) -> None:
            host = re.sub(r":\d+$", "", self.headers.get("Host", "")).strip("[]")
            given = self.headers.get("Authorization", "").encode()
            if only_here and host not in LOOPBACK:
                self._answer(403, "this address is for this machine alone\n")
            elif token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
                self._answer(401, "a bearer token is asked for\n")
            elif self.path.partition("?")[0] not in ("/metrics", "/"):
                self._answer(404, "try /metrics\n")
            else:
                self._answer(200, exposition())

        def _answer(self, code: int, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            if code == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the screen is the run's."""

    return Handler
