from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.config import DataConfig
from trimtab.data import PackedSequences, PreparedData, open_corpus, prepare_data
from trimtab.errors import DataError

MPMATH: dict[str, Any] = {
    "source": {"name": "embedded", "packages": ["mpmath"]},
    "tokenizer": {"name": "bpe", "vocabulary_size": 600, "training_bytes": 100_000},
    "sequence_length": 64,
}


def config(**changes: Any) -> DataConfig:
    return DataConfig.model_validate(MPMATH | changes)


@pytest.fixture(scope="module")
def mpmath(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Prepared once for the tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.mktemp("mpmath")))
        return prepare_data(config(), seed=0)


def bytes_config(path: Path, **changes: Any) -> DataConfig:
    source = {"name": "text", "path": str(path)}
    return config(**{"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 16} | changes)


def documents_of(data: PreparedData, sequences: PackedSequences) -> list[str]:
    ends = [*sequences.document_starts[1:].tolist(), sequences.num_tokens]
    pieces = [sequences.tokens[a:b] for a, b in zip(sequences.document_starts, ends, strict=True)]
    assert all(piece[-1] == data.tokenizer.end_of_text for piece in pieces)
    return [data.tokenizer.to_bytes(piece).decode() for piece in pieces]


def test_all_text_is_there_on_one_side_or_the_other(mpmath: PreparedData) -> None:
    data = mpmath
    training, validation = (documents_of(data, part) for part in (data.training, data.validation))
    read = [d.text for d in open_corpus(config().source, "data.source").documents(Counter())]
    assert sorted(training + validation) == sorted(read)
    assert len(validation) == round(0.05 * len(read))
    assert not set(training) & set(validation)
    assert (
        data.tokenizer.to_bytes(data.validation.tokens[1:])
        == "".join(validation).encode()[int(data.tokenizer.token_bytes[data.validation.tokens[0]]) :]
    )
    for part in (data.training, data.validation):
        assert part.num_bytes == int(data.tokenizer.token_bytes[part.tokens].sum())
        assert part.tokens.dtype == np.uint16


def test_the_facts_are_those_of_the_data(mpmath: PreparedData) -> None:
    data = mpmath
    facts = json.loads(json.dumps(data.facts))
    assert facts["training"]["tokens"] == data.training.num_tokens
    assert facts["validation"]["documents"] == data.validation.num_documents
    assert facts["training"]["bytes_per_token"] == data.training.num_bytes / data.training.num_tokens > 1.5
    assert facts["tokenizer"] == {
        "name": "bpe",
        "vocabulary_size": 600,
        "fingerprint": data.tokenizer.fingerprint,
        "lossless": True,
    }
    assert facts["vocabulary_coverage"] == len(np.unique(data.training.tokens)) / 600
    assert facts["sequences_per_epoch"] == len(data.training) == data.order.num_sequences
    assert facts["tokens_per_epoch"] == data.training.num_tokens - 1
    assert facts["leakage"] == 0
    assert facts["split"] == "5.0% of the documents, chosen by hash"
    assert facts["source"].startswith("Python code")
    assert facts["fingerprint"] == data.fingerprint


def test_the_second_time_it_comes_from_the_cache() -> None:
    stages: list[tuple[str, float]] = []
    first = prepare_data(config(), seed=0, progress=lambda stage, fraction: stages.append((stage, fraction)))
    assert [stage for stage, _ in stages] == ["reading", "learning the tokenizer", "encoding", "encoding"]
    assert all(0.0 <= fraction <= 1.0 for _, fraction in stages)
    stages.clear()
    second = prepare_data(config(), seed=0, progress=lambda stage, fraction: stages.append((stage, fraction)))
    assert stages == []
    assert second.fingerprint == first.fingerprint
    assert second.facts == first.facts
    assert (second.training.tokens == first.training.tokens).all()


def test_a_torn_cache_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line of text\n" * 100)
    data = prepare_data(bytes_config(tmp_path / "a.txt"), seed=0)
    path = data.cache / "training.tokens.bin"
    content = path.read_bytes()
    path.unlink()  # the mapped file must stay as it is
    path.write_bytes(content[:-100])
    with pytest.warns(UserWarning, match="damaged"):
        again = prepare_data(bytes_config(tmp_path / "a.txt"), seed=0)
    assert path.read_bytes() == content
    assert again.fingerprint == data.fingerprint


def test_the_fingerprint_is_of_what_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a line of text\n" * 100)
    first = prepare_data(bytes_config(path), seed=0)
    path.rename(tmp_path / "a2.txt")
    moved = prepare_data(bytes_config(tmp_path / "a2.txt"), seed=1)
    assert moved.fingerprint == first.fingerprint
    others: list[dict[str, Any]] = [
        {"sequence_length": 17},
        {"validation_fraction": 0.2},
        {"tokenizer": {"name": "bpe", "vocabulary_size": 258}},
    ]
    fingerprints = {prepare_data(bytes_config(tmp_path / "a2.txt", **change), seed=0).fingerprint for change in others}
    assert len(fingerprints | {first.fingerprint}) == 4


def test_seed_and_shuffle_make_the_order(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a line of text\n" * 100)
    orders = [prepare_data(bytes_config(path), seed=seed).order for seed in (0, 1)]
    positions = np.arange(orders[0].num_sequences)
    assert (orders[0].sequences_at(positions) != orders[1].sequences_at(positions)).any()
    plain = prepare_data(bytes_config(path, shuffle=False), seed=0).order
    assert (plain.sequences_at(positions) == positions).all()


def test_the_end_of_a_single_file_is_held_out(tmp_path: Path) -> None:
    lines = [f"line {i}\n" for i in range(400)]
    (tmp_path / "a.txt").write_text("".join(lines))
    data = prepare_data(bytes_config(tmp_path / "a.txt", validation_fraction=0.1), seed=0)
    (training,), (validation,) = documents_of(data, data.training), documents_of(data, data.validation)
    assert training + validation == "".join(lines)
    assert abs(len(validation) / len(training + validation) - 0.1) < 0.01
    assert data.facts["split"] == "the last 10.0% of the only document"


def test_a_validation_source_of_its_own_and_leakage(tmp_path: Path) -> None:
    rows = [f"training document {i}" for i in range(30)]
    held_out = ["training document 7", "another one, never seen", "training document 9"]
    for name, texts in (("train", rows), ("held", held_out)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in [*texts, ""]))
    data = prepare_data(
        bytes_config(
            tmp_path,
            source={"name": "jsonl", "path": str(tmp_path / "train.jsonl")},
            validation_source={"name": "jsonl", "path": str(tmp_path / "held.jsonl")},
        ),
        seed=0,
    )
    assert documents_of(data, data.training) == rows
    assert documents_of(data, data.validation) == held_out
    assert data.facts["leakage"] == 2
    assert data.facts["skipped"] == data.facts["validation_skipped"] == {"empty": 1}
    assert data.facts["validation_source"].endswith("held.jsonl, field 'text' (left out: 1 empty)")


def test_the_tokenizer_never_sees_the_validation_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc " * 500)
    for held_out in ("xyzzy " * 500, "plugh " * 500):
        (tmp_path / "b.txt").write_text(held_out)
        data = prepare_data(
            config(
                source={"name": "text", "path": str(tmp_path / "a.txt")},
                validation_source={"name": "text", "path": str(tmp_path / "b.txt")},
            ),
            seed=0,
        )
        assert data.tokenizer.vocabulary_size < 265
        assert len(data.tokenizer.encode("xyzzy")) == 5


def test_a_tokenizer_file_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line of text\n" * 100)
    made = prepare_data(bytes_config(tmp_path / "a.txt"), seed=0)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        made.tokenizer.save(tmp_path / folder / "tokenizer.json")
    one, two = (
        prepare_data(
            bytes_config(tmp_path / "a.txt", tokenizer={"name": "file", "path": str(tmp_path / folder)}),
            seed=0,
        )
        for folder in ("one", "two")
    )
    assert one.cache == two.cache != made.cache
    assert one.fingerprint == made.fingerprint


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line of text\n" * 100)
    made = prepare_data(bytes_config(tmp_path / "a.txt"), seed=0).tokenizer
    made.save(tmp_path / "tokenizer.json")
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["model"]["vocab"] |= {f"word{i}": 257 + i for i in range(70_000)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    data = prepare_data(bytes_config(tmp_path / "a.txt", tokenizer={"name": "file", "path": str(tmp_path)}), seed=0)
    assert data.tokenizer.vocabulary_size == 70_257
    assert data.training.tokens.dtype == np.uint32
    assert data.tokenizer.to_bytes(data.training.tokens).startswith(b"a line of text\n")


def test_too_little_text_says_what_there_is_and_what_to_lower(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a line of text\n" * 10)
    with pytest.raises(
        DataError,
        match=r"too little text: 14\d tokens to train on.*\nhint: lower data.sequence_length \(now 64\)",
    ):
        prepare_data(bytes_config(path, sequence_length=64), seed=0, micro_batch_size=4)
    with pytest.raises(
        DataError, match=r"validate on: \d+ tokens.* 32 needs 33\nhint: .*raise data.validation_fraction"
    ):
        prepare_data(bytes_config(path, sequence_length=32), seed=0)
    prepare_data(bytes_config(path, sequence_length=14, validation_fraction=0.2), seed=0, micro_batch_size=4)
    path.write_text("a")
    with pytest.raises(DataError, match="no text for validation"):
        prepare_data(bytes_config(path), seed=0)


def test_nothing_but_empty_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=r"data.source: no text for training in: 0 text files .*left out: 2 empty"):
        prepare_data(bytes_config(tmp_path), seed=0)
    (tmp_path / "b.txt").write_text("text " * 100)
    held_out = {"name": "text", "path": str(tmp_path / "a.txt")}
    with pytest.raises(DataError, match=r"data.validation_source: no text for validation"):
        prepare_data(bytes_config(tmp_path, validation_source=held_out), seed=0)


def test_files_that_change_while_they_are_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a line of text\n" * 100)

    def meddle(stage: str, fraction: float) -> None:
        path.write_text("another line\n" * 100)

    with pytest.raises(DataError, match="changed while they were read"):
        prepare_data(bytes_config(path), seed=0, progress=meddle)
    assert prepare_data(bytes_config(path), seed=0).facts["training"]["bytes"] > 1_000
