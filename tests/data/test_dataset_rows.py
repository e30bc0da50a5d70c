"""Data sets written by Hugging Face `datasets` itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.config import DataConfig
from trimtab.config.data import DatasetSource
from trimtab.config.task import Classification, TokenClassification
from trimtab.data import open_corpus, prepare_data
from trimtab.data.left_out import LeftOut
from trimtab.errors import DataError

datasets = pytest.importorskip("datasets")

TEXTS = [f"text number {number} of them" for number in range(40)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set in three files, and one of two splits."""
    folder = tmp_path_factory.mktemp("sets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "words": datasets.Sequence(datasets.Value("string")),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "NUMBER"])),
        }
    )
    rows = {
        "text": TEXTS,
        "label": [number % 2 if number != 7 else -1 for number in range(40)],
        "words": [text.split() for text in TEXTS],
        "tags": [[0, 0, 1, 0, 0] for _ in TEXTS],
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(folder / "one", num_shards=3)
    datasets.DatasetDict({"train": whole, "test": whole.select(range(30, 40))}).save_to_disk(folder / "two")
    whole.shuffle(seed=1).save_to_disk(folder / "shuffled")
    return folder


def read(path: Path, split: str | None = None, wanted: dict[str, str] | None = None, column: str = "text") -> list[Any]:
    source = DatasetSource(path=str(path), split=split, column=column)
    return list(open_corpus(source, "data.source", wanted).documents(LeftOut()))


def test_rows_come_in_the_order_of_the_set(saved: Path) -> None:
    found = read(saved / "one")
    assert [document.text for document in found] == TEXTS
    assert found[0].name == "data-00000-of-00003.arrow:1"
    assert len({document.name for document in found}) == 40
    assert [document.text for document in read(saved / "two", "test")] == TEXTS[30:]
    loaded = datasets.load_from_disk(str(saved / "shuffled"))["text"]
    assert [document.text for document in read(saved / "shuffled")] == list(loaded)


def test_classes_are_read_by_name(saved: Path) -> None:
    found = read(saved / "one", wanted={"task.label": "label"})
    assert [document.fields for document in found[:8]] == [
        ("bad",), ("good",), ("bad",), ("good",), ("bad",), ("good",), ("bad",), (None,),
    ]  # fmt: skip
    tagged = read(saved / "one", wanted={"task.tags": "tags"}, column="words")[0]
    assert tagged.words == ("text", "number", "0", "of", "them")
    assert tagged.fields == (["O", "O", "NUMBER", "O", "O"],)


def test_it_is_prepared_for_tasks_of_rows(saved: Path) -> None:
    def config(column: str) -> DataConfig:
        source = {"name": "dataset", "path": str(saved / "two"), "split": "train", "column": column}
        return DataConfig.model_validate({"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 64})

    data = prepare_data(config("text"), Classification(), seed=0)
    assert data.targets.classes == ("bad", "good")
    assert data.facts["skipped"] == {"without a target": 1}
    tags = prepare_data(config("words"), TokenClassification(), seed=0)
    assert tags.targets.classes == ("NUMBER", "O")


@pytest.mark.parametrize(
    "path, split, column, message",
    [
        ("two", None, "text", r"split: the data set .* has several\. Received: null\. Allowed: 'train', 'test'"),
        ("two", "tets", "text", r"no such split\. Received: 'tets'"),
        ("one", "train", "text", r"no such split\. Received: 'train'\. Allowed: none"),
        ("one", None, "txet", r"has no column 'txet' \(data\.source\.column\)"),
        ("one", None, "label", r"arrow:1: column 'label' must hold text\. Received: int"),
        (".", None, "text", r"data\.source\.path: no data set of Hugging Face `datasets` lies there"),
    ],
)
def test_what_is_refused(saved: Path, path: str, split: str | None, column: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(saved / path, split, column=column)


def test_a_torn_file_is_named_and_may_be_passed_over(saved: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(saved / "one", tmp_path / "one")
    torn = tmp_path / "one" / "data-00001-of-00003.arrow"
    torn.write_bytes(torn.read_bytes()[:300])
    source = DatasetSource(path=str(tmp_path / "one"))
    with pytest.raises(DataError, match=r"data-00001-of-00003\.arrow: cannot be read as Arrow"):
        list(open_corpus(source, "data.source").documents(LeftOut()))
    skipped = LeftOut(5)
    found = list(open_corpus(source, "data.source").documents(skipped))
    assert len(found) < 40
    assert skipped["unusable"] == 1


def test_an_index_beside_the_rows_is_refused(saved: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(saved / "one", tmp_path / "one")
    state = json.loads((tmp_path / "one" / "state.json").read_text())
    (tmp_path / "one" / "state.json").write_text(json.dumps(state | {"_indices_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(DataError, match="flatten_indices"):
        read(tmp_path / "one")
