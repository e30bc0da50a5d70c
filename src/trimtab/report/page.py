"""The report as one HTML file: it opens from the disk, fetches nothing, and reads without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from trimtab.report import findings, sections, tables
from trimtab.report.blocks import folded, section
from trimtab.report.figures import learning_curves, other_curves
from trimtab.report.gather import Report
from trimtab.report.markup import Markup, element, join
from trimtab.report.strip import strip
from trimtab.report.words import verdict_of
from trimtab.report.wrong import wrong


def render_html(report: Report) -> str:
    """The page: the same bytes for the same report."""
    title = f"{report.name or 'run'}: {verdict_of(report.diagnosis).lower()}"
    return whole_page(title, [findings.head(report), _main(report), _foot(report)])


def whole_page(title: str, body: Sequence[Markup]) -> str:
    """A file of HTML in the style of reports: it opens from the disk, fetches nothing, and may run our script alone."""
    style, behaviour = packaged("style.css"), packaged("behaviour.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(behaviour)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    top = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="generator", content="trimtab"),
        element("title", title),
        element("style", Markup(style)),
    )
    whole = element("html", top, element("body", body, element("script", Markup(behaviour))), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _main(report: Report) -> Markup:
    further = other_curves(report)
    layers = [strip(layer, max(report.first_step, 0), report.last_step) for layer in report.layers]
    return element(
        "main",
        findings.all_findings(report),
        section(
            "Learning curves",
            learning_curves(report),
            tables.evaluations(report),
            folded("Further curves", f"{len(further)} more", element("div", further, class_="small"))
            if further
            else None,
            tables.numbers(report),
            name="curves",
        ),
        section("Layers", layers, name="layers"),
        section("Where it is wrong", wrong(report), name="wrong"),
        section("What the model wrote", sections.samples(report), name="samples"),
        section("Decisions and checkpoints", sections.decisions(report), name="decisions"),
        section("Time", sections.time_split(report), name="time"),
        section("Data and model", sections.data_and_model(report), name="facts"),
        section("Settings", sections.settings(report), name="settings"),
        section("How to do it again", sections.reproduce(report), sections.environment(report), name="reproduce"),
    )


def _foot(report: Report) -> Markup:
    damaged = f" {report.damaged_lines} damaged lines of the record were left out." if report.damaged_lines else ""
    again = f"Made from the run's record; trimtab report {report.path} makes it again." if report.path else ""
    return element("footer", element("p", join("trimtab. " + again + damaged)))


@cache
def packaged(name: str) -> str:
    """The text of a file that is part of this room."""
    return files("trimtab.report").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
