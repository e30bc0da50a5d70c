"""The short form of every example: real data, a few seconds, better than the most frequent answer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ABOVE = {
    "sort_docstrings": ("accuracy", 0.1),
    "label_docstrings": ("accuracy", 0.005),
    "tag_code": ("accuracy", 0.25),
    "guess_length": ("r2", 0.02),
    "summarize_source": ("accuracy", 0.03),
    "embed_docstrings": ("accuracy", 0.05),
    "fill_holes": ("accuracy", 0.02),
    "fine_tune": ("accuracy", 0.1),
}


def test_every_example_is_tried() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*ABOVE, "rows", "run", "own_loop"}


@pytest.mark.parametrize("name", ABOVE)
def test_the_short_form_is_better_than_guessing(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp(name)))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    outcome = module.main(short=True)
    metric, margin = ABOVE[name]
    print(name, dict(outcome.metrics), outcome.guess)
    assert outcome.metrics[metric] > outcome.guess + margin
