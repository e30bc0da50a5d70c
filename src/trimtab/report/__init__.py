"""What people read of a run: its diagnosis as text, as Markdown, and as one HTML file with its curves."""

from trimtab.report.gather import Report, gather
from trimtab.report.markdown import render_markdown
from trimtab.report.page import render_html
from trimtab.report.text import render_text
from trimtab.report.write import write_report

__all__ = ["Report", "gather", "render_html", "render_markdown", "render_text", "write_report"]
