"""Commands on what happened: runs, show, doctor, report, verify."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

from trimtab.errors import (
    EXIT_FINDINGS,
    UsageError,
)

if TYPE_CHECKING:
    from trimtab.runs import RunDirectory

from trimtab.cli.newest import tell_newest
from trimtab.cli.options import Json, Mapping, NewestRun, app, print_json, shown, terminal_width
from trimtab.cli.reading import open_log


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where runs are kept.")] = Path("runs"),
    as_json: Json = False,
    effects: Annotated[
        bool, typer.Option("--effects", help="What settings did to the outcome over these runs, instead.")
    ] = False,
) -> None:
    """List the runs in a folder."""
    from trimtab.runs.summary import list_summaries, render_list

    if not folder.is_dir() and folder != Path("runs"):
        raise UsageError(f"{shown(folder)}: there is no such folder")
    if effects:
        _tell_effects(folder, as_json=as_json)
        return
    summaries = list_summaries(folder)
    if as_json:
        print_json(summaries)
    else:
        typer.echo(render_list(summaries, folder))


def _tell_effects(folder: Path, *, as_json: bool) -> None:
    """What settings did over the runs in a folder."""
    from trimtab.doctor.effects import FEWEST, effects_of, outcomes_in
    from trimtab.report.effects import render_effects
    from trimtab.runs.program import command

    rows, others = outcomes_in(folder)
    found = effects_of(rows, others)
    if found is None:
        raise UsageError(
            f"{shown(folder)}: effects need {FEWEST} runs that came to their end and are judged alike; there are "
            f"{len(rows)} that came to their end",
            hint=command("runs", str(folder)),
        )
    if as_json:
        print_json(found.to_json())
        return
    typer.echo(render_effects(found))
    kept = [row.name for row in rows if row.name not in found.left_out]
    typer.echo(f"next: {shown(command('compare', *(str(folder / name) for name in kept[-2:])))}")


@app.command()
def show(
    run: NewestRun = None,
    as_json: Json = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Draw what the heads of a layer attend to, instead.")
    ] = False,
    modules: Annotated[bool, typer.Option("--modules", help="The model's modules with their shapes, instead.")] = False,
    layer: Annotated[
        str | None, typer.Option("--layer", help="With --attention: a number from 0, -1 for the last, or a name.")
    ] = None,
    head: Annotated[int | None, typer.Option("--head", help="With --attention: one head alone, from 0.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="With --attention: what is read; without it, the newest sample.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option("--answer", help="With --attention: what was written, where a model reads and writes.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="With --attention: the picture, if not in the run's artifacts.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="With --attention: best, if not given, latest, or a step.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="With --attention: plain, or an average that the checkpoint has.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show its profiles instead: what steps are bound by, and where time goes.")
    ] = False,
) -> None:
    """Tell how a run went, and why it ended; or look inside its model, or at its profiles."""
    from trimtab.cli.inside import show_attention, show_modules

    if run is None:
        run = tell_newest("show")
    of_attention = {"--layer": layer, "--head": head, "--text": text, "--answer": answer, "--out": out}
    of_attention |= {"--checkpoint": checkpoint, "--weights": weights}
    asked = [option for option, value in of_attention.items() if value is not None]
    if asked and not attention:
        raise UsageError(f"{', '.join(asked)}: goes with --attention")
    if attention + modules + profile > 1:
        raise UsageError("--attention, --modules, --profile: one at a time")
    if modules:
        show_modules(run, as_json=as_json)
        return
    if attention:
        show_attention(
            run,
            layer=layer,
            head=head,
            text=text,
            answer=answer,
            out=out,
            checkpoint=checkpoint or "best",
            weights=weights,
            as_json=as_json,
        )
        return
    from trimtab.doctor import open_case
    from trimtab.doctor.diagnose import diagnose
    from trimtab.report.differences import differences_of
    from trimtab.runs import RunDirectory
    from trimtab.runs.summary import render, summarize

    directory = RunDirectory.open(run)
    if profile:
        _show_profiles(directory, as_json)
        return
    case = open_case(directory)
    diagnosis = diagnose(case, directory.name)
    base, differences = differences_of(case.config)
    changed = {key: {"was": was, "now": now} for key, was, now in differences}
    summary = summarize(directory) | {"diagnosis": diagnosis.to_json(), "base": base, "differences": changed}
    if as_json:
        print_json(summary)
    else:
        typer.echo(render(summary, terminal_width()))


def _show_profiles(run: RunDirectory, as_json: bool) -> None:
    from trimtab.runs.profiles import list_profiles, render_profiles

    profiles = list_profiles(run)
    if as_json:
        print_json({"run": str(run.path), "profiles": profiles})
    else:
        typer.echo(render_profiles(profiles, str(run.path)))


@app.command()
def doctor(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH…", help="Run directories, or logs that other trainers wrote; the newest run if none."
        ),
    ] = None,
    as_json: Json = False,
    mapping: Mapping = None,
    fail_on: Annotated[
        str | None, typer.Option("--fail-on", metavar="SEVERITY", help="info, warning or error: then exit with 6.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="FILE", help="Write the changed configuration there, as YAML.")
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Train the run and its changed configuration side by side, and compare.")
    ] = False,
    examine: Annotated[
        bool, typer.Option("--examine", help="Try for a few minutes what its model and data can do, and judge that.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="With --prove: all steps, not a quarter of them.")] = False,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, max=21, help="With --prove: so many of each; 1 if not given.")
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="CODE",
            help="Say what a finding means, instead, or with scorecard how guesses are made.",
        ),
    ] = None,
) -> None:
    """Say what is wrong with a run, what shows it, and what to change; write that change, or prove that it helps."""
    if explain is not None:
        from trimtab.report.explained import render_page

        typer.echo(render_page(explain))
        return

    from trimtab.cli.acting import examine_run, fix_of, prove_fix, show_fix, write_fix
    from trimtab.doctor.codes import UNJUDGED
    from trimtab.doctor.diagnose import diagnose
    from trimtab.doctor.finding import SEVERITIES
    from trimtab.doctor.order import with_order
    from trimtab.doctor.soups import is_soup
    from trimtab.report import render_text
    from trimtab.report.explained import more_on
    from trimtab.report.text import render_verdict
    from trimtab.runs import RunDirectory
    from trimtab.runs.described import wrapped

    if fail_on is not None and fail_on not in SEVERITIES:
        raise UsageError(f"--fail-on: must be {', '.join(SEVERITIES)}. Received: {fail_on!r}")
    if (full or seeds is not None) and not prove:
        raise UsageError(f"{'--full' if full else '--seeds'}: goes with --prove")
    paths = [RunDirectory.path_of(path) for path in paths or [tell_newest("doctor")]]
    acts = fix is not None or prove or examine
    if acts and len(paths) > 1:
        raise UsageError(f"--fix, --prove and --examine are for one run. Received: {len(paths)} paths")
    answers, gravest = [], -1
    for path in paths:
        log = open_log(path, mapping or [])
        case, name = log.case, log.name
        diagnosis = with_order(case, diagnose(case, name))
        gravest = max([gravest, *(SEVERITIES.index(finding.severity) for finding in diagnosis.findings)])
        no_step = case.history.last_step == 0 and not is_soup(case)
        if no_step or any(one.code == UNJUDGED and one.severity != "info" for one in diagnosis.findings):
            gravest = len(SEVERITIES)  # whoever asks for a verdict gets none: whatever they would fail on
        answers.append(diagnosis.to_json() | log.to_json())
        if not as_json:
            for note in log.notes():
                typer.echo(note)
            width = min(terminal_width() or 100, 100)
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            if is_soup(case):  # which no rule judges, so that nothing is healthy or not
                typer.echo("\n  ".join([f"{shown(name)}: a soup", *wrapped(diagnosis.summary)]))
            elif fix is not None or prove:  # which tell of each finding what they change
                typer.echo(render_verdict(diagnosis, width=width, colour=colour))
            else:
                typer.echo(render_text(diagnosis, settings=case.config, width=width, colour=colour))
                if diagnosis.findings:
                    typer.echo(more_on(diagnosis.findings[0].code))
            if len(paths) == 1 and not acts:
                typer.echo(f"next: {shown(_after_doctor(path))}")
            else:
                typer.echo()
        if examine:
            answers[-1]["examination"] = checks = examine_run(path, as_json=as_json)
            if any(one["verdict"] == "failed" for one in checks):
                gravest = max(gravest, SEVERITIES.index("warning"))
        if fix is not None or prove:
            found = fix_of(path, case, diagnosis)
            answers[-1]["fix"] = found.to_json()
            file = None if fix is None else write_fix(path, found, fix, case, diagnosis)
            if not as_json:
                show_fix(path, found, file, case)
            if prove:
                answers[-1]["proof"] = prove_fix(path, found, diagnosis, full=full, seeds=seeds or 1, as_json=as_json)
    if as_json:
        print_json(answers[0] if len(paths) == 1 else answers)
    if fail_on is not None and gravest >= SEVERITIES.index(fail_on):
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run directory, or a log that another trainer wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; report.html in the run if not given.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="html, markdown or text.")] = "html",
    mapping: Mapping = None,
) -> None:
    """Write the report of a run: verdict, findings on the curves, and all that belongs to it, in one file."""
    from trimtab.doctor.diagnose import diagnose
    from trimtab.doctor.order import with_order
    from trimtab.report import render_html, render_markdown, render_report, write_report
    from trimtab.report.gather import gather
    from trimtab.runs import RunDirectory
    from trimtab.runs.files import write_text
    from trimtab.runs.program import command

    if form not in ("html", "markdown", "text"):
        raise UsageError(f"--format: must be html, markdown or text. Received: {form!r}")
    path = RunDirectory.path_of(path)
    run = RunDirectory(path) if RunDirectory.is_run(path) else None
    if run is not None and output is None and form == "html":
        write_report(run)
        typer.echo(shown(run.report))
        typer.echo(f"next: open it in a browser, or {shown(command('doctor', str(path)))}")
        return
    log = open_log(path, mapping or [])
    for note in log.notes():
        typer.echo(note, err=True)
    case = log.case
    diagnosis = with_order(case, diagnose(case, log.name))
    found = gather(run, case, diagnosis)
    if form == "text":
        text = render_report(found) + "\n"
    else:
        text = (render_html if form == "html" else render_markdown)(found)
    if output is None and form != "html":
        typer.echo(text, nl=False)
        return
    target = output if output is not None else Path(f"{path.stem}.report.html")
    write_text(target, text)
    typer.echo(shown(target))


def _after_doctor(path: Path) -> str:
    """To go on with a run that can; else the report."""
    from trimtab.runs import RunDirectory
    from trimtab.runs.program import command
    from trimtab.runs.reasons import next_command

    if RunDirectory.is_run(path):
        run = RunDirectory.open(path)
        if (status := run.status()) in ("killed", "interrupted"):
            return next_command(status, str(path), run.source)
    return command("report", str(path))


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run directory, or one of its checkpoints.")],
    as_json: Json = False,
) -> None:
    """Check every byte of a run's checkpoints against their hashes."""
    from trimtab.errors import CheckpointError
    from trimtab.runs import RunDirectory
    from trimtab.runs.checkpoints import checkpoint_folders
    from trimtab.runs.checkpoints import verify as problems_of

    folders = [path] if (path / "manifest.json").exists() else []
    if not folders:
        folders = checkpoint_folders(RunDirectory.open(path).path)
    problems = {str(folder): problems_of(folder) for folder in folders}
    if as_json:
        checkpoints = [{"path": name, "whole": not found, "problems": found} for name, found in problems.items()]
        print_json({"path": str(path), "whole": not any(problems.values()), "checkpoints": checkpoints})
    elif not folders:
        typer.echo(f"{shown(path)} has no checkpoint yet")
    else:
        for folder, found in problems.items():
            typer.echo(f"{'damaged' if found else 'intact '}  {shown(folder)}")
            for problem in found:
                typer.echo(f"         {shown(problem)}")
    if any(problems.values()):
        raise typer.Exit(CheckpointError.exit_code)
