"""The command that holds two runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import Json, Mapping, app, print_json, shown
from trimtab.cli.reading import names_given


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run directory, or a log that another trainer wrote.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The run to hold against it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a page with both curves: one HTML file.")
    ] = None,
    as_json: Json = False,
    mapping: Mapping = None,
) -> None:
    """Say what made the difference between two runs: settings, data, events, and where their curves part."""
    from trimtab.doctor.compare import compare as compared
    from trimtab.doctor.compare import open_side, runs_beside
    from trimtab.report.comparison import render_comparison
    from trimtab.runs import RunDirectory
    from trimtab.runs.files import write_text
    from trimtab.runs.program import command

    a, b = RunDirectory.path_of(a), RunDirectory.path_of(b)
    names = names_given(mapping or [])
    others, themselves = runs_beside(a, b)
    found = compared(open_side(a, names), open_side(b, names), others, themselves=themselves)
    if output is not None:
        from trimtab.report.comparison_page import render_comparison_page

        write_text(output, render_comparison_page(found))
    if as_json:
        print_json(found.to_json())
        return
    typer.echo(render_comparison(found))
    if output is not None:
        typer.echo(f"{shown(output)}: both curves; next: open it in a browser")
    else:
        typer.echo(f"next: {shown(command('compare', str(a), str(b), '--output', 'compare.html'))}")
