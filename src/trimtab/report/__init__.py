"""What people read of a run: its diagnosis as text, as Markdown, and as one HTML file with its curves.

The names below are loaded when they are first used: the text of a diagnosis starts without the configuration.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.report.gather import Report as Report
    from trimtab.report.markdown import render_markdown as render_markdown
    from trimtab.report.page import render_html as render_html
    from trimtab.report.plain import render_report as render_report
    from trimtab.report.text import render_text as render_text
    from trimtab.report.write import write_report as write_report

_WHERE = {
    "Report": "gather",
    "render_html": "page",
    "render_markdown": "markdown",
    "render_report": "plain",
    "render_text": "text",
    "write_report": "write",
}

__all__ = ["Report", "render_html", "render_markdown", "render_report", "render_text", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'trimtab.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"trimtab.report.{_WHERE[name]}"), name)
