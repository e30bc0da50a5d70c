"""Commands that train: demo, train, resume."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn

import typer
import typer.core

from trimtab.errors import (
    EXIT_INTERRUPTED,
    EXIT_KILLED_TWICE,
    UsageError,
)

if TYPE_CHECKING:
    from trimtab.config import Config
    from trimtab.trainer import Result

from trimtab.cli.options import (
    AcceptDrift,
    LogFormat,
    MaxRestarts,
    Overrides,
    Run,
    Source,
    TakesSettings,
    app,
    shown,
    tell_next,
)

_DEMO: Final = "demo"


_SMALL_DEMO: Final = "demo-small"


_DEMO_SPEED: Final = 2e11
"""Floating-point operations a second with which the larger demo is done in four minutes."""


@app.command(cls=TakesSettings)
def demo(
    overrides: Overrides = None,
    run: Annotated[Path | None, typer.Option("--run", help="Where the run is kept.")] = None,
    log_format: LogFormat = "text",
) -> None:
    """Train a small GPT on Python code that is already on this machine: about four minutes on two cores."""
    _ignore_save_signal()
    _train(_demo(overrides or [], run), overrides or [], run, accept_drift=False, log_format=log_format)


@app.command(cls=TakesSettings)
def train(
    source: Source,
    overrides: Overrides = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A new run directory, or an unfinished one to go on with.")
    ] = None,
    accept_drift: AcceptDrift = False,
    max_restarts: MaxRestarts = 0,
    log_format: LogFormat = "text",
) -> None:
    """Train what a configuration describes; with the --run of an unfinished run, go on with it."""
    _ignore_save_signal()
    _train(
        source,
        overrides or [],
        run,
        accept_drift=accept_drift,
        log_format=log_format,
        max_restarts=max_restarts,
        arguments=["train", source, *(overrides or [])],
    )


@app.command()
def resume(
    run: Run, accept_drift: AcceptDrift = False, max_restarts: MaxRestarts = 0, log_format: LogFormat = "text"
) -> None:
    """Go on with a run that was interrupted or killed."""
    _ignore_save_signal()
    from trimtab.runs import RunDirectory
    from trimtab.runs.files import read_json
    from trimtab.runs.program import in_python

    directory = RunDirectory.open(run)
    directory.refuse_foreign()
    if directory.environment.exists() and read_json(directory.environment).get("source") == "python":
        raise UsageError(
            f"{run} was begun from Python objects, which the command line cannot build",
            hint=in_python(str(run)),
        )
    if not directory.config.exists():
        raise UsageError(f"{run} was killed before it began", hint=f"`trimtab train CONFIG --run {run}` begins it")
    _train(
        str(directory.config),
        [],
        run,
        accept_drift=accept_drift,
        log_format=log_format,
        max_restarts=max_restarts,
        arguments=["train", str(directory.config)],
    )


def _demo(overrides: list[str], run: Path | None) -> str:
    """The demo that this machine trains in minutes; for a run that was begun, the one that it is."""
    from trimtab.config import load_config
    from trimtab.runs import RunDirectory
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    config = load_config("demo", overrides)  # a typing error is told before torch is loaded
    if run is not None and RunDirectory.is_run(run):
        begun = RunDirectory.open(run).config
        known = begun.exists() and load_config(str(begun)).name in (_DEMO, _SMALL_DEMO)
        return str(begun) if known else _DEMO
    typer.echo("measuring this processor ...", err=True)
    wait_briefly_in_company(OtherPrograms())
    from trimtab.runs.program import command
    from trimtab.training.execution import choose_device, processor_speed, set_threads

    if choose_device(config.training.device).type != "cpu":
        return _DEMO
    set_threads(config.training.threads)
    speed = processor_speed()
    if speed >= _DEMO_SPEED:
        return _DEMO
    typer.echo(
        f"it computes {speed / 1e9:.0f} GFLOP/s: taking the preset {_SMALL_DEMO} "
        f"(`{command('train', _DEMO)}` trains the larger one)",
        err=True,
    )
    return _SMALL_DEMO


def _train(
    source: str,
    overrides: list[str],
    run: Path | None,
    *,
    accept_drift: bool,
    log_format: str,
    max_restarts: int = 0,
    arguments: Sequence[str] = (),
) -> None:
    """Check all that can be checked without torch, then train, and end with the run's exit code."""
    from trimtab.config import calibrates, effective, load_config
    from trimtab.config.paths import require_paths, with_absolute_paths
    from trimtab.config.secrets import hidden
    from trimtab.control import build_controllers
    from trimtab.doctor.lint import lint, refuse
    from trimtab.monitor.sinks.build import require_sinks
    from trimtab.runs import RunDirectory
    from trimtab.runs.drift import drift, refuse_drift
    from trimtab.runs.files import read_json
    from trimtab.runs.left_undone import left_undone

    if log_format not in ("text", "json"):
        raise UsageError(f"--log-format: must be text or json. Received: {log_format!r}")
    config = with_absolute_paths(load_config(source, overrides))
    build_controllers(config)
    refuse(lint(config), config.lint.allow)
    if config.alerts.rules:
        from trimtab.monitor.alerts import require_destinations

        require_destinations(config)
    require_sinks(config.sinks)
    undone: list[str] = []
    if run is not None and RunDirectory.is_run(run):
        status = RunDirectory.open(run).status()
        if status in ("finished", "stopped"):
            was = read_json(RunDirectory(run).facts)["identity"]
            now = was | {f"config.{name}": hidden(value, name) for name, value in effective(config).items()}
            if not accept_drift:
                refuse_drift(drift(was, now))
            quantizes = config.training.quantize.name != "none"
            undone = left_undone(RunDirectory(run), quantizes=quantizes, calibrates=calibrates(config))
            if not undone:
                is_json = log_format == "json"  # whose reader expects events alone
                typer.echo(f"{shown(run)} is already {status}", err=is_json)
                if not is_json:
                    tell_next("show", str(run))
                return
            typer.echo(f"{shown(run)} is already {status}; what is left to do: {', '.join(undone)}", err=True)
    if undone != ["report"]:
        require_paths(config)
    if max_restarts:
        first = ["--accept-drift"] if accept_drift else []
        raise typer.Exit(_supervise(config, run, [*arguments, "--log-format", log_format], first, max_restarts))
    result = _fit(config, run, accept_drift, "json" if log_format == "json" else "text")
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _supervise(config: Config, run: Path | None, arguments: list[str], first: list[str], max_restarts: int) -> int:
    """Train in a process of its own, which is begun again when it crashes; gives its exit code.

    `first` are arguments of the first process alone.
    """
    from trimtab.runs import RunDirectory
    from trimtab.supervisor import supervise

    made = None if run is not None else RunDirectory.create(Path("runs"), config.name).path
    called = Path(sys.argv[0])
    program = [sys.executable, *([str(called)] if called.stem == "trimtab" else ["-m", "trimtab.cli"])]
    folder = run or made
    assert folder is not None
    try:
        return supervise(
            [*program, *arguments, "--run", str(folder)],
            folder,
            max_restarts=max_restarts,
            watchdog_seconds=config.training.watchdog_seconds,
            first=first,
        )
    finally:
        if made is not None:
            with contextlib.suppress(OSError):
                made.rmdir()  # nothing came of it


