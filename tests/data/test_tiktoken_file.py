"""A tiktoken file encodes as tiktoken does: against its algorithm in plain Python."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from trimtab.config import DataConfig
from trimtab.data import load_tiktoken, prepare_data, train_bpe
from trimtab.data.tiktoken_file import PATTERNS
from trimtab.data.tokenizer import CHARACTER_OF_BYTE
from trimtab.errors import DataError

CODE = Path(re.__file__).read_text() + Path(json.__file__).read_text()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ranks as tiktoken writes them: the 256 bytes, and then what a BPE learned, in its order."""
    trained = json.loads(train_bpe([CODE], 800)._inner.to_str())
    byte_of = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in trained["model"]["merges"]:
        tokens.append(bytes(byte_of[character] for character in left + right))
    tokens = list(dict.fromkeys(tokens))
    path = tmp_path_factory.mktemp("tiktoken") / "some.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens)))
    return path


def plainly(text: str, ranks: dict[bytes, int], pattern: str) -> list[int]:
    """tiktoken's own way: a word is its token if it is one; else the two parts of the lowest rank are joined, again."""
    found: list[int] = []
    for word, _ in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text):
        data = word.encode()
        parts = [data] if data in ranks else [data[i : i + 1] for i in range(len(data))]
        while len(parts) > 1:
            joined = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
            if not joined:
                break
            _, place = min(joined)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        found += [ranks[part] for part in parts]
    return found


def ranks_of(file: Path) -> dict[bytes, int]:
    lines = (line.split() for line in file.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_it_encodes_as_tiktoken_does(file: Path, pattern: str) -> None:
    tokenizer, ranks = load_tiktoken(str(file), pattern), ranks_of(file)  # type: ignore[arg-type]
    text = CODE[:20_000] + "It's 12345 ways;\r\n\r\n  déjà VUs 日本 \U0001f600\t\t x"
    assert tokenizer.encode(text) == plainly(text, ranks, PATTERNS[pattern])  # type: ignore[index]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_of_text == len(ranks)
    assert tokenizer.vocabulary_size == len(ranks) + 1
    assert tokenizer.token_bytes.sum() == sum(map(len, ranks))


@given(st.text(max_size=40))
def test_any_text_comes_back(file: Path, text: str) -> None:
    tokenizer = LOADED.setdefault(file, load_tiktoken(str(file)))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text) == plainly(text, ranks_of(file), PATTERNS["cl100k"])


LOADED: dict[Path, object] = {}  # type: ignore[type-arg]


def test_it_is_prepared_and_known_by_its_content(file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(CODE)

    def prepared(path: Path) -> str:
        source = {"name": "text", "path": str(tmp_path / "text.txt")}
        tokenizer = {"name": "tiktoken", "path": str(path)}
        config = DataConfig.model_validate({"source": source, "tokenizer": tokenizer, "sequence_length": 64})
        data = prepare_data(config, seed=0)
        assert data.facts["tokenizer"]["lossless"]
        return str(data.cache)

    moved = tmp_path / "moved.tiktoken"
    moved.write_bytes(file.read_bytes())
    assert prepared(file) == prepared(moved)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"nonsense\n", r"some\.tiktoken:1: is no line of a tiktoken file"),
        (b"YQ== 0\n*** 1\n", r"some\.tiktoken:2: is no line of a tiktoken file"),
        (b"YQ== 0\n", "the byte 0 is no token of it"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_tiktoken_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "some.tiktoken"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_tiktoken(str(path))
