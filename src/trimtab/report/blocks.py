"""Parts that several sections of the page are made of."""

from __future__ import annotations

from trimtab.report.markup import Content, Markup, element, join


def section(title: str, *content: Content, name: str = "") -> Markup:
    """A part of the page under its title; nothing when it is empty."""
    inner = join(*content)
    return join(element("h2", title, id=name or None), inner) if inner else Markup()


def folded(title: str, told: str, *content: Content, is_open: bool = False) -> Markup:
    """A part that is opened by a click; nothing when it is empty."""
    inner = join(*content)
    if not inner:
        return Markup()
    return element("details", element("summary", title, element("span", told, class_="soft")), inner, open=is_open)


def scrolled(table: Markup) -> Markup:
    """A table that may be wider than the page."""
    return element("div", table, class_="scroll", tabindex=0)


def command(line: str) -> Markup:
    """A line to copy."""
    return element(
        "div", element("code", line), element("button", "copy", type="button", aria_label="copy"), class_="command"
    )
