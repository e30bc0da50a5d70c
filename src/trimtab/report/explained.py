"""What a finding means, as lines for a terminal: the page of its code."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab.doctor.pages import page_of
from trimtab.report.text import wrapped


def render_page(code: str, *, width: int = 100) -> str:
    """What the rule looks for, why it matters, its evidence, remedy and false alarms; no line end after.

    Raises: UsageError when there is no such code, or no rule looks for it yet.
    """
    return "\n".join(_lines(code, width))


def more_on(code: str) -> str:
    """Where more stands on a finding."""
    from trimtab.runs.program import command

    return f"more on {code}: {page_of(code).path}, or {command('doctor', '--explain', code)}"


def _lines(code: str, width: int) -> Iterator[str]:
    page = page_of(code)
    kind = {"root": "a cause", "symptom": "a symptom", "lint": "a fault of settings"}.get(page.kind, page.kind)
    yield from wrapped(f"{page.code} ({kind}): {page.sentence}", width, "  ", "")
    for heading, text in page.parts:
        yield from wrapped(f"{heading}: {text}" if heading else text, width, "    ", "  ")
    for name, values in (
        ("needs in the log", page.needs),
        ("judged for", page.tasks),
        ("explains", page.explains),
        ("explained by", page.explained_by),
    ):
        if values:
            yield from wrapped(f"{name}: {', '.join(values)}", width, "    ", "  ")
    yield f"page: {page.path}"
