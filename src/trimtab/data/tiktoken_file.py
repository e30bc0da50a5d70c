"""A tiktoken vocabulary, read from its file: a line is a token in base64, and its rank."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final, Literal

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

from trimtab.data.tokenizer import CHARACTER_OF_BYTE, END_OF_TEXT, Tokenizer
from trimtab.errors import DataError

Pattern = Literal["gpt2", "cl100k", "o200k"]

_END_CONTRACTED: Final = r"'(?i:[sdmt]|ll|ve|re)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS: Final[dict[Pattern, str]] = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": _END_CONTRACTED
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""How a text is cut into words, which is in tiktoken's code and not in the file. Source: its openai_public.py."""


def load_tiktoken(path: str, pattern: Pattern = "cl100k", end_of_text: str = END_OF_TEXT) -> Tokenizer:
    """The tokenizer of a `.tiktoken` file, with one more token `end_of_text` after those in the file.

    Its ranks are the merges: of two tokens that are one together, those become one first whose rank is lowest, however
    that one is divided. Source: transformers, TikTokenConverter.

    Raises: DataError for a file that is not there, or is none.
    """
    ranks = _ranks(Path(path).expanduser())
    names = {token: "".join(CHARACTER_OF_BYTE[byte] for byte in token) for token in ranks}
    vocabulary = {names[token]: rank for token, rank in ranks.items()}
    merges = [
        (names[token[:cut]], names[token[cut:]])
        for token in sorted(ranks, key=lambda token: ranks[token])
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([end_of_text])
    return Tokenizer(inner, end_of_text)


def _ranks(file: Path) -> dict[bytes, int]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"data.tokenizer.path: {file}: cannot be read: {error.strerror or error}") from error
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise DataError(
                f"{file}:{number}: is no line of a tiktoken file: {error}. Received: {line[:60]!r}",
                hint="a line is a token in base64, a space, and its rank",
            ) from error
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise DataError(f"{file}: is no tiktoken vocabulary: the byte {missing[0]} is no token of it")
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise DataError(f"{file}: its ranks are not 0 to {len(ranks) - 1}, each once")
    return ranks
