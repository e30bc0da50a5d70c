"""A diagnosis in a terminal: what happened, and what to change."""

from __future__ import annotations

import re
from pathlib import Path

from example_runs import CASES, write_run
from hypothesis import given
from hypothesis import strategies as st
from test_page import hostile

from trimtab.doctor import open_case
from trimtab.doctor.diagnose import diagnose
from trimtab.report import render_report, render_text
from trimtab.report.gather import gather


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


def test_a_whole_report_has_what_the_page_has(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    case = open_case(run)
    found = gather(run, case, diagnose(case, "run"))
    lines = render_report(found).splitlines()
    assert (
        lines[: len(render_text(found.diagnosis, settings=found.settings).splitlines())]
        == render_text(found.diagnosis, settings=found.settings).splitlines()
    )
    above = len(render_text(found.diagnosis, settings=found.settings).splitlines())
    heads = [line for line in lines[above:] if line.endswith(":") and not line.startswith(" ")]
    assert heads == [
        "ended:",
        "in figures:",
        "evaluations:",
        "decisions:",
        "time:",
        f"settings that differ from {found.base}:",
        "to do it again, into a new directory:",
    ]
    assert max(map(len, lines)) <= 100
    table = lines[lines.index("evaluations:") + 1 : lines.index("decisions:") - 1]
    assert table[0].split()[0] == "step"
    steps = [int(line.split()[0].replace(",", "")) for line in table[1:] if line.split()[0][0].isdigit()]
    assert steps == sorted(steps)
    assert len(steps) <= 13
    assert sum(line.endswith("  best") for line in table) == 1
    assert "  step 400, request: stop" in "\n".join(lines)


def test_of_another_trainers_log_only_what_is_known_is_told() -> None:
    case, diagnosis = CASES["loss_alone"]()
    text = render_report(gather(None, case, diagnosis))
    assert text.startswith(render_text(diagnosis))
    assert "in figures:" in text
    for head in ("evaluations:", "decisions:", "checkpoints:", "to do it again"):
        assert head not in text


@given(st.text(max_size=40))
def test_nothing_in_a_run_reaches_the_terminal_as_a_command(text: str) -> None:
    case, diagnosis = hostile(f"a \x1b]0;{text}\x07\u202e b")
    shown = render_text(diagnosis, settings=case.config) + render_report(gather(None, case, diagnosis))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
