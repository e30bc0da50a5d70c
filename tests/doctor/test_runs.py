"""Recorded runs: those with a planted fault get its name first, sound ones get no warning.

`runs/runs.tar.xz` was made and packed by the bank's smaller predecessor, `benchmarks/doctor/twenty_runs.py`, which is
in the history of this repository; `benchmarks/doctor/bank` makes the runs of today.
"""

from __future__ import annotations

import json
import tarfile
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from trimtab.config import Config
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Diagnosis
from trimtab.doctor.load import open_case
from trimtab.runs import RunDirectory

ARCHIVE = Path(__file__).parent / "runs" / "runs.tar.xz"


def _table() -> list[dict[str, Any]]:
    with tarfile.open(ARCHIVE) as archive:
        content = archive.extractfile("runs.json")
        assert content is not None
        table: list[dict[str, Any]] = json.load(content)["runs"]
        return table


TABLE = _table()
FAULTY = [pytest.param(run, id=f"{run['set']}-{run['name']}") for run in TABLE if run["truth"] != "healthy"]
SOUND = [pytest.param(run, id=f"{run['set']}-{run['name']}") for run in TABLE if run["truth"] == "healthy"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _diagnosis(folder: Path, run: dict[str, Any]) -> Diagnosis:
    path = folder / str(run["set"]) / run["name"]
    return diagnose(open_case(RunDirectory.open(path)), run["name"])


def _told(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in diagnosis.findings]


def test_the_archive_holds_ten_kinds_of_each() -> None:
    assert len({run["truth"] for run in TABLE} - {"healthy"}) >= 10
    for number in {run["set"] for run in TABLE}:
        assert sum(run["set"] == number and run["truth"] == "healthy" for run in TABLE) >= 10


@pytest.mark.parametrize("run", FAULTY)
def test_a_planted_fault_is_named_first(folder: Path, run: dict[str, Any]) -> None:
    told = _told(_diagnosis(folder, run))
    assert told, f"nothing was found: {run['sentence']}"
    severity, code = told[0]
    assert code == run["truth"], f"{told}: {run['sentence']}"
    assert severity != "info", f"{told}: {run['sentence']}"


@pytest.mark.parametrize("run", SOUND)
def test_a_sound_run_gets_no_warning(folder: Path, run: dict[str, Any]) -> None:
    told = _told(_diagnosis(folder, run))
    assert not [code for severity, code in told if severity != "info"], f"{told}: {run['sentence']}"


@pytest.mark.parametrize("run", FAULTY)
def test_what_is_proposed_can_be_set(folder: Path, run: dict[str, Any]) -> None:
    path = folder / str(run["set"]) / run["name"]
    for finding in _diagnosis(folder, run).findings:
        for remedy in finding.remedies:
            if remedy.config:
                assert remedy.target == "trimtab"
                values = YAML(typ="safe").load((path / "config.yaml").read_text())
                for key, value in remedy.config.items():
                    *sections, name = key.split(".")
                    section = reduce(lambda part, one: part[one], sections, values)
                    if name == "name":
                        section.clear()  # another choice has settings of its own
                    section[name] = value
                Config.model_validate(values)
