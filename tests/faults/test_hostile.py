"""Names that deceive a terminal or leave a folder, and pickles under every name: through all commands."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest


def calls(what: str, folder: Path) -> list[tuple[list[str], int, str]]:
    inside = folder / "a" / "b"
    inside.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile.py")), what, str(inside)],
        env={**os.environ, "TRIMTAB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(arguments, code, output) for arguments, code, output in json.loads(done.stdout.splitlines()[-1])]


def deceives(text: str) -> set[str]:
    """Characters that move the cursor, change colours, or reorder and hide text."""
    joiners = "\u200c\u200d"
    return {
        hex(ord(one))
        for one in text
        if one != "\n" and unicodedata.category(one) in ("Cc", "Cf", "Cs") and one not in joiners
    }


def test_no_name_reaches_a_terminal_raw_or_leaves_its_folder(tmp_path: Path) -> None:
    told = calls("names", tmp_path)
    raw = {(arguments[0], tuple(sorted(deceives(output)))) for arguments, _, output in told if deceives(output)}
    assert not raw
    # A name that is written as a line of ours, such as "next: …", stands in the middle of a line; a text that a
    # model goes on with may have lines.
    assert not [output for arguments, _, output in told if "\nnext: rm -rf" in output and arguments[0] != "generate"]
    assert not [arguments for arguments, code, _ in told if code == 70]
    assert sum(code == 0 for _, code, _ in told) > 15
    refused = [code for arguments, code, _ in told if arguments[:2] == ["check", "gpt-1m"]]
    assert set(refused) <= {2, 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "cache"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.slow
def test_a_pickle_under_every_name_is_never_run(tmp_path: Path) -> None:
    told = calls("pickles", tmp_path)
    pickled = next(tmp_path.rglob("pickle.text")).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        (tmp_path / "would").mkdir()
        patch.chdir(tmp_path / "would")
        pickle.loads(pickled)
    assert (tmp_path / "would" / "EXECUTED").exists(), "it does harm where it is loaded"
    (tmp_path / "would" / "EXECUTED").rmdir()
    assert not list(tmp_path.rglob("EXECUTED"))
    assert len(told) > 100
    crashed = [(arguments, output[-600:]) for arguments, code, output in told if code == 70 or "Traceback" in output]
    assert not crashed, f"{len(crashed)} of {len(told)}: {crashed[0]}"
