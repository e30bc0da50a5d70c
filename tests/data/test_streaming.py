"""Streams: the same tokens whoever reads them and however often they are cut off; by state, or by replaying."""

from __future__ import annotations

import errno
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.config import DataConfig, MaskedLanguageModeling, TaskConfig, load_config
from trimtab.data import DataPlan, PackedSequences, byte_tokenizer, prepare_data
from trimtab.data.coding import TextCoding
from trimtab.data.spool import Spool
from trimtab.data.streaming import StreamedSequences
from trimtab.errors import ConfigError, DataError, StorageError
from trimtab.signals import IGNORED

TEXTS = [f"text {number} " * (1 + number % 7) for number in range(60)]
BYTES = byte_tokenizer()


class Stateful:
    """A stream that can go on where it was; counts what it gave."""

    given = 0

    def __init__(self, texts: list[Any]) -> None:
        self.texts, self.place = texts, 0

    def __iter__(self) -> Iterator[Any]:
        while self.place < len(self.texts):
            self.place += 1
            Stateful.given += 1
            yield self.texts[self.place - 1]

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


def opened() -> Stateful:
    return Stateful([{"text": text} for text in TEXTS])


def plain() -> list[str]:
    return TEXTS


def stream_of(texts: list[str], passes: int) -> list[int]:
    """The definition: all documents, each ended, again and again."""
    return [token for _ in range(passes) for text in texts for token in [*text.encode(), BYTES.end_of_text]]


def spool(folder: Path, source: Callable[[], Any] = opened, chunk: int = 100, **more: Any) -> Spool:
    return Spool(folder, source, TextCoding(BYTES), chunk=chunk, **more)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.data.spool._ENCODED_AT_ONCE", 90)


@pytest.mark.parametrize("source, resume", [(opened, "state"), (plain, "replay")])
def test_the_tokens_are_those_of_all_documents_however_it_is_cut_off(
    tmp_path: Path, source: Callable[[], Any], resume: str
) -> None:
    expected = stream_of(TEXTS, 2)
    assert len(expected) > 3000
    for end in (50, 350, 351, 900, 3000):  # another process each time
        subject = spool(tmp_path, source, resume=resume)
        assert subject.tokens(end - 50, end).tolist() == expected[end - 50 : end]
    again = spool(tmp_path, source, resume=resume)
    assert again.tokens(0, 3000).tolist() == expected[:3000]
    assert again.tokens(2990, 3010).tolist() == expected[2990:3010]
    whole = spool(tmp_path / "whole", source, resume=resume)
    assert whole.tokens(0, 3000).tolist() == expected[:3000]


def test_a_stream_with_state_is_not_gone_through_again(tmp_path: Path) -> None:
    spool(tmp_path).tokens(0, 1200)
    before = Stateful.given
    spool(tmp_path).tokens(1200, 1300)
    assert 1 <= Stateful.given - before < 12
    before = Stateful.given
    spool(tmp_path).tokens(0, 1200)  # what is there is read from the disk
    assert Stateful.given == before


def test_a_chunk_that_was_torn_away_is_made_again(tmp_path: Path) -> None:
    expected = spool(tmp_path).tokens(0, 800).tolist()
    for ending in ("bin", "json", "npy"):
        (tmp_path / f"chunk-00000007.{ending}").unlink()
    (tmp_path / "chunk-00000006.bin").unlink()  # killed between its files
    assert spool(tmp_path).tokens(0, 800).tolist() == expected


def test_a_token_that_changes_under_a_run_is_named(tmp_path: Path) -> None:
    streamed = StreamedSequences(spool(tmp_path), 16, BYTES.end_of_text, BYTES.vocabulary_size)
    with (tmp_path / "chunk-00000000.bin").open("r+b") as file:
        file.seek(2 * 37)
        file.write(np.uint16(BYTES.vocabulary_size).tobytes())
    streamed.batch(np.array([0, 1]))
    with pytest.raises(DataError, match=r":37: token 257, and the vocabulary has 257"):
        streamed.batch(np.array([2]))


