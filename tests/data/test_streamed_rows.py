"""Rows of a stream: what the same rows are from a file, whoever reads them and however often they are cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab import Trainer
from trimtab.config import DataConfig, load_config
from trimtab.data import DataPlan, PreparedData, prepare_data
from trimtab.data.spool import Spool
from trimtab.errors import ConfigError, DataError
from trimtab.events import Event, StepsEnded
from trimtab.runs.record import read_attempts

ROWS = [
    {
        "text": f"row {number} " + "and more " * (number % 5),
        "label": ("up", "down", "flat")[number * 7 % 3],
        "labels": [name for name, step in (("even", 2), ("third", 3), ("fifth", 5)) if number % step == 0],
        "value": float(number % 11) - 3.0,
        "tags": ["word", "number"] + ["more"] * (2 * (number % 5)),
    }
    for number in range(60)
]
TASKS: dict[str, dict[str, Any]] = {
    "classification": {"task": {"name": "classification"}},
    "multi_label": {
        "task": {"name": "classification", "label": "labels", "multi_label": True},
        "objective": {"name": "binary_cross_entropy"},
    },
    "regression": {"task": {"name": "regression"}, "objective": {"name": "mse"}},
    "token_classification": {"task": {"name": "token_classification"}},
}


class Stream:
    """Rows from a place on, which its state tells."""

    rows: tuple[Any, ...] = tuple(ROWS)

    def __init__(self) -> None:
        self.place = 0

    def __iter__(self) -> Iterator[Any]:
        while self.place < len(self.rows):
            self.place += 1
            yield self.rows[self.place - 1]

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class Strange(Stream):
    rows = (*ROWS[:9], {"text": "what is this", "label": "sideways", "labels": [], "value": 0.0, "tags": []}, *ROWS[9:])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Chunks of some ten rows, and a cache of this test alone."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(Spool.__init__.__kwdefaults__, "chunk", 700)
    monkeypatch.setattr("trimtab.data.spool._ENCODED_AT_ONCE", 90)


def settings(name: str, tmp_path: Path, *, streamed: bool, stream: str = "Stream", **data: Any) -> dict[str, Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    file = {"name": "jsonl", "path": str(path)}
    source = {"name": "stream", "target": f"{__name__}:{stream}", "window": 8} if streamed else file
    return {
        "model": {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "data": {
            "source": source,
            "validation_source": file,
            "tokenizer": {"name": "bytes"},
            "sequence_length": 40,
            **data,
        },
        "training": {"steps": 8, "micro_batch_size": 4, "accumulation": 2},
        "evaluation": {"every": 4, "gap_tokens": 100},
        "logging": {"every": 2},
        **TASKS[name],
    }


def prepared(name: str, tmp_path: Path, **more: Any) -> PreparedData:
    config = load_config(settings(name, tmp_path, **more), environment={})
    return prepare_data(DataConfig.model_validate(config.data), config.task, seed=3, micro_batch_size=4)


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_those_of_the_same_rows_from_a_file(name: str, tmp_path: Path) -> None:
    file, streamed = prepared(name, tmp_path, streamed=False), prepared(name, tmp_path, streamed=True)
    assert streamed.targets == file.targets
    for indices in ([0, 1, 2], [59, 13], [47]):
        ours, theirs = (one.training.batch(np.array(indices), 3) for one in (streamed, file))
        for field in ("tokens_BT", "targets", "positions_BT", "sample_ids_B"):
            assert torch.equal(getattr(ours, field), getattr(theirs, field)), field
        assert torch.equal(ours.document_ids_BT >= 0, theirs.document_ids_BT >= 0)
        assert ours.count == theirs.count
    # When the stream is over it begins anew.
    again = streamed.training.batch(np.array([60 + 13]))
    assert torch.equal(again.tokens_BT, streamed.training.batch(np.array([13])).tokens_BT)
    assert torch.equal(again.targets, streamed.training.batch(np.array([13])).targets)
    assert not {"balance", "order", "contradictions", "tokens_per_epoch"} & set(streamed.facts)


def test_another_process_goes_on_and_any_position_is_found(tmp_path: Path) -> None:
    whole = prepared("classification", tmp_path, streamed=True)
    expected = [whole.training.batch(np.array([index])) for index in range(50)]
    for index in (49, 3, 30):
        fresh = prepared("classification", tmp_path, streamed=True)
        assert fresh.fingerprint == whole.fingerprint
        assert torch.equal(fresh.training.batch(np.array([index])).tokens_BT, expected[index].tokens_BT)
    loader = whole.loader(4, prefetch=1, pin_memory=False)
    loader.start(20, DataPlan())
    try:
        taken = loader.take(1).batches[0]
    finally:
        loader.close()
    shown = whole.order.sequences_at(np.arange(20, 24))
    assert taken.sample_ids_B.tolist() == shown.tolist()
    assert taken.targets.tolist() == [int(expected[index].targets) for index in shown.tolist()]


def test_a_class_that_is_not_known_is_named_or_passed_over(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"document 10 of the stream: task\.label: there is no class 'sideways'"):
        prepared("classification", tmp_path, streamed=True, stream="Strange")
    data = prepared("classification", tmp_path, streamed=True, stream="Strange", on_bad="skip")
    plain = prepared("classification", tmp_path, streamed=True)
    found, expected = (one.training.batch(np.arange(12)) for one in (data, plain))
    assert torch.equal(found.tokens_BT, expected.tokens_BT)
    with pytest.raises(ConfigError, match="rows of a stream come as they come"):
        load_config(settings("classification", tmp_path, streamed=True), ["task.bucketing=4"], environment={})


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 6:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one == "multi_label" else pytest.mark.slow) for one in TASKS]
)
def test_a_run_is_resumed_to_the_same_bits(name: str, tmp_path: Path) -> None:
    config = load_config(settings(name, tmp_path, streamed=True), environment={})
    whole = Trainer(config, run=tmp_path / "whole")
    metrics = whole.fit().metrics
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[Leaves()]).fit()
    again = Trainer(config, run=tmp_path / "parts")
    assert again.fit().metrics == metrics
    assert [line["resumed_from"] for line in read_attempts(tmp_path / "parts/record.jsonl")][1:] == [4]
    ours, theirs = whole.trained()[0].state_dict(), again.trained()[0].state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def hugging_face(path: str) -> Any:
    """Hugging Face's own streaming."""
    import datasets

    return datasets.load_dataset("json", data_files=path, split="train", streaming=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_streams_of_hugging_face_give_rows(name: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    written = settings(name, tmp_path, streamed=True)
    path = {"path": str(tmp_path / "rows.jsonl")}
    written["data"]["source"] |= {"target": f"{__name__}:hugging_face", "arguments": path}
    config = load_config(written, environment={})
    file = prepared(name, tmp_path, streamed=False)
    for index in (7, 55, 61):  # each time another process
        data = prepare_data(config.data, config.task, seed=3, micro_batch_size=4)
        found, expected = (one.training.batch(np.array([place])) for one, place in ((data, index), (file, index % 60)))
        assert torch.equal(found.tokens_BT, expected.tokens_BT)
        assert torch.equal(found.targets, expected.targets)
