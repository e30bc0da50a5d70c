"""The tutorial of a classifier, run as it is written. `make test-examples` runs it; `make test` does not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.runs.files import read_json
from trimtab.training.consolidated import read_consolidated

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "classify-your-text.md"


@pytest.mark.slow
def test_a_folder_of_labelled_text_becomes_a_calibrated_exported_classifier(tmp_path: Path) -> None:
    environment = os.environ | {"TRIMTAB_CACHE": str(tmp_path / "cache")}
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    commands = [text for language, text in blocks if language == "sh"]
    assert [shlex.split(text)[1] for text in commands[:2]] == ["train", "export"]
    for language, text in blocks:
        program = [sys.executable, "-c", text]
        if language == "sh":
            program = [sys.executable, "-m", "trimtab.cli", *shlex.split(text)[1:]]
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout[-600:])
    exported = read_consolidated(tmp_path / "mine")
    assert exported.targets.classes == ("combinatorics", "geometry", "stats")
    assert exported.temperature == read_json(tmp_path / "runs/mine/calibration.json")["temperature"]
    # The most frequent class is 47 % of the texts.
    assert exported.metrics["validation/accuracy"] > 0.8
    assert "Where it is wrong" in (tmp_path / "runs/mine/report.html").read_text(encoding="utf-8")
