"""The bank of runs with planted faults: `benchmarks/doctor/bank`. Its plan, its scores, and two of its runs."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bank.archive import pack, unpack
from bank.catalogue import FAULTS, ODDITIES, PRACTICES
from bank.cure import Attempt, table
from bank.experiment import SIZES as LOOP_SIZES
from bank.grounds import ground_of
from bank.ours import prepare_run
from bank.plan import GROUPS, NOT_SPREAD, plan
from bank.practices import PRACTISE
from bank.score import Judged, Said, calibration, judge, log_of, scores, wilson
from bank.setup import SIZES, begin
from bank.spread import between, sizes_of, sizes_of_loop
from bank.ways import ways

from trimtab.doctor.codes import CODES
from trimtab.runs.importers import read_foreign
from trimtab.runs.record import read_record

BANK = Path(__file__).parents[2] / "benchmarks" / "doctor"
LEFT_OUT = {"communication-bound", "rank-imbalance", "validation-regression", "evaluation-bound", "no-loss"}


def test_every_code_that_one_device_can_show_is_planted() -> None:
    assert set(FAULTS) == {code for code, row in CODES.items() if row.kind != "lint"} - LEFT_OUT


def test_the_plan_is_the_same_every_time() -> None:
    assert plan("tuning") == plan("tuning")
    assert [one.seed for one in plan("test")] == [one.seed for one in plan("test")]
    assert {one.seed for one in plan("tuning")} != {one.seed for one in plan("test")}


@pytest.mark.parametrize("part", ["tuning", "test"])
def test_strata_are_filled_evenly(part: str) -> None:
    runs = plan(part, rounds=2)  # type: ignore[arg-type]
    assert len({one.name for one in runs}) == len(runs)
    of_group = {group: [one for one in runs if one.logger == group] for group in GROUPS if group != "bare"}
    for group, made in of_group.items():
        able = {code for code, kind in FAULTS.items() if group in kind.loggers}
        for code in able:  # once strong, once mild
            assert sorted(one.severity for one in made if one.code == code) == ["mild", "strong"], code
    begun = runs[:80]
    assert (
        min(
            sum(one.logger in (group, *(("csv", "jsonl") if group == "bare" else ())) for one in begun)
            for group in GROUPS
        )
        >= 18
    )
    assert 0.25 <= sum(one.code == "healthy" for one in begun) / len(begun) <= 0.45
    for one in runs:
        kind = (ODDITIES if one.code == "healthy" else FAULTS)[one.variant]
        assert one.task in (kind.ours if one.logger == "trimtab" and kind.ours else kind.tasks)


def test_the_part_spread_has_runs_of_every_logger_and_several_ways_to_plant_a_fault() -> None:
    runs = plan("spread", rounds=2)
    assert {one.logger for one in runs} == {"trimtab", "csv", "jsonl", "huggingface", "lightning"}
    assert {one.code for one in runs} - {"healthy"} == set(FAULTS) - set(NOT_SPREAD)
    ours = {one.code for one in runs if one.code != "healthy" and one.logger == "trimtab"}
    several = {code for code in ours if len(ways(code)) > 1}
    assert len(several) >= 34


def test_further_practices_are_in_the_part_spread_alone() -> None:
    assert set(PRACTICES) == set(PRACTISE)
    sound = {
        part: {one.variant for one in plan(part, rounds=1) if one.code == "healthy"} for part in ("tuning", "spread")
    }
    assert sound["tuning"] == set(ODDITIES)
    assert sound["spread"] == set(ODDITIES) | set(PRACTICES)


def test_what_is_drawn_for_the_part_spread_is_between_mild_and_strong_and_of_no_other_part() -> None:
    runs = plan("spread", rounds=3)
    sizes = [sizes_of(one) for one in runs]
    assert {one["width"] for one in sizes}.isdisjoint({one["width"] for one in SIZES.values()})
    assert {one["sequence_length"] for one in sizes}.isdisjoint({one["sequence_length"] for one in SIZES.values()})
    loops = [sizes_of_loop(one) for one in runs]
    for size in ("width", "length", "batch", "steps"):
        assert {one[size] for one in loops}.isdisjoint({one[size] for one in LOOP_SIZES.values()}), size
    for one in runs:
        assert 6.0 <= between(one, 14.0, 6.0) <= 14.0
        assert between(one, 4, 8) in range(4, 9)
        assert between(one, True, False) == (one.severity == "strong")
    assert len({ground_of(one) for one in runs}) == 4
    fresh = plan("spread", rounds=1, first=3)
    assert {one.name for one in fresh}.isdisjoint({one.name for one in runs})
    assert {one.round for one in fresh} == {3}


def test_the_interval_of_wilson() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, of, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(count, of) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def _judged(code: str, *said: tuple[str, str, float, int], onset: int | None = 1, steps: int = 100) -> Judged:
    return Judged("run", "csv", code, onset, steps, tuple(Said(*one) for one in said))


def test_scores_by_hand() -> None:
    figures = scores(
        [
            _judged("plateau", ("plateau", "warning", 0.9, 13), onset=10),  # first, 3 % off
            _judged("plateau", ("plateau", "error", 0.9, 30), onset=10),  # first, 20 % off
            _judged("nan-loss", ("plateau", "warning", 0.6, 1), ("nan-loss", "error", 0.9, 1)),  # second
            _judged("nan-loss", ("nan-loss", "info", 0.9, 1)),  # first, but a remark
            _judged("leakage"),  # nothing
            _judged("healthy", ("plateau", "warning", 0.9, 1), ("leakage", "warning", 0.9, 1), onset=None),
            _judged("healthy", ("plateau", "info", 0.9, 1), onset=None),
        ]
    )
    assert (figures.first.count, figures.first.of) == (2, 5)
    assert (figures.among_three.count, figures.found.count) == (4, 4)
    assert (figures.false_alarms.count, figures.false_alarms.of, figures.alarms_per_healthy) == (1, 2, 1.0)
    assert figures.onset_median == pytest.approx(0.115)
    assert (figures.onset_within.count, figures.onset_within.of) == (1, 2)
    # Leading findings of runs with a loud one: 0.9 right, 0.9 right, 0.6 wrong, 0.9 wrong (of a sound run).
    assert figures.calibration_error == pytest.approx((1 * 0.6 + 3 * abs(0.9 - 2 / 3)) / 4)


def test_a_consequence_counts_as_found_and_not_as_first() -> None:
    one = Judged("run", "csv", "plateau", 1, 100, (Said("learning-rate-too-low", "warning", 0.8, 1, ("plateau",)),))
    assert (one.is_first, one.is_among_three, one.is_found) == (False, False, True)


def test_what_counts_as_cured() -> None:
    def attempt(*fixed: float | None, code: str = "plateau", left: int = 0) -> Attempt:
        twin = (1.9, 2.0, 2.4)
        return Attempt(name="run", code=code, found=code, state="tried", twin=twin, fixed=fixed, left=left, faulty=2.3)

    assert attempt(2.4, 2.3).is_cured  # as high as a twin
    assert not attempt(2.4, 2.5).is_cured
    assert replace(attempt(2.19, 2.2, 2.23), twin=(2.1,)).is_cured is False
    assert replace(attempt(2.19, 2.2, 2.22), twin=(2.1,)).is_cured  # within 5 %
    assert not attempt(1.0, None).is_cured
    assert attempt(2.4).is_sound_already
    assert attempt(2.0, left=1).is_cured
    assert not attempt(2.0, left=1, code="memory-leak").is_cured  # of which the loss says nothing
    assert not attempt(2.0, code="memory-leak").is_sound_already
    told = table([attempt(2.0), attempt(3.0), replace(attempt(2.0), found="noisy-loss")])
    assert "| all | 3 | 3 | 2 of 3: 67 % (21–94) | 1 of 2: 50 % (9–91) | 3 |" in told
    known = [replace(_judged("plateau"), cured=cured) for cured in (True, False, None)]
    assert (scores(known).cure.count, scores(known).cure.of) == (1, 2)


def test_a_twin_has_nothing_planted(tmp_path: Path) -> None:
    rows = [
        {"text": f"words {i}", "label": "abc"[i % 3], "signature": f"f{i}", "target": f"f {i}", "value": i % 7}
        for i in range(800)
    ]
    data, *folders = (tmp_path / name for name in ("data", "faulty", "sound"))
    for folder in (data, *folders):
        folder.mkdir()
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("corpus.txt", "other.txt"):
        (data / name).write_text("a line of text\n" * 40_000)
    for one in plan("tuning", ["trimtab"]):
        if one.code == "healthy":
            continue
        faulty, twin = (prepare_run(one, folder, data, twin=folder.name == "sound") for folder in folders)
        sound = begin(one, folders[1], data)
        assert (twin.patches, twin.resumed_patches, twin.killed_at) == ([], [], None), one.name
        assert (twin.model is None) == (sound.model is None), one.name
        planted = faulty.patches or faulty.killed_at or (faulty.model is None) != (sound.model is None)
        assert planted or faulty.model is not twin.model is not None or faulty.settings != twin.settings, one.name
        if one.code not in ("stopped-too-early", "underfitting"):
            assert twin.steps == faulty.steps or one.code in ("random-labels", "leakage"), one.name


def test_nothing_is_calibrated_where_nothing_was_said() -> None:
    assert calibration([_judged("healthy", onset=None)]) == ((), None)


GROUPS_MADE = ("--group", "trimtab", "--group", "bare", "--rounds", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of trimtab and of a bare loop, over a small text in place of the part's own."""
    folder = tmp_path_factory.mktemp("bank")
    data = folder / "data" / "tuning"
    data.mkdir(parents=True)
    text = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    while len(text) < 700_000:
        text += text
    (data / "corpus.txt").write_text(text, encoding="utf-8")
    (data / "complete").write_text("")
    made = bank(folder, "make", "--into", folder / "tuning", "--only", "*-stopped-too-early-*-lm-0", *GROUPS_MADE)
    assert "2 runs made" in made
    return folder


