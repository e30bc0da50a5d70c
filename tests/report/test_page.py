"""The page is whole, small, the same each time, safe, and fetches nothing."""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from example_runs import CASES, CONFIG, judged, write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_markup import Parser

from trimtab.doctor import Case, Diagnosis, Evidence, Finding, Remedy, Withheld
from trimtab.events import Adjust, ArtifactLogged, DecisionTaken, RunEnded, RunStarted
from trimtab.report import render_html, write_report
from trimtab.report.gather import gather
from trimtab.runs import History
from trimtab.runs.printable import printable


def parsed(page: str) -> Parser:
    parser = Parser()
    parser.feed(page)
    parser.close()
    return parser


@pytest.mark.parametrize("name", CASES)
def test_every_page_is_whole_and_small(name: str) -> None:
    case, diagnosis = CASES[name]()
    page = render_html(gather(None, case, diagnosis))
    assert len(page.encode()) < 200_000
    shown = "".join(parsed(page).texts)
    assert diagnosis.run in shown
    for finding in diagnosis.findings:
        assert finding.cause in shown
        for evidence in finding.evidence:
            assert evidence.text in shown
        for remedy in finding.remedies:
            assert remedy.summary in shown
            assert all(key in shown for key in remedy.config)
    assert "Learning curves" in shown
    assert page.count("<svg") == page.count("</svg>")
    assert not re.search(
        r"\bnan\b|\binf\b|NaN", re.sub(r"<(style|script)>.*?</\1>|nan-loss|<li><b>.*?</li>", "", page, flags=re.S)
    )


@pytest.mark.parametrize("name", ["overfitting", "not_a_number"])
def test_the_same_report_gives_the_same_bytes(name: str) -> None:
    assert render_html(gather(None, *CASES[name]())) == render_html(gather(None, *CASES[name]()))


def test_nothing_is_fetched_and_nothing_else_runs() -> None:
    page = render_html(gather(None, *CASES["overfitting"]()))
    assert "default-src 'none'" in html.unescape(page)
    assert "unsafe" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#|data:image/png)""", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.replace("// Values", ""))
    tags = [tag for tag, _ in parsed(page).tags]
    assert tags.count("script") == tags.count("style") == 1
    assert not any("style" in names or any(name.startswith("on") for name in names) for _, names in parsed(page).tags)


def hostile(text: str) -> tuple[Case, Diagnosis]:
    """A case with `text` wherever text comes from outside."""
    history = History()
    history.observe(RunStarted(0, 1, 0, None, 60))
    steps = np.arange(1, 61)
    history.add("train/loss", steps, 3.0 - steps / 60)
    history.add(f"user/{text}", steps, steps * 1.0)
    history.observe(ArtifactLogged(10, "sample", text, text))
    history.observe(DecisionTaken(20, 20, text, Adjust(text, text, 0.5), "taken", text))
    history.observe(RunEnded(60, "stopped", text, None, None, None, 2.0, {text: 2.0}))
    facts = {"source": text, "more": {text: text}}
    case = Case(history, CONFIG | {"data.source.path": text, "evaluation.samples.prompts": [text]}, facts)
    remedy = Remedy(text, "trimtab", {"data.source.path": text})
    evidence = (Evidence("train/loss", (5, 9), 1.0, 2.0, text),)
    finding = Finding("plateau", "warning", 0.5, 5, text, evidence, (), (remedy,))
    return case, judged(case, text, [finding], [Withheld("overfitting", (text,))])


@cache
def tags_of_a_tame_one() -> list[tuple[str, tuple[str, ...]]]:
    return parsed(render_html(gather(None, *hostile("a b")))).tags


NASTY = st.one_of(
    st.text(max_size=30),
    st.sampled_from([
        "</script><script>alert(1)</script>", "</title><b>", '"><img src=x onerror=alert(1)>', "<!-- ", "]]>",
        "\x1b[31mred\x1b[0m", "\u202egnp.exe", "&lt;b&gt;", "'onload='x", "\ud800", "</svg><p>", "\x00<b>", "</style>",
    ]),
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NASTY)
def test_no_tag_comes_from_text(text: str) -> None:
    page = render_html(gather(None, *hostile(f"a {text} b")))
    assert parsed(page).tags == tags_of_a_tame_one()
    assert printable(page, lines=True) == page


def test_a_run_directory_is_reported_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", text="<b>someone's</b> text")
    diagnosis = write_report(run)
    first = run.report.read_bytes()
    shown = "".join(parsed(first.decode()).texts)
    assert diagnosis.run == "run"
    for part in ("stopped early", "gradient norm of every layer", "What the model wrote", "Time", "training 3m 56s",
                 "the preset gpt-1m", "trimtab train runs/run/config.yaml", "a processor, 2 cores",
                 "ed3f92f305979de2de9fbf5ed3585d0e5ea9b5d6", "<b>someone's</b> text"):  # fmt: skip
        assert part in shown, part
    write_report(run)
    assert run.report.read_bytes() == first
    assert run.read_json(run.diagnosis)["verdict"] == "healthy"
