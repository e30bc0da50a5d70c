"""Every code with a rule has a page made from its rule, and a picture of a real run that shows it."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from trimtab.doctor.codes import CODES
from trimtab.doctor.pages import codes_with_rules, page_of, parts_of
from trimtab.errors import UsageError
from trimtab.report.explained import render_page
from trimtab.runs.record import decode_line

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "reference" / "doctor"
SVG = "{http://www.w3.org/2000/svg}"
WITHOUT_PICTURE = {"no-loss", "communication-bound", "rank-imbalance"}
"""Codes that no recorded run shows yet; a picture takes its code out of here."""


@pytest.fixture(scope="module")
def symptoms() -> Any:
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("symptoms")
    finally:
        sys.path.remove(str(DOCS))


@pytest.mark.parametrize("code", codes_with_rules())
def test_a_page_says_what_a_reader_must_know(code: str) -> None:
    page = page_of(code)
    headings = [heading for heading, _ in page.parts]
    assert headings[:1] == ["Looks for"]
    assert {"Why it matters", "Evidence", "Remedy", "False alarms", "Source"} <= set(headings)
    assert all(text for _, text in page.parts)
    assert page.sentence
    assert (PICTURES / f"{code}.md").exists(), "python docs/generate.py"


def test_every_rule_has_a_picture() -> None:
    there = {path.stem for path in PICTURES.glob("*.svg")}
    assert there <= set(CODES)
    missing = sorted(set(codes_with_rules()) - there - WITHOUT_PICTURE)
    assert not missing, f"python docs/symptoms.py, or with --keep CODE RUN SENTENCE: {missing}"
    assert not there & WITHOUT_PICTURE
    assert set(CODES) >= WITHOUT_PICTURE


@pytest.mark.parametrize("path", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_is_small_stands_alone_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title") == path.stem
    assert (root.findtext(f"{SVG}desc") or "").startswith("A real run: ")
    assert len(text) < 60_000
    for outside in ("var(--", "<script", "@import", "url(", "foreignObject"):
        assert outside not in text
    assert text.count("http") == 1, "the name space alone"
    assert root.findall(f".//{SVG}path[@class]"), "nothing is drawn"
    if path.stem in codes_with_rules():
        assert f"({path.name})" in (PICTURES / f"{path.stem}.md").read_text(encoding="utf-8")


def test_the_picture_is_of_a_run_that_shows_the_code(symptoms: Any, tmp_path: Path) -> None:
    runs = list(symptoms.recorded(tmp_path))
    (run,) = [run for run in runs if run.truth == "overfitting"][:1]
    drawn = symptoms.drawing_of("overfitting", [run])
    root = ElementTree.fromstring(drawn)
    assert run.sentence in (root.findtext(f"{SVG}desc") or "")
    assert root.findall(f".//{SVG}rect[@class='evidence']")
    assert root.findall(f".//{SVG}line[@class='onset']")
    sound = [run for run in runs if run.truth == "healthy"][:1]
    assert symptoms.drawing_of("nan-loss", sound) is None


@pytest.mark.slow
def test_pictures_are_those_that_the_runs_give(symptoms: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert symptoms.main(["--check"]) == 0, capsys.readouterr().out


def test_logs_that_are_kept_have_no_trace_of_the_machine(symptoms: Any) -> None:
    if not symptoms.KEPT.exists():
        pytest.skip("no log is kept for pictures alone")
    with tarfile.open(symptoms.KEPT) as archive:
        for member in archive.getmembers():
            assert not member.name.endswith((".safetensors", ".pt"))
            stream = archive.extractfile(member)
            assert stream is not None
            content = stream.read()
            assert not re.search(rb"/(?:tmp|work|home|root|Users)/", content), member.name
            if member.name.endswith("environment.json"):
                assert set(json.loads(content)) <= {"schema", "versions", "seed", "source"}
            if member.name.endswith("record.jsonl"):
                assert None not in map(decode_line, content.splitlines(keepends=True))


def test_parts_of_a_docstring() -> None:
    body = "Looks for several signs:\n    a hump.\nWhy it matters: time.\nSource: own; see\n    there."
    assert parts_of(body) == (
        ("Looks for", "several signs: a hump."),
        ("Why it matters", "time."),
        ("Source", "own; see there."),
    )


def test_a_code_is_found_as_people_write_it() -> None:
    assert page_of("OVERFITTING").code == page_of(" Overfitting ").code == "overfitting"
    assert render_page("OVERFITTING") == render_page("overfitting")
    assert page_of("Learning rate too_high").code == "learning-rate-too-high"


def test_explained_in_a_terminal() -> None:
    told = render_page("overfitting")
    assert told.startswith("overfitting (a cause): ")
    assert "False alarms: " in told
    assert "explains: validation-regression" in told
    assert told.endswith("page: docs/reference/doctor/overfitting.md")
    assert render_page("attention-dropout").endswith("page: docs/reference/lint-rules.md")
    with pytest.raises(UsageError, match="did you mean overfitting"):
        render_page("overfiting")
    with pytest.raises(UsageError, match="no rule looks for rank-imbalance yet"):
        render_page("rank-imbalance")
