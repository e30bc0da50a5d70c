"""HTML and SVG from values: text becomes harmless where it is put in, so that nobody has to think of it."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final, Literal

from trimtab.runs.printable import printable

_VOID: Final = frozenset({"meta", "br", "link", "hr"})
_Attribute = str | int | float | bool | None


class Markup(str):
    """HTML that was made here. Any other `str` is text, and is escaped."""

    __slots__ = ()


Content = str | Iterable["Content"] | None
"""Markup, text to be escaped, None for nothing, or several of these."""


def element(tag: str, *content: Content, **attributes: _Attribute) -> Markup:
    """`<tag attributes>content</tag>`.

    In the names of attributes "_" stands for "-", and one at the end is dropped; None and False leave an attribute
    out, True gives it without a value.
    """
    opening = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{join(*content)}</{tag}>")


def join(*content: Content, between: str = "") -> Markup:
    """All of `content`, one behind the other."""
    return Markup(between.join(piece for part in content for piece in _pieces(part)))


def text(content: str, *, limit: int | None = None) -> Markup:
    """`content` as HTML text: no tag, terminal sequence, control character or mark that reorders comes through."""
    return Markup(html.escape(printable(content, lines=True, limit=limit), quote=True))


def number(value: float) -> str:
    """A coordinate, in as few characters as two decimals allow."""
    shown = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def percentage(fraction: float) -> str:
    """A place along an axis of any width: `12.5%`."""
    return f"{number(100 * fraction)}%"


def badge(kind: Literal["info", "warning", "error", "healthy", "attention", "failed"], size: int = 20) -> Markup:
    """A sign that differs in shape as well as in colour."""
    shape = {"info": "info", "healthy": "good", "warning": "bad", "attention": "bad"}.get(kind, "worst")
    paths = {
        "good": ("M10 0a10 10 0 1 0 0 20a10 10 0 1 0 0-20z", "M5.4 10.4l3.1 3.1l6.2-6.6"),
        "info": ("M10 0a10 10 0 1 0 0 20a10 10 0 1 0 0-20z", "M10 9.2v5.4M10 5.6v.4"),
        "bad": (
            "M10 .8a1.6 1.6 0 0 1 1.4.8l8.3 15.2a1.6 1.6 0 0 1-1.4 2.4h-16.6a1.6 1.6 0 0 1-1.4-2.4l8.3-15.2"
            "a1.6 1.6 0 0 1 1.4-.8z",
            "M10 7v5M10 15.4v.2",
        ),
        "worst": ("M6 0h8l6 6v8l-6 6h-8l-6-6v-8z", "M6.6 6.6l6.8 6.8M13.4 6.6l-6.8 6.8"),
    }
    ground, sign = paths[shape]
    return element(
        "svg",
        element("path", d=ground, class_=f"badge-ground {kind}"),
        element("path", d=sign, class_="badge-sign"),
        class_="badge",
        width=size,
        height=size,
        viewBox="0 0 20 20",
        aria_hidden="true",
    )


def _attribute(name: str, value: _Attribute) -> str:
    if value is None or value is False:
        return ""
    # SVG's names of attributes have capitals and no "_"; those of HTML and ARIA have neither capitals nor "_".
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    if isinstance(value, Markup):
        return f' {name}="{value}"'
    shown = number(value) if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(printable(shown), quote=True)}"'


def _pieces(content: Content) -> Iterable[str]:
    if content is None:
        return
    if isinstance(content, Markup):
        yield content
    elif isinstance(content, str):
        yield text(content)
    else:
        for part in content:
            yield from _pieces(part)
