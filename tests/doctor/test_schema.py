"""What `trimtab doctor --json` prints keeps to its schema, whatever was asked for, and the schema to its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from trimtab.cli.options import app
from trimtab.doctor.schema import DIAGNOSIS_SCHEMA, DOCTOR_SCHEMA
from trimtab.experiments.checks import Check
from trimtab.experiments.proof import Outcome, judge
from trimtab.runs.files import json_value

FORMATS = Path(__file__).parents[1] / "runs" / "importers" / "formats"
VALIDATOR = jsonschema.Draft202012Validator(DOCTOR_SCHEMA)
KEYS = {"schema", "run", "verdict", "findings", "withheld", "summary", "order"}
FINDING = {"code", "severity", "confidence", "onset_step", "cause", "evidence", "consequences", "remedies"}


def printed(*arguments: str | Path) -> Any:
    done = CliRunner().invoke(app, ["doctor", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_what_is_printed_keeps_to_the_schema(tmp_path: Path) -> None:
    known, own = FORMATS / "huggingface", FORMATS / "nested.jsonl"
    one = printed(known, "--fix", tmp_path / "fixed.yaml")
    VALIDATOR.validate(one)
    assert one["fix"]["advice"][0]["code"] == "schedule-mismatch"
    assert one["log"]["format"] == "huggingface"
    assert one["log"]["names"]["eval_loss"] == "validation/loss"
    both = printed(known, own)
    VALIDATOR.validate(both)
    assert [answer["log"]["format"] for answer in both] == ["huggingface", "jsonl"]
    assert not VALIDATOR.is_valid({**one, "more": 1})
    assert not VALIDATOR.is_valid({**one, "log": {**one["log"], "format": 1}})


def test_proofs_and_examinations_keep_to_the_schema() -> None:
    sound = printed(FORMATS / "keras.csv")
    outcomes = [
        Outcome("original", 1, "runs/a", "failed", 10, None, ("nan-loss",)),
        Outcome("fixed", 1, "runs/b", "finished", 10, 2.0, ()),
    ]
    proof = judge(outcomes, ["nan-loss"], ["optimizer.learning_rate=1e-4"], steps=10, of_steps=40).to_json()
    check = Check("leak", "left out", "no text", "", {"loss": float("nan")}, 0.5).to_json()
    VALIDATOR.validate(json_value({**sound, "proof": proof, "examination": [check]}))
    VALIDATOR.validate({**sound, "proof": None})
    assert not VALIDATOR.is_valid({**sound, "proof": {**proof, "verdict": "fine"}})
    assert not VALIDATOR.is_valid({**sound, "examination": [{**check, "verdict": "fine"}]})


def test_no_key_is_renamed_or_taken_away_while_the_number_is_one() -> None:
    """Programs of other people read them: a change needs another number, and this test says so."""
    assert DIAGNOSIS_SCHEMA["properties"]["schema"] == {"const": 1}
    assert set(DIAGNOSIS_SCHEMA["required"]) == KEYS
    assert set(DIAGNOSIS_SCHEMA["properties"]["findings"]["items"]["required"]) == FINDING
    assert set(DOCTOR_SCHEMA["$defs"]["answer"]["properties"]) == {
        *KEYS,
        *("unit", "beaten_by", "log", "fix", "examination", "proof"),
    }
    assert set(DOCTOR_SCHEMA["$defs"]["answer"]["required"]) == KEYS
