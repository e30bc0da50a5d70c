"""Text to tokens and back: byte-level BPE or unigram pieces, plain bytes, or any `tokenizer.json`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.config.paths import tokenizer_file
from trimtab.data.frame import Frame
from trimtab.errors import ConfigError, DataError
from trimtab.signals import SpecialTokens

END_OF_TEXT: Final = "<|endoftext|>"
"""Ends a document, in tokenizers that are made here."""

_DESCRIPTION: Final = "tokenizer_config.json"
_OURS: Final = "trimtab"
"""Key in it of what transformers has no word for."""
_PARALLELISM: Final = "TOKENIZERS_PARALLELISM"
_LONGEST_PIECE: Final = 1 << 18
"""Characters encoded at once: longer documents are cut, so that they use all cores and little memory."""


@final
class Tokenizer:
    """A `tokenizers.Tokenizer` that knows where documents end and how many bytes each token stands for.

    Text is only text: what looks like a special token in it is encoded like any other, and none are added.
    Made by `train_bpe` or `byte_tokenizer` it is lossless: decode(encode(text)) == text.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        end_of_text: str = END_OF_TEXT,
        *,
        frame: Frame | None = None,
        mask: int | None = None,
        padding: int | None = None,
    ) -> None:
        """Takes over `inner`. Its texts stand in `frame`, or after `end_of_text`.

        Raises:
            ConfigError: `inner` has no token `end_of_text`.
        """
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self._inner = inner
        state: dict[str, Any] = json.loads(inner.to_str())
        identity = inner.token_to_id(end_of_text)
        if identity is None:
            special = [token["content"] for token in state["added_tokens"] if token["special"]]
            raise ConfigError(
                f"data.tokenizer.end_of_text: the tokenizer has no token {end_of_text!r}. "
                f"Its special tokens: {', '.join(map(repr, special)) or 'none'}",
                hint=did_you_mean(nearest_names(end_of_text, special)),
            )
        vocabulary: dict[str, int] = inner.get_vocab(with_added_tokens=True)
        self.end_of_text: int = identity
        """The token that ends a document."""
        self.vocabulary_size: int = max(vocabulary.values()) + 1
        self.frame: Frame = frame or Frame.beginning(identity)
        """What stands around a text that is a row by itself."""
        self.mask: int | None = mask
        """The token that stands for a hidden one, where there is one."""
        self.padding: int | None = padding
        """The token that models which came with the tokenizer take for padding."""
        self._own = frame is not None or mask is not None or padding is not None
        decides: list[Any] = [state, end_of_text, *([self._special()] if self._own else [])]
        self.fingerprint: str = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        """SHA-256 of all that decides how text is encoded."""
        self._bytes = _bytes_of_tokens(state, vocabulary, self.vocabulary_size)
        self._bytes[identity] = b""
        self.token_bytes: NDArray[np.int64] = np.array([len(piece) for piece in self._bytes], dtype=np.int64)
        """UTF-8 bytes that each token stands for, [vocabulary_size]; 0 for the end of a document.

        Exact for byte-level tokenizers; of others, which may change text, the bytes of the token as written.
        """
        self._token_of_byte = self._lookup(state)

    @property
    def special(self) -> SpecialTokens:
        """What a model from outside is told of; padding is the end of text where there is no token for it."""
        padding = self.end_of_text if self.padding is None else self.padding
        return SpecialTokens(self.end_of_text, padding, self.frame.second)

    def _special(self) -> dict[str, Any]:
        return {"frame": self.frame.to_json(), "mask": self.mask, "padding": self.padding}

    def _lookup(self, state: dict[str, Any]) -> NDArray[np.int64] | None:
        """The token of each byte, [256], if every token is a byte: then encoding is one look-up."""
        single = {piece[0]: token for token, piece in enumerate(self._bytes) if len(piece) == 1}
        splits = state["pre_tokenizer"] or {}
        plain = splits.get("type") == "ByteLevel" and not splits["add_prefix_space"] and not state["normalizer"]
        if not plain or len(single) != 256 or self.vocabulary_size != 257:
            return None
        return np.array([single[byte] for byte in range(256)], dtype=np.int64)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`."""
        tokens: list[int] = self.encode_batch([text])[0].tolist()
        return tokens

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The tokens of each text, on all cores."""
        if self._token_of_byte is not None:
            return [self._token_of_byte[np.frombuffer(text.encode(), dtype=np.uint8)] for text in texts]
        pieces: list[str] = []
        ends: list[int] = []
        for text in texts:
            pieces.extend(_pieces(text))
            ends.append(len(pieces))
        encodings = self._inner.encode_batch_fast(pieces, add_special_tokens=False)
        arrays = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        return [
            arrays[begin] if end - begin == 1 else np.concatenate([*arrays[begin:end], np.empty(0, np.int64)])
            for begin, end in zip([0, *ends], ends, strict=False)
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; end of text is written out, and bytes that are no UTF-8 become U+FFFD."""
        text: str = self._inner.decode(list(tokens), skip_special_tokens=False)
        return text

    def to_bytes(self, tokens: NDArray[np.integer[Any]] | Sequence[int]) -> bytes:
        """The UTF-8 bytes that `tokens` stand for, as `token_bytes` counts them: none for an end of text."""
        return b"".join(map(self._bytes.__getitem__, np.asarray(tokens).tolist()))

    def save(self, path: Path) -> None:
        """Write it at `path`, and beside it a `tokenizer_config.json` that names the end-of-text token.

        The pair, in a folder and with the name `tokenizer.json`, is also what transformers loads.
        """
        path.write_text(self._inner.to_str(), encoding="utf-8")
        name = self._inner.id_to_token(self.end_of_text)
        described: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": name}
        for key, token in (("mask_token", self.mask), ("pad_token", self.padding)):
            if token is not None:
                described[key] = self._inner.id_to_token(token)
        if self._own:
            described[_OURS] = self._special()
        path.with_name(_DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")

    @classmethod
    def load(cls, path: Path, end_of_text: str | None = None) -> Tokenizer:
        """Read a `tokenizer.json`; `end_of_text` is by default the one saved beside it, else END_OF_TEXT.

        Raises:
            DataError: it is not there, or is no tokenizer.
            ConfigError: it has no token `end_of_text`.
        """
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        try:
            inner = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # its errors have no class of their own
            raise DataError(f"{path}: is no tokenizer.json of Hugging Face tokenizers: {error}") from error
        special: dict[str, Any] = {}
        if end_of_text is None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                described = json.loads(path.with_name(_DESCRIPTION).read_bytes())
                end_of_text = str(described["eos_token"])
                special = dict(described[_OURS])
                special["frame"] = Frame.from_json(special["frame"])
        return cls(inner, end_of_text or END_OF_TEXT, **special)


def train_bpe(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer with merges learned from `texts`; the same for the same texts.

    It has fewer than `vocabulary_size` tokens when `texts` have too few pairs that occur twice.

    Source: Sennrich et al. 2016, arXiv 1508.07909, algorithm 1; on bytes, with the word pattern of GPT-2
    (Radford et al. 2019, section 2.2).
    """
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner)


def train_unigram(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """A unigram language model over pieces of words, on bytes, learned from `texts`; the same for the same texts.

    It begins with many pieces and leaves out those without which the text is hardly less probable. About as many
    tokens as asked for: the 256 bytes are always among them.

    Source: Kudo 2018, arXiv 1804.10959, section 3.2; the most probable pieces, nothing is sampled.
    """
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with _one_thread():  # several add probabilities in any order, and other last bits may choose other pieces
        inner.train_from_iterator(texts, trainer)
    state = json.loads(inner.to_str())
    state["model"]["vocab"] = _settled(state["model"]["vocab"])
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)))


def _settled(vocabulary: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces with scores that are the same after they were written and read, in an order that does not depend on how
    the library's tables were shuffled.

    It gives bytes that the text does not have scores below all others, one step apart in any order: here all the first.
    """
    end, *pieces = vocabulary
    pieces.sort(key=lambda entry: (entry[1], entry[0]))
    tail = 0
    while tail + 1 < len(pieces) and len(pieces[tail][0]) == 1 and pieces[tail + 1][1] - pieces[tail][1] < 1.5e-4:
        tail += 1
    lowest = pieces[tail][1]
    settled = [(piece, round(max(score, lowest), 9)) for piece, score in pieces]
    return [end, *sorted(settled, key=lambda entry: (-entry[1], entry[0]))]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Inside, tokenizers computes in one thread."""
    before = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"
    try:
        yield
    finally:
        del os.environ[_PARALLELISM]
        if before is not None:
            os.environ[_PARALLELISM] = before


def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose token b is the byte b, and 256 the end of a document."""
    alphabet = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
    inner = tokenizers.Tokenizer(models.BPE(alphabet, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([END_OF_TEXT])
    return Tokenizer(inner)


def load_tokenizer(path: str, end_of_text: str = END_OF_TEXT) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, or in the folder that holds one.

    Raises:
        DataError: it is not there, or is no tokenizer.
        ConfigError: it has no token `end_of_text`.
    """
    return Tokenizer.load(tokenizer_file(path), end_of_text)


def spread_sample(texts: Iterable[str], total_bytes: int, most_bytes: int) -> Iterator[str]:
    """At most `most_bytes` of `texts`, whose sum is `total_bytes`, in pieces spread evenly over all of it.

    Of every period of bytes the first are kept, 16 KiB at most, wherever documents begin.
    """
    if total_bytes <= most_bytes:
        yield from texts
        return
    keep = min(1 << 14, -(-most_bytes // 64))
    # Rounded down, so that a last period that is cut short cannot exceed the budget.
    period = -(-total_bytes // (most_bytes // keep))
    position = 0
    for text in texts:
        data = text.encode()
        for begin in range(-(position % period), len(data), period):
            if piece := data[max(begin, 0) : max(begin + keep, 0)]:
                yield piece.decode("utf-8", errors="ignore")
        position += len(data)


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces of bearable length, cut where the word pattern of GPT-2 cuts anyway.

    A stretch of that length without such a place is cut anywhere: other tokens, but the same text.
    """
    begin = 0
    while len(text) - begin > _LONGEST_PIECE:
        limit = begin + _LONGEST_PIECE
        end = text.rfind(" ", begin + 1, limit)
        # Before a lone space between two visible characters a new word begins, whatever stands around it.
        while end > 0 and (text[end - 1].isspace() or text[end + 1].isspace()):
            end = text.rfind(" ", begin + 1, end)
        end = end if end > 0 else limit
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _characters_of_bytes() -> dict[int, str]:
    """The letter by which a byte-level vocabulary writes each byte (`bytes_to_unicode` of GPT-2)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + rank) for rank, byte in enumerate(others)}


CHARACTER_OF_BYTE: Final = _characters_of_bytes()
_BYTE_OF_CHARACTER: Final = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def _bytes_of_tokens(state: dict[str, Any], vocabulary: dict[str, int], size: int) -> list[bytes]:
    added = {token["id"] for token in state["added_tokens"]}
    byte_level = _is_byte_level(state)
    table = [b""] * size
    for token, identity in vocabulary.items():
        if identity in added:
            table[identity] = token.encode()
        elif byte_level and all(character in _BYTE_OF_CHARACTER for character in token):
            table[identity] = bytes(_BYTE_OF_CHARACTER[character] for character in token)
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            table[identity] = bytes.fromhex(token[3:5])
        else:
            table[identity] = token.removeprefix("##").replace("▁", " ").replace("</w>", " ").encode()
    return table


def _is_byte_level(state: dict[str, Any]) -> bool:
    decoder = state["decoder"] or {}
    return any(part["type"] == "ByteLevel" for part in decoder.get("decoders", [decoder]) if part)