def bank(folder: Path, *arguments: str | Path) -> str:
    """What `python -m bank` prints, with the data of `folder`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BANK), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "TRIMTAB_CACHE": str(folder / "cache"),
    }
    words = [sys.executable, "-m", "bank", *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_are_made_with_their_truth(folder: Path) -> None:
    judged = judge(folder / "tuning", "tuning")
    assert {one.logger for one in judged} in ({"trimtab", "csv"}, {"trimtab", "jsonl"})
    for one in judged:
        assert (one.code, one.error) == ("stopped-too-early", "")
        assert one.onset == one.steps <= 50


def test_packed_runs_are_read_the_same(folder: Path, tmp_path: Path) -> None:
    assert pack([folder / "tuning"], tmp_path / "bank.tar.xz") == 2
    index = unpack(tmp_path / "bank.tar.xz", tmp_path)
    assert len(index["generators"]) == 1
    assert len(index["generators"][0]) == 64
    assert judge(tmp_path / "tuning", "tuning") == judge(folder / "tuning", "tuning")
    record = next((tmp_path / "tuning").glob("trimtab*/run/record.jsonl"))
    assert str(folder) not in record.read_text()
    assert len(list(read_record(record))) == len(record.read_text().splitlines())
    assert json.loads((record.parent / "environment.json").read_text()).keys() <= {
        "schema",
        "versions",
        "seed",
        "source",
    }


@pytest.mark.slow
def test_a_watched_run_has_the_same_log_and_what_the_callback_wrote(folder: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("lightning")
    groups = ("--group", "huggingface", "--group", "lightning", "--rounds", "1")
    for name, more in (("plain", ()), ("watched", ("--watched",))):
        made = bank(folder, "make", "--into", folder / name, "--only", "*-stopped-too-early-*", *groups, *more)
        assert "2 runs made" in made
    for place in sorted((folder / "plain").iterdir()):
        logs = [read_foreign(log_of(folder / name / place.name)).history for name in ("plain", "watched")]
        for metric in ("train/loss", "validation/loss"):
            one, other = (log.get(metric) for log in logs)
            assert one is not None
            assert other is not None
            assert [part.tolist() for part in one.raw()] == [part.tolist() for part in other.raw()]
    judged = judge(folder / "watched", "tuning", watched=True)
    assert [(one.logger, one.error) for one in judged] == [("huggingface", ""), ("lightning", "")]
    assert {one.error != "" for one in judge(folder / "plain", "tuning", watched=True)} == {True}


@pytest.mark.slow
def test_what_the_doctor_changes_is_trained_beside_a_twin_and_once(folder: Path, tmp_path: Path) -> None:
    place = folder / "cured"
    name = "trimtab-learning-rate-too-low-*-lm-0"
    assert "1 runs made" in bank(folder, "make", "--into", place, "--only", name, "--rounds", "1")

    def cure() -> dict[str, Any]:
        bank(folder, "cure", "--from", place, "--seeds", "1", "--json", tmp_path / "c")
        told: dict[str, Any] = json.loads((tmp_path / "c").read_text())
        return told

    told = cure()
    [run] = told["runs"]
    assert (run["state"], run["cured"]) == ("tried", True), run
    assert run["fixed"][0] < 0.95 * run["faulty"]
    records = sorted(place.glob("*/cure/*/seed-*/record.jsonl"))
    assert len(records) == 2
    ended = [[one for one in read_record(path) if one["event"] == "RunEnded"][-1]["step"] for path in records]
    assert ended[0] == ended[1]  # a remedy to train longer is tried for as long as the twin trains
    made = [path.stat().st_mtime_ns for path in records]
    assert cure() == told
    assert [path.stat().st_mtime_ns for path in records] == made
    [judged] = [one for one in judge(place, "tuning") if one.logger == "trimtab"]
    assert judged.cured is True
