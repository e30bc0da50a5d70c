"""Text from outside cannot steer a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runs.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 世界 👩\u200d💻", "Grüße, 世界 👩\u200d💻"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bcreset", "reset"),
        ("a\x1b", "a"),
        ("over\rwritten", "over written"),
        ("two\r\nlines", "two lines"),
        ("back\x08\x07\x00", "back"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\u2066a\u2069\u200b\ufeff", "a"),
        ("lone \ud800", "lone \ufffd"),
        ("tab\tulator", "tab ulator"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters()), st.booleans())
def test_no_control_character_passes(text: str, lines: bool) -> None:
    shown = printable("\x1b[1m" + text, lines=lines)
    for character in shown:
        assert (
            character == "\n"
            or character in "\u200c\u200d"
            or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        )
    assert lines or "\n" not in shown
    assert printable(shown, lines=lines) == shown


def test_long_text_is_cut() -> None:
    assert printable("abcdef", limit=4) == "abc…"
    assert printable("abcd", limit=4) == "abcd"
    assert printable("a\nb\nc", lines=True) == "a\nb\nc"
