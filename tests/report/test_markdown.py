"""Markdown shows every text as it is, in whichever reader."""

from __future__ import annotations

from pathlib import Path

import markdown
import pytest
from example_runs import CASES, write_run
from hypothesis import given, settings
from test_markup import Parser
from test_page import NASTY, hostile

from trimtab.doctor import open_case
from trimtab.doctor.diagnose import diagnose
from trimtab.report import render_html, render_markdown
from trimtab.report.gather import gather
from trimtab.report.markdown import code, escaped
from trimtab.runs.files import write_json


def shown(text: str) -> Parser:
    parser = Parser()
    parser.feed(markdown.markdown(text, extensions=["tables", "fenced_code"]))
    parser.close()
    return parser


@pytest.mark.parametrize(
    "text", ["a|b", "`x`", "<b>x</b>", "[a](b)", "**x** _y_", "# x", "- x", "1. x", "a\\b", "&amp;"]
)
def test_a_text_is_shown_as_it_is(text: str) -> None:
    for made in (escaped(text), code(text)):
        assert "".join(shown(f"| a |\n|---|\n| {made} |").texts).split() == ["a", *text.split()]


@pytest.mark.parametrize("text", ["https://example.org", "www.example.org", ":smile:", "~~x~~", "$x$"])
def test_what_only_some_readers_take_for_markup_is_taken_apart(text: str) -> None:
    assert text not in escaped(text)
    assert "".join(shown(escaped(text)).texts) == text


@settings(max_examples=40, deadline=None)
@given(NASTY)
def test_no_markup_comes_from_text(text: str) -> None:
    made = shown(render_markdown(gather(None, *hostile(f"a {text} b"))))
    known = "h1 h2 p strong em ul li code table thead tbody tr th td"
    assert {tag for tag, _ in made.tags} <= set(known.split())
    assert {name for _, names in made.tags for name in names} <= {"style"}, "the alignment of cells"


@pytest.mark.parametrize(
    "typed,again",
    [
        (["trimtab", "train", "my.yaml", "seed=1", "--run", "runs/done"], "trimtab train my.yaml seed=1"),
        (["trimtab", "train", "--run=runs/done", "my.yaml", "--accept-drift"], "trimtab train my.yaml"),
        (["trimtab", "demo"], "trimtab train runs/run/config.yaml"),
        (["trimtab", "resume", "runs/run"], "trimtab train runs/run/config.yaml"),
    ],
)
def test_to_do_it_again_is_not_to_go_on_with_what_is_finished(tmp_path: Path, typed: list[str], again: str) -> None:
    run = write_run(tmp_path / "run")
    write_json(run.environment, {**run.read_json(run.environment), "command": typed, "source": "config"})
    case = open_case(run)
    report = gather(run, case, diagnose(case, "run"))
    assert report.again == again
    said = render_markdown(report).partition("## How to do it again")[2]
    assert again in said
    assert "--run" not in said
    page = render_html(report).partition("How to do it again")[2]
    assert "--run" not in page
    write_json(run.environment, {**run.read_json(run.environment), "source": "python"})
    report = gather(run, case, diagnose(case, "run"))
    assert report.again == report.kept == ""


def test_a_report_is_whole(tmp_path: Path) -> None:
    case, diagnosis = CASES["overfitting"]()
    text = render_markdown(gather(None, case, diagnosis))
    assert text.startswith("# shakespeare\n\n**Needs attention** (1 warning, 1 remark)\n")
    assert "| `model.dropout.residual` | `0.0` | `0.1` |" in text
    run = write_run(tmp_path / "run", text="a```b")
    case = open_case(run)
    text = render_markdown(gather(run, case, diagnose(case, "run")))
    assert "````sh\ntrimtab train gpt-1m" in text
    assert "| 400 | request: stop" in text
