"""Rows with targets: what is read, what a batch holds, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.choices import _cut
from trimtab.config import CausalLanguageModeling, DataConfig, TaskConfig, TokenClassification
from trimtab.data import LabelledTexts, PreparedData, Ragged, prepare_data
from trimtab.data.order import Order
from trimtab.errors import DataError
from trimtab.signals import IGNORED

TEXTS = [f"{'wide ' * (index % 7)}text number {index}" for index in range(60)]


def prepared(tmp_path: Path, task: dict[str, Any], rows: list[dict[str, Any]], **data: Any) -> PreparedData:
    from pydantic import TypeAdapter

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "jsonl", "path": str(path)}
    config = DataConfig.model_validate(
        {"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 24, "validation_fraction": 0.2, **data}
    )
    return prepare_data(config, TypeAdapter(TaskConfig).validate_python(task), seed=3, micro_batch_size=4)


def texts_of(data: PreparedData, side: Any) -> list[str]:
    return [data.tokenizer.decode(side.row(index).tolist()) for index in range(len(side))]


def test_classes_keep_to_their_texts(tmp_path: Path) -> None:
    rows = [{"text": text, "label": "even" if index % 2 == 0 else "odd"} for index, text in enumerate(TEXTS)]
    rows[7]["label"] = None
    data = prepared(tmp_path, {"name": "classification"}, rows)
    assert data.targets.classes == ("even", "odd")
    assert sum(data.targets.counts) == data.targets.total == len(data.training)
    assert data.facts["skipped"] == {"without a target": 1}
    seen = 0
    for side in (data.training, data.validation):
        assert isinstance(side, LabelledTexts)
        batch = side.batch(np.arange(len(side)))
        assert batch.count == len(side)
        for text, target, tokens, documents in zip(
            texts_of(data, side), batch.targets.tolist(), batch.tokens_BT, batch.document_ids_BT, strict=True
        ):
            assert target == int(text.split()[-1]) % 2
            real = tokens[documents >= 0].tolist()
            assert real[0] == data.tokenizer.end_of_text
            assert data.tokenizer.decode(real[1:]) == text[:23]
            seen += 1
    assert seen == 59


def test_a_batch_is_as_long_as_its_longest_text_and_padding_says_so(tmp_path: Path) -> None:
    rows = [{"text": text, "label": index % 3} for index, text in enumerate(TEXTS)]
    data = prepared(tmp_path, {"name": "classification"}, rows, sequence_length=64)
    assert isinstance(data.training, LabelledTexts)
    short = np.argsort(data.training.lengths)[:3]
    batch = data.training.batch(short, 5)
    longest = int(data.training.lengths[short].max())
    assert batch.tokens_BT.shape == (5, -(-longest // 8) * 8)
    assert batch.sample_ids_B.tolist() == [*short.tolist(), -1, -1]
    assert batch.targets.tolist()[3:] == [IGNORED, IGNORED]
    assert (batch.document_ids_BT[3:] == -1).all()
    assert [(row >= 0).sum() for row in batch.document_ids_BT.numpy()[:3]] == data.training.lengths[short].tolist()
    full = prepared(tmp_path, {"name": "classification", "padding": "full"}, rows, sequence_length=64)
    assert full.training.batch(short).tokens_BT.shape == (3, 64)
    assert full.fingerprint == data.fingerprint
    assert data.facts["cut_texts"] == 0
    short_ones = prepared(tmp_path, {"name": "classification"}, rows, sequence_length=20)
    cut = sum(len(text) + 1 > 20 for text in texts_of(short_ones, short_ones.training))
    assert short_ones.facts["cut_texts"] == cut > 0
    assert short_ones.facts["longest_text"] == max(len(text) + 1 for text in texts_of(short_ones, short_ones.training))


def test_how_long_a_sequence_must_be_to_cut_nothing_is_told(tmp_path: Path) -> None:
    rows = [{"text": f"{index:064}", "label": index % 3} for index in range(60)]
    (told,) = _cut(prepared(tmp_path, {"name": "classification"}, rows, sequence_length=64))
    assert told.startswith("100% of the texts are longer than data.sequence_length and are cut: the longest needs 65")
    assert _cut(prepared(tmp_path, {"name": "classification"}, rows, sequence_length=65)) == []


def test_labels_numbers_and_second_texts(tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": [name for name in "ab" if index % (2 if name == "a" else 3) == 0]}
        for index, text in enumerate(TEXTS)
    ]
    data = prepared(tmp_path, {"name": "classification", "multi_label": True}, rows)
    batch = data.training.batch(np.arange(8))
    for text, targets in zip(texts_of(data, data.training), batch.targets.tolist(), strict=False):
        number = int(text.split()[-1])
        assert targets == [float(number % 2 == 0), float(number % 3 == 0)]
    assert batch.count == 16

    rows = [{"text": text, "value": str(index / 4)} for index, text in enumerate(TEXTS)]
    data = prepared(tmp_path, {"name": "regression"}, rows)
    targets = data.training.batch(np.arange(len(data.training))).targets.numpy()
    values = np.array([int(text.split()[-1]) / 4 for text in texts_of(data, data.training)])
    assert data.targets.mean == pytest.approx(values.mean())
    assert data.targets.deviation == pytest.approx(values.std())
    np.testing.assert_allclose(targets, (values - values.mean()) / values.std(), rtol=1e-6, atol=1e-6)

    rows = [{"text": text, "target": text[::-1]} for text in TEXTS]
    data = prepared(tmp_path, {"name": "seq2seq", "target_length": 9}, rows)
    assert data.fingerprint != prepared(tmp_path, {"name": "seq2seq", "target_length": 8}, rows).fingerprint
    batch = data.training.batch(np.arange(5))
    end = data.tokenizer.end_of_text
    assert batch.second_BS is not None
    for text, read, asked in zip(texts_of(data, data.training), batch.second_BS, batch.targets, strict=False):
        wanted = [*text[::-1].encode(), end][:9]
        assert asked[: len(wanted)].tolist() == wanted
        assert read[: len(wanted)].tolist() == [end, *wanted[:-1]]
        assert (asked[len(wanted) :] == IGNORED).all()


def test_numbers_far_from_0_keep_their_differences(tmp_path: Path) -> None:
    """float32 holds 1.7e9 to 128: the mean is taken off before, in float64."""
    rows = [{"text": text, "value": 1.7e9 + index % 10} for index, text in enumerate(TEXTS)]
    data = prepared(tmp_path, {"name": "regression"}, rows)
    targets = data.training.batch(np.arange(len(data.training))).targets.numpy()
    values = [1.7e9 + int(text.split()[-1]) % 10 for text in texts_of(data, data.training)]
    np.testing.assert_allclose(
        targets.astype(np.float64) * data.targets.deviation + data.targets.mean, values, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("value", [-100.0, None])
def test_no_number_is_taken_for_the_mark_of_what_is_not_counted(tmp_path: Path, value: float | None) -> None:
    """-100 as it stands, and the number of the validation set that is -100 in standard units."""
    rows = [{"text": text, "value": float(index % 2) * 2.0 - 1.0} for index, text in enumerate(TEXTS)]
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps({"text": f"new {index}", "value": -100.0}) + "\n" for index in range(6)))
    source = {"name": "jsonl", "path": str(held_out)}
    if value is not None:
        rows[0]["value"] = rows[1]["value"] = value
    data = prepared(tmp_path, {"name": "regression"}, rows, validation_source=source)
    assert data.targets.deviation == 1.0 or value is not None
    for side in (data.training, data.validation):
        batch = side.batch(np.arange(len(side)))
        assert batch.count == len(side)
        assert not bool((batch.targets == IGNORED).any())


@pytest.mark.parametrize("count", [44, 45, 55])
def test_equal_numbers_are_refused_though_their_deviation_rounds_above_0(tmp_path: Path, count: int) -> None:
    rows = [{"text": f"text {index}", "value": 0.1} for index in range(count)]
    with pytest.raises(DataError, match=r"all numbers to train on are 0\.1"):
        prepared(tmp_path, {"name": "regression"}, rows)


def test_a_row_without_words_is_counted_as_empty(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"word{index} x", "tags": "long short"} for index in range(40)]
    rows[3:3] = [{"text": " ", "tags": ""}, {"text": " ", "tags": []}, {"text": "a b", "tags": ""}]
    data = prepared(tmp_path, {"name": "token_classification"}, rows)
    assert data.facts["skipped"] == {"empty": 2, "without a target": 1}
    assert len(data.training) + len(data.validation) == 40


def test_tags_stand_at_the_first_token_of_their_word(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": ["alpha", "be", "c"], "tags": ["long", "short", "short"]}
        if index % 2
        else {"text": f"word{index} x", "tags": "long short"}
        for index in range(40)
    ]
    data = prepared(tmp_path, {"name": "token_classification"}, rows)
    assert data.targets.classes == ("long", "short")
    batch = data.training.batch(np.arange(len(data.training)))
    for tokens, targets in zip(batch.tokens_BT.tolist(), batch.targets.tolist(), strict=True):
        text = data.tokenizer.decode([token for token in tokens[1:] if token])
        begins = [0, *(place for place, letter in enumerate(text) if letter == " ")]
        asked = {place: target for place, target in enumerate(targets[1:]) if target != IGNORED}
        words = text.split()
        assert asked == {begin: int(len(word) < 5) for begin, word in zip(begins, words, strict=True)}


def test_csv_and_its_quotes(tmp_path: Path) -> None:
    from trimtab.config import Classification

    path = tmp_path / "rows.csv"
    lines = [f'"text, ""{index}""\nmore",{"yes" if index % 2 else "no"}\r\n' for index in range(30)]
    path.write_bytes(b"\xef\xbb\xbf" + "".join(["words,kind\r\n", *lines, '"",no\r\n', "alone,\r\n"]).encode())
    source = {"name": "csv", "path": str(path), "column": "words"}
    config = DataConfig.model_validate({"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 32})
    data = prepare_data(config, Classification(label="kind"), seed=0)
    assert data.targets.classes == ("no", "yes")
    assert data.facts["skipped"] == {"empty": 1, "without a target": 1}
    assert 'text, "' in texts_of(data, data.training)[0]
    path.write_text("words,kind\na,b,c\n")
    with pytest.raises(DataError, match=r"rows.csv:2: the row ends here with 3 cells, and the header has 2"):
        prepare_data(config, Classification(label="kind"), seed=0)


def prepared_csv(tmp_path: Path, lines: list[str], task: TaskConfig) -> PreparedData:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{line}\n" for line in lines))
    source = {"name": "csv", "path": str(path)}
    config = DataConfig.model_validate({"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 32})
    return prepare_data(config, task, seed=0)


def test_a_long_cell_of_csv_is_read(tmp_path: Path) -> None:
    from trimtab.config import Classification

    limit = csv.field_size_limit()
    lines = [f"{'w' * (140_000 if index == 3 else 5)} {index},{index % 2}" for index in range(40)]
    data = prepared_csv(tmp_path, lines, Classification())
    assert len(data.training) + len(data.validation) == 40
    assert data.facts["training"]["bytes"] + data.facts["validation"]["bytes"] > 140_000
    assert csv.field_size_limit() == limit


def test_a_text_without_a_label_has_none_in_csv_too(tmp_path: Path) -> None:
    from trimtab.config import Classification

    labels = ["a|b", "a", ""]
    lines = [f"text {index},{labels[index % 3]}" for index in range(60)]
    data = prepared_csv(tmp_path, lines, Classification(multi_label=True))
    assert data.facts["skipped"] == {}
    for text, targets in zip(
        texts_of(data, data.training), data.training.batch(np.arange(len(data.training))).targets, strict=True
    ):
        assert int(targets.sum()) == 2 - int(text.split()[-1]) % 3
    data = prepared_csv(tmp_path, lines, Classification())
    assert data.facts["skipped"] == {"without a target": 20}


def test_lists_of_words_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [["alpha", "be x"] if index % 2 else ["c"] for index in range(30)]
    tags = [["long", "short"] if index % 2 else ["short"] for index in range(30)]
    path = tmp_path / "words.parquet"
    parquet.write_table(pyarrow.table({"tokens": rows, "tags": tags, "number": [1] * 30}), path)
    source = {"name": "parquet", "path": str(path), "column": "tokens"}
    config = DataConfig.model_validate({"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 24})
    data = prepare_data(config, TokenClassification(), seed=0)
    batch = data.training.batch(np.arange(len(data.training)))
    for text, targets in zip(texts_of(data, data.training), batch.targets.tolist(), strict=True):
        asked = [target for target in targets if target != IGNORED]
        assert asked == ([0, 1] if text == "alpha be x" else [1])
    with pytest.raises(DataError, match="must hold strings"):
        prepare_data(config, CausalLanguageModeling(), seed=0)


@pytest.mark.parametrize(
    "task,row,message",
    [
        ({"name": "classification"}, {"label": 1.5}, "must be text, a whole number, true or false. Received: 1.5"),
        ({"name": "classification"}, {}, "has no field 'label' (task.label)"),
        ({"name": "classification"}, {"label": "same"}, "nothing to tell apart"),
        ({"name": "regression"}, {"value": "many"}, "must be a finite number. Received: 'many'"),
        ({"name": "regression"}, {"value": True}, "must be a finite number"),
        ({"name": "regression"}, {"value": 1e60}, "must be a finite number"),
        ({"name": "regression"}, {"value": 2}, "all numbers to train on are 2.0"),
        ({"name": "token_classification"}, {"tags": ["one"]}, "3 words have 1 tags"),
        ({"name": "seq2seq"}, {"target": ["no"]}, "must be text"),
    ],
)
def test_what_is_no_target_is_refused(tmp_path: Path, task: dict[str, Any], row: dict[str, Any], message: str) -> None:
    rows = [{"text": f"text number {index}", **row} for index in range(30)]
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, task, rows)
    assert message in str(caught.value)


def test_too_few_rows(tmp_path: Path) -> None:
    rows = [{"text": f"text {index}", "label": index % 2} for index in range(12)]
    with pytest.raises(DataError, match="12 rows are too few to hold some out"):
        prepared(tmp_path, {"name": "classification"}, rows)


def test_bucketing_puts_similar_lengths_together_and_loses_nothing(tmp_path: Path) -> None:
    rows = [{"text": "x" * (1 + index * 37 % 90) + str(index), "label": index % 2} for index in range(303)]
    task = {"name": "classification", "bucketing": 8}
    data = prepared(tmp_path, task, rows, sequence_length=128)
    plain = prepared(tmp_path, {**task, "bucketing": 1}, rows, sequence_length=128)
    count = len(data.training)

    def padded(of: PreparedData) -> int:
        order = of.order.sequences_at(np.arange(count - count % 4)).reshape(-1, 4)
        return sum(of.training.batch(batch).tokens_BT.numel() for batch in order)

    assert padded(data) < 0.8 * padded(plain)
    for epoch in range(2):
        places = np.arange(epoch * count, (epoch + 1) * count)
        assert sorted(data.order.sequences_at(places).tolist()) == list(range(count))
    assert data.order.sequence_at(count + 5) == data.order.sequences_at(np.arange(2 * count))[count + 5]


@pytest.mark.parametrize("padding", ["longest", "full"])
def test_texts_of_one_width_are_not_sorted_by_their_lengths(tmp_path: Path, padding: str) -> None:
    """What needs no padding stays shuffled: where a target goes with the length, batches were of one target each."""
    rows = [{"text": f"{10 ** (index % 7)}", "value": float(index % 7)} for index in range(600)]
    if padding == "full":  # else these have several widths
        rows = [{"text": f"{10 ** (index % 7)}" * 3, "value": float(index % 7)} for index in range(600)]
    data = prepared(tmp_path, {"name": "regression", "padding": padding}, rows)
    places = np.arange(len(data.training) // 4 * 4)
    found = data.training.batch(data.order.sequences_at(places)).targets.numpy().reshape(-1, 4)
    # Of four drawn from all, in standard units; sorted by length it is near 1.
    assert float(found.mean(1).std()) < 0.65


def test_eight_batches_are_as_mixed_as_shuffled_ones_by_default(tmp_path: Path) -> None:
    """Where a target goes with the length: what is learned follows the last few batches, so all have to be in these."""
    rows = [{"text": "x" * (1 + index * 37 % 100), "value": float(index * 37 % 100)} for index in range(4000)]

    def spread(**task: Any) -> float:
        data = prepared(tmp_path, {"name": "regression", **task}, rows, sequence_length=104)
        places = np.arange(len(data.training) // 32 * 32)
        targets = data.training.batch(data.order.sequences_at(places)).targets.numpy()
        return float(targets.reshape(-1, 32).mean(1).std())

    assert spread() == pytest.approx(spread(bucketing=1), rel=0.01)
    assert spread(bucketing=64) > 1.4 * spread()


@pytest.mark.parametrize("count", [300, 301, 302, 303])
def test_bucketing_lasts_beyond_the_first_epoch(count: int) -> None:
    """Micro-batches count from the start of the run: an epoch need not begin with one."""
    lengths = np.arange(count) * 37 % 90 + 1

    def spread(epoch: int, bucketing: int) -> float:
        order = Order(count, seed=3, lengths=lengths, block=4, bucketing=bucketing)
        first, last = -(-epoch * count // 4), (epoch + 1) * count // 4
        found = lengths[order.sequences_at(np.arange(4 * first, 4 * last))].reshape(-1, 4)
        return float((found.max(1) - found.min(1)).mean())

    for epoch in range(4):
        assert spread(epoch, 16) < 8 < 40 < spread(epoch, 1)
        order = Order(count, seed=3, lengths=lengths, block=4, bucketing=16)
        assert sorted(order.sequences_at(np.arange(epoch * count, (epoch + 1) * count))) == list(range(count))


def test_indices_out_of_range() -> None:
    texts = LabelledTexts(Ragged(np.arange(4), np.array([0, 2, 4])), np.array([0, 1]), end_of_text=9, sequence_length=8)
    for wrong, size in (([2], None), ([0, 1], 1)):
        with pytest.raises(IndexError):
            texts.batch(np.array(wrong), size)
