"""Durable files: whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import StorageError, UsageError
from trimtab.runs.files import json_value, read_json, write_json, write_text


def test_values_become_json() -> None:
    value = {
        1: np.float32(0.5),
        "array": np.array([[1.0, np.nan]]),
        "set": {3},
        "path": Path("a"),
        "infinite": -float("inf"),
        "flag": np.bool_(True),
    }
    expected = {
        "1": 0.5,
        "array": [[1.0, "nan"]],
        "set": [3],
        "path": "a",
        "infinite": "-inf",
        "flag": True,
    }
    assert json_value(value) == expected
    assert json.dumps(json_value(value), allow_nan=False)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", StorageError, "cannot be read as JSON"),
        (b"[]", StorageError, "must hold a JSON object. Received: list"),
        (b"\xff", StorageError, "cannot be read as JSON"),
        (b"[" * 100_000, StorageError, "cannot be read as JSON"),
        (b'{"schema": 2}', UsageError, "reads schema 1. Received: 2"),
        (b"{}", UsageError, "Received: None"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, error: type[Exception], message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(error, match=message):
        read_json(path)
    with pytest.raises(StorageError, match="no such file"):
        read_json(tmp_path / "missing.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_json(path, {"threads": 1})
    script = """
        import resource, sys
        from pathlib import Path
        from trimtab.errors import StorageError
        from trimtab.runs.files import write_json
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            write_json(Path(sys.argv[1]), {"long": "x" * 1000})
        except StorageError:
            sys.exit(5)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True)
    assert result.returncode == 5, result.stderr
    assert read_json(path)["threads"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    script = """
        import os, signal, sys
        from pathlib import Path
        from trimtab.runs.files import read_json, write_json
        path = Path(sys.argv[1])
        number = 0
        def kill_at(chosen):
            def hook(event, arguments):
                global number
                if event in ("open", "os.rename", "os.remove"):
                    number += 1
                    if number == chosen:
                        os._exit(9)
            return hook
        for chosen in range(1, 8):
            number = 0
            write_json(path, {"value": "old"})
            child = os.fork()
            if child == 0:
                sys.addaudithook(kill_at(chosen))
                number = 0
                write_json(path, {"value": "new"})
                os._exit(0)
            os.waitpid(child, 0)
            print(read_json(path)["value"])
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, check=True
    )
    values = result.stdout.split()
    assert len(values) == 7
    assert values == sorted(values, reverse=True)
    assert {"old", "new"} == set(values)


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "config.yaml", "name: ä\n")
    assert (tmp_path / "config.yaml").read_bytes() == b"name: \xc3\xa4\n"
