"""Text stays text."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from trimtab.report.markup import Markup, element, join, number, percentage, text


class Parser(HTMLParser):
    """Tags with the names of their attributes, and the text between them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text())
def test_no_tag_and_no_attribute_comes_from_text(content: str) -> None:
    parser = Parser()
    parser.feed(element("p", content, title=content, data_x=content))
    parser.close()
    assert parser.tags == [("p", ("title", "data-x"))]


def test_what_was_made_here_stays_and_what_is_text_is_escaped() -> None:
    assert element("p", "a < b", element("b", "&"), class_="x y", hidden=True, id=None) == (
        '<p class="x y" hidden>a &lt; b<b>&amp;</b></p>'
    )
    assert element("br") == "<br>"
    assert isinstance(join("<", Markup("<i>")), Markup)
    assert join("<", [Markup("<i>"), None, ["&"]]) == "&lt;<i>&amp;"


def test_terminal_sequences_and_marks_that_reorder_are_left_out() -> None:
    assert text("a\x1b[31mred\x1b[0m\u202eb\x00") == "aredb"


def test_coordinates_are_short() -> None:
    assert [number(value) for value in (1.0, 0.126, -0.001, 12.5)] == ["1", "0.13", "0", "12.5"]
    assert percentage(1 / 3) == "33.33%"
