"""What `doctor` does besides telling: a changed configuration, and its proof."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trimtab.cli.options import shown, tell_next
from trimtab.errors import EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    from trimtab.config import Config
    from trimtab.doctor import Case, Diagnosis
    from trimtab.doctor.fix import Fix
    from trimtab.runs import RunDirectory


def fix_of(path: Path, case: Case, diagnosis: Diagnosis) -> Fix:
    """The next step of each finding's ladder; of another trainer's log in its words. Raises: ConfigError."""
    from trimtab.doctor.fix import fix, fix_elsewhere
    from trimtab.doctor.tried import tried_beside, tried_in_run

    run = _our_run(path)
    if run is None:
        return fix_elsewhere(diagnosis)
    beside = tried_beside(run)
    return fix(
        diagnosis,
        lambda overrides: _load(run, overrides),
        lambda finding: [*tried_in_run(case, finding.code, finding.onset_step), *beside],
    )


def write_fix(path: Path, found: Fix, file: Path, case: Case, diagnosis: Diagnosis) -> Path | None:
    """The file, where there is anything to write. Raises: UsageError rather than write over what is not of its kind."""
    from trimtab.report.fixed import SIGN, fixed_file
    from trimtab.runs.files import write_text
    from trimtab.runs.program import anew_in_python

    if file.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"--fix: a configuration is written to a file that ends in .yaml. Received: {str(file)!r}")
    if file.exists():
        with open(file, encoding="utf-8", errors="replace") as there:
            if not there.readline().startswith(SIGN):
                raise UsageError(
                    f"--fix: {file} is there already, and was not written by --fix", hint="give another name"
                )
    elsewhere = found.config is None and case.target != "trimtab"
    if found.config is None and not (elsewhere and (found.changes or found.advice)):
        return None
    objects = anew_in_python(str(file)) if _needs_objects(path) else ""
    write_text(file, fixed_file(found, diagnosis, case.target, objects))
    return file


def show_fix(path: Path, found: Fix, file: Path | None, case: Case) -> None:
    """What is changed, and how to train that."""
    from trimtab.report.fixed import render_fix
    from trimtab.runs.program import anew_in_python

    typer.echo(render_fix(found, None if file is None else str(file)))
    if file is not None and found.config is not None and _needs_objects(path):
        typer.echo(f"next: {anew_in_python(str(file))}")
    elif file is not None and found.config is not None:
        tell_next("train", str(file))
    elif file is not None and case.target != "trimtab":
        typer.echo(f"written to {shown(file)}" if found.changes else f"this advice is written to {shown(file)}")


def prove_fix(
    path: Path, found: Fix, diagnosis: Diagnosis, *, full: bool, seeds: int, as_json: bool
) -> dict[str, Any] | None:
    """Run both sides and tell the verdict; as JSON values, where these are asked for."""
    run = _our_run(path)
    if run is None:
        raise UsageError(f"--prove: trains the run again, and {path} was not trained by trimtab")
    _require_config(run, "--prove")
    if found.config is None:
        if not as_json:
            typer.echo(f"there is nothing to prove: {found.why_nothing}")
        return None
    from trimtab.config.paths import require_paths

    original = _load(run, ())
    require_paths(original)
    onset = max(finding.onset_step for finding in diagnosis.findings if finding.code in found.codes)
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    console = Console(sys.stderr, original.training.steps)
    try:
        console.preparing("starting", 0.0)
        from trimtab.experiments.proving import prove

        proof = prove(run.path, original, found, onset_step=onset, full=full, seeds=seeds, report=console.preparing)
    finally:
        console.close()
    if proof is None:
        typer.echo("interrupted: all is saved; run again with the same command to go on", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if not as_json:
        from trimtab.runs.described import wrapped

        typer.echo("\n".join(wrapped(proof.text)))
        for one in proof.outcomes:
            loss = "no number" if one.loss is None else f"{one.loss:.4f}"
            codes_found = f"; found: {', '.join(one.found)}" if one.found else ""
            typer.echo(
                f"  {one.side:<8} seed {one.seed}: {loss} after {one.step:,} steps ({one.status}){codes_found}"
                f"  {shown(one.run)}"
            )
    return proof.to_json()


def examine_run(path: Path, *, as_json: bool) -> list[dict[str, Any]]:
    """Ask the model and the data of a run, and tell each answer; gives them as JSON values. Raises: UsageError."""
    run = _our_run(path)
    if run is None:
        raise UsageError(f"--examine: trains for a few steps, and {path} was not trained by trimtab")
    _require_config(run, "--examine")
    from trimtab.config.paths import require_paths

    config = _load(run, ())
    require_paths(config)
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    console = Console(sys.stderr, config.training.steps)
    try:
        console.preparing("starting", 0.0)
        from trimtab.experiments.examining import examine

        checks = examine(config, run.path, report=console.preparing)
    finally:
        console.close()
    if not as_json:
        from trimtab.runs.described import wrapped

        for one in checks:
            code = f" ({one.code})" if one.code else ""
            typer.echo(f"{one.verdict:<8}  {one.name}{code}, {one.seconds:.1f} s")
            typer.echo("\n".join(f"          {line}" for line in wrapped(shown(one.text), 90)))
    return [one.to_json() for one in checks]


def _our_run(path: Path) -> RunDirectory | None:
    """The run at `path`, where trimtab trained it and its configuration is there."""
    from trimtab.runs import RunDirectory

    if not RunDirectory.is_run(path):
        return None
    run = RunDirectory.open(path)
    return run if run.trainer == "trimtab" and run.config.exists() else None


def _needs_objects(path: Path) -> bool:
    """Whether it is a run of ours that the command line cannot build again."""
    run = _our_run(path)
    return run is not None and run.source == "python"


def _require_config(run: RunDirectory, option: str) -> None:
    if _needs_objects(run.path):
        raise UsageError(
            f"{option}: {run.path} was begun from Python objects, which the command line cannot build",
            hint="--fix writes the changed configuration, to be trained with the same objects",
        )


def _load(run: RunDirectory, overrides: Sequence[str]) -> Config:
    from trimtab.config import load_written

    return load_written(run.config, overrides)