class Slow(Stateful):
    def __iter__(self) -> Iterator[Any]:
        for document in super().__iter__():
            time.sleep(0.002)  # so that the other process waits for the lock
            yield document


def slow() -> Slow:
    return Slow(opened().texts)


def read(folder: Path, begin: Barrier, told: SimpleQueue[Any]) -> None:
    subject = spool(folder, slow)
    begin.wait(30)
    try:
        told.put([subject.tokens(at, at + 100).tolist() for at in range(0, 1500, 100)])
    except BaseException as error:
        told.put(repr(error))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_two_processes_make_one_spool_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # nothing is imported again
    begin, told = context.Barrier(2), context.SimpleQueue()
    readers = [context.Process(target=read, args=(tmp_path, begin, told), daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    found = [told.get() for _ in readers]
    for reader in readers:
        reader.join(30)
    expected = stream_of(TEXTS, 1)
    assert found == [[expected[at : at + 100] for at in range(0, 1500, 100)]] * 2


@pytest.mark.parametrize("ending", ["bin", "json", "npy"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_chunk_that_is_damaged_is_made_again(tmp_path: Path, ending: str, is_cut: bool) -> None:
    expected = spool(tmp_path).tokens(0, 800).tolist()
    path = tmp_path / f"chunk-00000006.{ending}"
    kept = path.read_bytes()
    changed = {"bin": kept[:10] + b"\0\1" + kept[12:], "npy": kept[:-1] + b"\7"}
    changed["json"] = kept.replace(b'"documents": ', b'"documents": 1')
    path.write_bytes(kept[: len(kept) // 2] if is_cut else changed[ending])
    (tmp_path / "chunk-00000007.bin").unlink()  # what comes next goes on from the damaged one
    subject = spool(tmp_path)
    assert subject.tokens(700, 800).tolist() == expected[700:]
    assert subject.tokens(0, 800).tolist() == expected
    assert path.read_bytes() == kept


def test_a_failed_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = spool(tmp_path)
    subject.tokens(0, 300)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("trimtab.data.spool.os.fsync", full)
        with pytest.raises(StorageError, match="cannot be kept: No space left"):
            subject.tokens(300, 400)
    assert subject.tokens(0, 1000).tolist() == stream_of(TEXTS, 1)[:1000]


class Broken(Stateful):
    def __iter__(self) -> Iterator[Any]:
        yield from list(super().__iter__())[:20]
        raise ConnectionResetError("the server is gone")


class Numbered(Stateful):
    def state_dict(self) -> dict[str, Any]:
        return {"place": np.int64(self.place)}


def missing() -> Any:
    raise FileNotFoundError("shards/7 is not there")


def test_sequences_are_those_of_the_packed_text(tmp_path: Path) -> None:
    tokens = np.array(stream_of(TEXTS, 2)[:1601])
    starts = np.concatenate([[0], np.flatnonzero(tokens == BYTES.end_of_text) + 1])
    packed = PackedSequences(tokens, starts[starts < 1601], 16, num_bytes=1)
    streamed = StreamedSequences(spool(tmp_path), 16, BYTES.end_of_text, BYTES.vocabulary_size)
    assert len(streamed) == 6
    indices = np.array([0, 5, 99, 42])
    ours, theirs = streamed.batch(indices, 5), packed.batch(indices, 5)
    for name in ("tokens_BT", "targets", "positions_BT", "sample_ids_B"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for row in range(4):  # which document is which does not matter, but where it ends
        first, second = ours.document_ids_BT[row], theirs.document_ids_BT[row]
        assert torch.equal(first.diff(), second.diff())
    assert (ours.document_ids_BT[4] == -1).all()
    assert ours.count == theirs.count


def torn() -> Stateful:
    return Stateful([{"txt": text} if number % 10 == 3 else {"text": text} for number, text in enumerate(TEXTS)])


def test_documents_without_text_are_passed_over_up_to_so_many_of_a_pass(tmp_path: Path) -> None:
    good = [text for number, text in enumerate(TEXTS) if number % 10 != 3]
    expected = stream_of(good, 2)
    for end in (500, 1500, len(expected)):  # another process each time
        subject = spool(tmp_path / "some", torn, most_bad=6)
        assert subject.tokens(end - 100, end).tolist() == expected[end - 100 : end]
    message = "document 54 of the stream has no text in 'text'.*5 before it were passed over already"
    for end in (500, 5000):
        subject = spool(tmp_path / "few", torn, most_bad=5)
        if end == 500:
            assert subject.tokens(0, end).tolist() == expected[:end]
        else:
            with pytest.raises(DataError, match=message):
                subject.tokens(0, end)
    with pytest.raises(DataError, match="document 4 of the stream has no text"):
        spool(tmp_path / "none", torn).tokens(0, 500)


def test_it_is_told_by_data_on_bad_what_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="document 4 of the stream has no text"):
        prepared(tmp_path, f"{__name__}:torn")
    skips = {"on_bad": "skip", "max_bad": 6}
    assert prepared(tmp_path, f"{__name__}:torn", data=skips).facts["stream"]["tokens_at_first"] == 1 << 20


def test_what_the_validation_source_lacks_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.validation_source: too little text to validate on"):
        prepared(tmp_path, f"{__name__}:plain", resume="replay", data={"sequence_length": 512})


def rows(path: str) -> Any:
    """Hugging Face's own streaming."""
    import datasets

    return datasets.load_dataset("json", data_files=path, split="train", streaming=True)


def prepared(
    tmp_path: Path, target: str, data: dict[str, Any] | None = None, task: TaskConfig | None = None, **source: Any
) -> Any:
    held = tmp_path / "held.txt"
    held.write_text("held out " * 40)
    config = {
        "source": {"name": "stream", "target": target, **source},
        "validation_source": {"name": "text", "path": str(held)},
        "tokenizer": {"name": "bytes"},
        "sequence_length": 16,
        **(data or {}),
    }
    return prepare_data(DataConfig.model_validate(config), seed=3, task=task)


def test_it_is_trained_on_in_windows_from_any_position(tmp_path: Path) -> None:
    data = prepared(tmp_path, f"{__name__}:plain", resume="replay", window=8)
    shown = data.order.sequences_at(np.arange(40))
    for begin in range(0, 40, 8):
        assert sorted(shown[begin : begin + 8].tolist()) == list(range(begin, begin + 8))
    assert shown.tolist() != list(range(40))
    loader = data.loader(4, prefetch=2, pin_memory=False)
    loader.start(20, DataPlan())
    try:
        assert loader.take(1).batches[0].sample_ids_B.tolist() == shown[20:24].tolist()
    finally:
        loader.close()
    assert data.facts["stream"]["window"] == 8
    assert "tokens_per_epoch" not in data.facts
    assert prepared(tmp_path, f"{__name__}:plain", resume="replay", window=8).fingerprint == data.fingerprint


def test_tokens_of_a_stream_are_hidden_and_asked_for(tmp_path: Path) -> None:
    plain_ones = prepared(tmp_path, f"{__name__}:plain", resume="replay")
    data = prepared(tmp_path, f"{__name__}:plain", task=MaskedLanguageModeling(mask_rate=0.3), resume="replay")
    indices, places = np.array([5, 2]), np.array([40, 41])
    true = plain_ones.training.batch(indices).tokens_BT
    batch = data.training.batch(indices, occurrences=places)
    asked = batch.targets != IGNORED
    assert batch.count == int(asked.sum()) >= 2
    assert torch.equal(batch.targets[asked], true[asked])
    assert torch.equal(batch.tokens_BT[~asked], true[~asked])
    assert not torch.equal(batch.tokens_BT, true)
    again = data.training.batch(indices, occurrences=places)
    assert torch.equal(again.tokens_BT, batch.tokens_BT)
    config = {"model": {"name": "encoder"}, "task": {"name": "masked_lm"}}
    source = {"name": "stream", "target": f"{__name__}:plain"}
    data_config = {"source": source, "validation_source": {"name": "embedded"}, "tokenizer": {"name": "bytes"}}
    assert load_config(config | {"data": data_config}, environment={}).data.source.name == "stream"


def test_streams_of_hugging_face_go_on_by_their_state(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    expected = stream_of(TEXTS, 2)
    for end in (300, 1500, 3000):
        subject = spool(tmp_path / "spool", lambda: rows(str(path)), chunk=200)
        assert subject.tokens(end - 300, end).tolist() == expected[end - 300 : end]
    state = json.loads((tmp_path / "spool" / "chunk-00000001.json").read_text())
    assert state["source"] is not None


@pytest.mark.parametrize(
    "source, resume, error, message",
    [
        (plain, "state", ConfigError, r"has no state_dict by which it could go on later\. Received: list"),
        (list, "replay", DataError, "the stream gives no documents"),
        (lambda: ["", {"text": ""}], "replay", DataError, "gives no text: all of its 2 documents are empty"),
        (lambda: Broken(TEXTS), "state", DataError, r"data\.source\.target.*ConnectionResetError: the server is gone"),
        (missing, "state", DataError, r"data\.source\.target: .*FileNotFoundError: shards/7 is not there"),
        (lambda: Numbered(TEXTS), "state", ConfigError, r"data\.source\.resume: the state_dict .*int64"),
        (
            lambda: [{"txt": "a"}],
            "replay",
            DataError,
            r"document 1 of the stream has no text in 'text'.*its fields: 'txt'",
        ),
    ],
)
def test_what_is_no_stream_is_refused(
    tmp_path: Path, source: Callable[[], Any], resume: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        spool(tmp_path, source, resume=resume).tokens(0, 10_000)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data.tokenizer.name=bytes"], "needs a data.validation_source"),
        (["data.validation_source={name: text, path: x}"], "data.tokenizer.name bpe, which learns from all text"),
        (
            [
                "data.validation_source={name: text, path: x}",
                "data.tokenizer.name=bytes",
                "data.curriculum.name=rarity",
            ],
            "what will come is not known",
        ),
        (
            [
                "data.validation_source={name: text, path: x}",
                "data.tokenizer.name=bytes",
                "schedule.warmup='0.5 epochs'",
            ],
            r"schedule\.warmup '0\.5 epochs': where an epoch ends is not known",
        ),
        (
            ["task.name=seq2seq", "model.name=encoder_decoder"],
            "data.source.name stream does not fit task seq2seq",
        ),
    ],
)
def test_what_it_does_not_go_with(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, ["data.source={name: stream, target: 'a:b'}", *overrides], environment={})


class Replayed:
    """Documents one after the other, in another order in each pass; counts what it gives."""

    given = 0

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[str]:
        for text in TEXTS[self.epoch :] + TEXTS[: self.epoch]:
            Replayed.given += 1
            yield text


def test_processes_that_make_chunks_in_turn_go_through_a_replayed_stream_once_each(tmp_path: Path) -> None:
    whole = spool(tmp_path / "whole", Replayed, resume="replay").tokens(0, 2900).tolist()
    readers = [spool(tmp_path / "shared", Replayed, resume="replay") for _ in range(3)]
    Replayed.given = 0
    ends = range(100, 3000, 100)
    found = [readers[number % 3].tokens(end - 100, end).tolist() for number, end in enumerate(ends)]
    assert [token for part in found for token in part] == whole
    # Each of the three goes through both passes at most once, and reads on to the end of a chunk.
    assert 2 * len(TEXTS) < Replayed.given <= 3 * 2 * len(TEXTS) + 3


def test_what_is_made_again_is_read_from_the_beginning(tmp_path: Path) -> None:
    subject = spool(tmp_path, Replayed, resume="replay")
    expected = subject.tokens(0, 1600).tolist()
    for path in tmp_path.glob("chunk-0000001*"):
        path.unlink()
    other = spool(tmp_path, Replayed, resume="replay")
    assert other.tokens(0, 200).tolist() == expected[:200]
    (tmp_path / "chunk-00000005.bin").unlink()
    # The reader of the first stands beyond it.
    subject._checked.clear()
    assert subject.tokens(500, 600).tolist() == expected[500:600]
    assert subject.tokens(0, 1600).tolist() == expected