def _fit(config: Config, run: Path | None, accept_drift: bool, log_format: Literal["text", "json"]) -> Result:
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted_early)
    # Opened before torch is imported, so that the screen says at once what is going on.
    metric = config.checkpoint.metric
    console = Console(sys.stdout, config.training.steps, log_format=log_format, metric=metric)
    try:
        console.preparing("starting", 0.0)
        from trimtab.trainer import Trainer

        return Trainer(
            config,
            run=run,
            monitors=[console],
            accept_drift=accept_drift,
            report=console.preparing,
            ends_process=True,
            restart=os.environ.pop("TRIMTAB_RESTART", ""),
        ).fit()
    except KeyboardInterrupt:
        console.close()
        typer.echo("interrupted twice: what was not saved is lost", err=True)
        sys.stdout.flush()
        os._exit(EXIT_KILLED_TWICE)  # at once: a checkpoint that a thread still writes is left unfinished, for none
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # what is left takes no time, and loses nothing
            signal.signal(number, signal.SIG_IGN)
        console.close()


def _ignore_save_signal() -> None:
    """Before the first step there is nothing to save, and by itself the signal would end the process."""
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _interrupted_early(number: int, frame: FrameType | None) -> NoReturn:
    """Until the loop takes signals itself, there is nothing to save, and nothing new is left."""
    name = signal.Signals(number).name
    typer.echo(f"{name} received before the first step: nothing is lost; run again with the same command", err=True)
    raise SystemExit(EXIT_INTERRUPTED)
