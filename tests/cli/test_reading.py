"""How far a large log is read, for who waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimtab.cli import reading
from trimtab.cli.options import app

LOG = Path(__file__).parents[1] / "runs" / "importers" / "formats" / "nanogpt.log"


def test_a_log_that_takes_longer_than_a_moment_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert " in " not in reading.open_log(LOG, []).notes()[0]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reading, "_SILENT_SECONDS", 0.0)
    log = reading.open_log(LOG, [])
    assert log.notes()[0].startswith(f"read as text: {LOG}, ")
    assert log.took.startswith(", 2")
    assert f"reading {LOG}" in capsys.readouterr().err
    assert "took" not in log.to_json()["log"], "the same log gives the same bytes"


def test_a_run_whose_record_is_lost_is_not_judged_and_fails_every_gate(tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_bytes(bytes(range(256)) * 20)
    done = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert done.exit_code == 0
    assert "lines of the record left out" in done.stdout
    assert f"{tmp_path.name}: not judged (no findings)" in done.stdout
    assert CliRunner().invoke(app, ["doctor", str(tmp_path), "--fail-on", "error"]).exit_code == 6
