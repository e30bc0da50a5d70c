"""A diagnosis in a terminal: what happened, and what to change."""

from __future__ import annotations

import re

from example_runs import CASES
from hypothesis import given
from hypothesis import strategies as st
from test_page import hostile

from trimtab.report import render_text


def test_a_finding_says_why_and_what_to_change() -> None:
    case, diagnosis = CASES["diverged"]()
    lines = render_text(diagnosis, settings=case.config).splitlines()
    assert lines[0] == "too-fast: failed (1 error)"
    assert "error learning-rate-too-high (probable, 88 %; from step 861)" in lines
    assert "  explains: divergence" in lines
    assert "  => Lower the learning rate tenfold" in lines
    assert "     optimizer.learning_rate=0.003  (was 0.03)" in lines
    assert max(map(len, lines)) <= 100


def test_withheld_findings_are_listed_by_what_they_lack() -> None:
    _, diagnosis = CASES["loss_alone"]()
    text = render_text(diagnosis)
    assert text.startswith("trainer_state.csv: healthy (no findings)\n")
    assert text.endswith("  - overfitting: log validation/loss\n  - learning-rate-too-high: log learning_rate")


def test_colour_changes_nothing_but_colour() -> None:
    _, diagnosis = CASES["overfitting"]()
    coloured = render_text(diagnosis, colour=True)
    assert "\x1b[1;33m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text(diagnosis)


@given(st.text(max_size=40))
def test_nothing_in_a_run_reaches_the_terminal_as_a_command(text: str) -> None:
    case, diagnosis = hostile(f"a \x1b]0;{text}\x07\u202e b")
    shown = render_text(diagnosis, settings=case.config)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
