"""What cannot be used is named with file and place; it stops the run, or is passed over so many times and told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trimtab.config import Classification, Config, DataConfig, Regression, SourceConfig, load_config
from trimtab.data import Corpus, PackedSequences, PreparedData, open_corpus, prepare_data
from trimtab.data.left_out import LeftOut
from trimtab.errors import DataError

GOOD = [json.dumps({"text": f"row {number} says something", "label": number % 2}) for number in range(40)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))


def jsonl(path: Path, lines: list[str | bytes]) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def config(path: Path, *overrides: str) -> Config:
    source = f"data.source={{name: jsonl, path: {path}}}"
    settings = [source, "data.tokenizer={name: bytes}", "data.sequence_length=8", *overrides]
    return load_config(None, settings, environment={})


def prepared(path: Path, *overrides: str) -> PreparedData:
    return prepare_data(config(path, *overrides).data, seed=0)


BAD: list[tuple[str | bytes, str]] = [
    ('{"text": "torn', "is not JSON"),
    (b'{"text": "\xff\xfe"}', "is not UTF-8: byte 0xff"),
    ("[1, 2]", "must be a JSON object"),
    ('{"other": "x"}', "has no field 'text'"),
    ('{"text": 7}', "must be a string"),
    ('{"text": "\\ud800"}', "half of a surrogate pair"),
]


@pytest.mark.parametrize("line,why", BAD)
def test_a_bad_record_stops_or_is_passed_over_and_named(tmp_path: Path, line: str | bytes, why: str) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*GOOD[:20], line, *GOOD[20:]])
    with pytest.raises(DataError, match=why) as caught:
        prepared(path)
    assert f"{path}:21" in str(caught.value)
    data = prepared(path, "data.on_bad=skip")
    assert data.facts["skipped"] == {"unusable": 1}
    (named,) = data.facts["unusable"]
    assert named.startswith(f"{path}:21: ")
    assert why in named
    clean = prepared(jsonl(tmp_path / "clean.jsonl", list(GOOD)))
    assert data.fingerprint == clean.fingerprint, "what is left is what there would be without it"
    assert "1 unusable" in data.facts["source"]
    with pytest.raises(DataError, match=why):
        prepared(path)  # what was prepared with `skip` is not taken for `stop`


def test_one_more_than_may_be_passed_over_is_an_error(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*GOOD, *["no JSON"] * 3])
    assert prepared(path, "data.on_bad=skip", "data.max_bad=3").facts["skipped"] == {"unusable": 3}
    with pytest.raises(DataError, match=f"{path}:43: is not JSON.*2 before it were passed over already.*data.max_bad"):
        prepared(path, "data.on_bad=skip", "data.max_bad=2")


def _texts(source: SourceConfig, most: int) -> tuple[list[str], LeftOut]:
    left_out = LeftOut(most)
    corpus: Corpus = open_corpus(source, "data.source")
    return [document.text for document in corpus.documents(left_out)], left_out


def _source(name: str, path: Path) -> SourceConfig:
    return load_config(None, [f"data.source={{name: {name}, path: {path}}}"], environment={}).data.source


def test_csv_goes_on_after_a_row_of_another_width_and_not_after_a_torn_quote(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,text\n1,a\n2,b,c\n3,d\n4,"x"y\n5,e\n')
    texts, left_out = _texts(_source("csv", path), 5)
    assert texts == ["a", "d"]
    assert [why.partition(": ")[0] for why in left_out.named] == [f"{path}:3", f"{path}:5"]
    with pytest.raises(DataError, match="3 cells"):
        _texts(_source("csv", path), 0)


@pytest.mark.parametrize("damage", ["torn", "altered"])
def test_a_damaged_parquet_shard_is_named_and_the_others_are_read(tmp_path: Path, damage: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for number in range(3):
        parquet.write_table(pyarrow.table({"text": [f"shard {number}"]}), tmp_path / f"{number}.parquet")
    victim = tmp_path / "1.parquet"
    data = bytearray(victim.read_bytes())
    if damage == "torn":
        victim.write_bytes(data[: len(data) // 2])
    else:
        victim.write_bytes(data[:-12] + b"\x00" * 12)
    with pytest.raises(DataError, match=str(victim)):
        _texts(_source("parquet", tmp_path), 0)
    texts, left_out = _texts(_source("parquet", tmp_path), 1)
    assert texts == ["shard 0", "shard 2"]
    assert left_out.named[0].startswith(str(victim))


def test_a_text_file_that_is_no_text_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").write_bytes(b"bad \xe9")
    (tmp_path / "c.txt").write_text("")
    texts, left_out = _texts(_source("text", tmp_path), 1)
    assert texts == ["good"]
    assert left_out.counts() == {"empty": 1, "unusable": 1}
    assert left_out.named[0].startswith(f"{tmp_path / 'b.txt'}: is not UTF-8: byte 0xe9 at byte 4")


@pytest.mark.parametrize(
    "task,field,bad",
    [(Classification(label="label"), "label", [1.5]), (Regression(value="label"), "label", "much")],
)
def test_a_target_that_is_none_is_passed_over(tmp_path: Path, task: object, field: str, bad: object) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*GOOD, json.dumps({"text": "x", field: bad})])
    given = {"source": {"name": "jsonl", "path": str(path)}, "tokenizer": {"name": "bytes"}, "sequence_length": 16}
    with pytest.raises(DataError, match=r"rows\.jsonl:41"):
        prepare_data(DataConfig.model_validate(given), task, seed=0)  # type: ignore[arg-type]
    data = prepare_data(DataConfig.model_validate(given | {"on_bad": "skip"}), task, seed=0)  # type: ignore[arg-type]
    assert data.facts["skipped"] == {"unusable": 1}


def test_a_token_beyond_the_vocabulary_is_named_before_a_model_sees_it() -> None:
    tokens = np.arange(50, dtype=np.uint16) % 20
    tokens[33] = 20
    sequences = PackedSequences(tokens, np.array([0]), 8, num_bytes=50, vocabulary_size=20, source="training.bin")
    sequences.batch(np.array([0, 1, 2]))
    with pytest.raises(DataError, match=r"training\.bin:33: token 20, and the vocabulary has 20"):
        sequences.batch(np.array([0, 4]))


def test_prepared_tokens_that_change_under_a_run_are_named_with_file_and_position(tmp_path: Path) -> None:
    data = prepared(jsonl(tmp_path / "rows.jsonl", list(GOOD)))
    file = data.cache / "training.tokens.bin"
    content = bytearray(file.read_bytes())
    content[2 * 9 : 2 * 9 + 2] = (60_000).to_bytes(2, "little")
    with file.open("r+b") as stream:
        stream.write(content)
    with pytest.raises(DataError, match=f"{file}:9: token 60000") as caught:
        data.training.batch(np.array([1]))
    assert "start again" in (caught.value.hint or "")
    with pytest.warns(UserWarning, match="has changed"):
        again = prepared(tmp_path / "rows.jsonl")
    again.training.batch(np.array([1]))
