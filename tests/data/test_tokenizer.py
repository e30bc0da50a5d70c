from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

import trimtab.data.tokenizer
from trimtab.data import END_OF_TEXT, Tokenizer, byte_tokenizer, load_tokenizer, train_bpe, train_unigram
from trimtab.data.tokenizer import spread_sample
from trimtab.errors import ConfigError, DataError

CODE = inspect.getsource(tokenizers) + inspect.getsource(json) + inspect.getsource(inspect)
BPE = train_bpe([CODE], 700)
UNIGRAM = train_unigram([CODE], 700)
BYTES = byte_tokenizer()
both = pytest.mark.parametrize("tokenizer", [BPE, UNIGRAM, BYTES], ids=["bpe", "unigram", "bytes"])


@both
@given(text=st.text())
@example(text=f"a{END_OF_TEXT}b")
@example(text=END_OF_TEXT)
@example(text="  \r\n\t x\u00a0\u2028 é e\u0301 \U0001f600 \ufeff")
@example(text="")
def test_text_comes_back_as_it_was(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.end_of_text not in tokens
    assert tokenizer.to_bytes(tokens) == text.encode()
    assert int(tokenizer.token_bytes[tokens].sum()) == len(text.encode())


@both
def test_the_end_of_text_is_a_token_without_bytes(tokenizer: Tokenizer) -> None:
    end = tokenizer.end_of_text
    assert tokenizer.token_bytes[end] == 0
    assert tokenizer.to_bytes([*tokenizer.encode("a"), end]) == b"a"
    assert tokenizer.decode([end]) == END_OF_TEXT
    assert len(tokenizer.token_bytes) == tokenizer.vocabulary_size
    assert (np.delete(tokenizer.token_bytes, end) > 0).all()


def test_bytes_are_their_own_tokens() -> None:
    assert BYTES.vocabulary_size == 257
    assert BYTES.end_of_text == 256
    assert BYTES.encode("aé") == [97, 0xC3, 0xA9]


def test_half_a_character_is_shown_as_a_replacement() -> None:
    assert BYTES.decode([97, 0xC3]) == "a\ufffd"


def test_training_repeats() -> None:
    again = train_bpe([CODE], 700)
    assert BPE.vocabulary_size == 700
    assert again.fingerprint == BPE.fingerprint
    assert again.fingerprint != train_bpe([CODE], 699).fingerprint


def test_a_small_text_gives_fewer_tokens_than_asked_for() -> None:
    assert train_bpe(["ab ab"], 5_000).vocabulary_size < 270


@both
def test_long_documents_are_cut_without_changing_their_tokens(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenizer.encode(CODE)
    monkeypatch.setattr(trimtab.data.tokenizer, "_LONGEST_PIECE", 10_000)
    assert tokenizer.encode(CODE) == whole


@given(text=st.text(alphabet="ab \n\t", max_size=60))
def test_cutting_anywhere_loses_nothing(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trimtab.data.tokenizer, "_LONGEST_PIECE", 4)
        assert BPE.decode(BPE.encode(text)) == text


def test_a_batch_is_each_text_alone() -> None:
    texts = ["one", "", "def f():\n    return 1\n", END_OF_TEXT]
    for tokenizer in (BPE, BYTES):
        assert [tokens.tolist() for tokens in tokenizer.encode_batch(texts)] == [*map(tokenizer.encode, texts)]


@both
def test_it_is_the_same_after_saving(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    for loaded in (Tokenizer.load(tmp_path / "tokenizer.json"), load_tokenizer(str(tmp_path))):
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.end_of_text == tokenizer.end_of_text
        assert loaded.encode(CODE) == tokenizer.encode(CODE)
        assert (loaded.token_bytes == tokenizer.token_bytes).all()


def foreign(path: Path, end_of_text: str = "</s>") -> Path:
    """A tokenizer in the manner of Llama: words begin with a sign for the space, rare characters are bytes."""
    vocabulary = {"<unk>": 0, "▁": 1, "a": 2, "▁a": 3} | {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.add_special_tokens([end_of_text])
    inner.enable_truncation(3)
    inner.enable_padding(length=3)
    inner.save(str(path))
    return path


def test_a_foreign_tokenizer_counts_its_bytes_and_neither_cuts_nor_pads(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(foreign(tmp_path / "t.json")), "</s>")
    text = "a a aaaé a</s>"
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.end_of_text == 260
    assert tokenizer.end_of_text not in tokens
    assert tokenizer.to_bytes(tokens) == text.encode()
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").end_of_text == 260


def test_a_missing_end_of_text_lists_the_special_tokens(tmp_path: Path) -> None:
    path = foreign(tmp_path / "tokenizer.json", "<|endoftext|>")
    with pytest.raises(ConfigError, match=r"end_of_text.*'<\|endoftext\|>'\nhint: did you mean") as error:
        load_tokenizer(str(path), "<|end_of_text|>")
    assert error.value.exit_code == 2


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"is no tokenizer.json"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(str(tmp_path))


@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=30), most=st.integers(16, 9_000))
def test_a_sample_is_bounded_and_spread(lengths: list[int], most: int) -> None:
    texts = [chr(97 + i % 26) * length for i, length in enumerate(lengths)]
    total = sum(lengths)
    sample = list(spread_sample(texts, total, most))
    size = sum(map(len, sample))
    assert size <= most
    if total <= most:
        assert sample == texts
    else:
        assert size >= min(most, total) // 4


def test_a_sample_of_one_long_text_reaches_its_end() -> None:
    text = "".join(chr(97 + i * 26 // 100_000) for i in range(100_000))
    assert set("".join(spread_sample([text], len(text), 20_000))) == set(text)


def test_a_sample_never_cuts_a_character() -> None:
    text = "é" * 5_000
    assert set("".join(spread_sample([text], 10_000, 1_000))) == {"é"}


def test_unigram_pieces_are_the_most_probable_ones() -> None:
    """Kudo 2018, equation 3: of all ways to divide a word the one whose pieces have the highest product."""
    state = json.loads(UNIGRAM._inner.to_str())["model"]["vocab"]
    scores = dict(state)
    assert UNIGRAM.vocabulary_size <= 700
    for word in ("return", "Tokenizer", "inspect", "qzx"):
        best: list[tuple[float, list[str]]] = [(0.0, [])]
        for end in range(1, len(word) + 1):
            ways = [
                (best[begin][0] + scores[word[begin:end]], [*best[begin][1], word[begin:end]])
                for begin in range(end)
                if word[begin:end] in scores
            ]
            best.append(max(ways))
        pieces = [UNIGRAM.to_bytes([token]).decode() for token in UNIGRAM.encode(word)]
        assert pieces == best[-1][1]
    assert train_unigram([CODE], 700).fingerprint == UNIGRAM.fingerprint
