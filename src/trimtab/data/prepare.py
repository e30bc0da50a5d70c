"""From a configuration to what training reads: documents, split, tokens, sequences and their order."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import tokenizers
from numpy.typing import NDArray

from trimtab.config import BpeTokenizer, ByteTokenizer, DataConfig, FileTokenizer, TokenizerConfig
from trimtab.data.cache import cached_folder, cached_json
from trimtab.data.corpora import Corpus, open_corpus
from trimtab.data.order import Order
from trimtab.data.packing import PackedSequences
from trimtab.data.split import choose_split, identity_hash
from trimtab.data.tokenizer import (
    Tokenizer,
    byte_tokenizer,
    load_tokenizer,
    spread_sample,
    train_bpe,
)
from trimtab.errors import DataError

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of it is (0 to 1)."""

_FORMAT: Final = 2
"""Part of the cache's key: raise it when other tokens would come from the same text."""
_ENCODED_AT_ONCE: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class PreparedData:
    """All that a run knows of its data."""

    tokenizer: Tokenizer
    training: PackedSequences
    validation: PackedSequences
    order: Order
    """Of the training sequences."""
    facts: dict[str, Any]
    """JSON values: source, split, sizes, hashes, coverage of the vocabulary, leakage."""
    fingerprint: str
    """SHA-256 over text, split, tokenizer and sequence length: equal where the sequences are."""
    cache: Path
    """The folder that holds the tokens."""

    def validation_text(self) -> bytes:
        """The text of the validation tokens but the first: of those that a model is judged on."""
        return self.tokenizer.to_bytes(self.validation.tokens[1:])

    def cached_json(self, name: str, compute: Callable[[], Any]) -> Any:
        """A JSON value that depends on the tokens alone: from the cache, or computed and kept there."""
        return cached_json(self.cache, name, compute)


def prepare_data(
    config: DataConfig, *, seed: int, micro_batch_size: int = 1, progress: Progress | None = None
) -> PreparedData:
    """The data that `config` describes; tokens are made once and cached by content, `seed` only orders them.

    Raises:
        DataError: text is missing, not readable, or too little for `micro_batch_size` sequences.
        ConfigError: the tokenizer lacks its end-of-text token, or an extra is not installed.
        StorageError: the cache cannot be written.
    """
    corpus = open_corpus(config.source, "data.source")
    held_out = open_corpus(config.validation_source, "data.validation_source") if config.validation_source else None
    sources = [corpus] if held_out is None else [corpus, held_out]
    contents = [source.content_hash() for source in sources]
    fraction = config.validation_fraction if held_out is None else None
    key = _sha256([_FORMAT, tokenizers.__version__, contents, fraction, _identity(config.tokenizer)])[:40]

    def build(folder: Path) -> None:
        _tokenize(folder, config, corpus, held_out, progress or (lambda stage, fraction: None))
        if contents != [source.content_hash() for source in sources]:
            raise DataError(
                "data.source: files changed while they were read", hint="start again when they are complete"
            )

    folder = cached_folder(key, build)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
    training = _open(folder, "training", facts, config.sequence_length)
    validation = _open(folder, "validation", facts, config.sequence_length)
    _require_enough(training, validation, config, micro_batch_size)
    fingerprint = _sha256(
        [
            facts["training"]["sha256"],
            facts["validation"]["sha256"],
            tokenizer.fingerprint,
            config.sequence_length,
        ]
    )
    facts |= {
        "source": corpus.description(facts["skipped"]),
        "sequence_length": config.sequence_length,
        "sequences_per_epoch": len(training),
        "tokens_per_epoch": training.num_tokens - 1,
        "validation_sequences": len(validation),
        "fingerprint": fingerprint,
    }
    if held_out is not None:
        facts["validation_source"] = held_out.description(facts["validation_skipped"])
    order = Order(len(training), seed=seed, shuffle=config.shuffle)
    return PreparedData(tokenizer, training, validation, order, facts, fingerprint, folder)


def _tokenize(folder: Path, config: DataConfig, corpus: Corpus, held_out: Corpus | None, report: Progress) -> None:
    """Write tokens, document starts, tokenizer and facts into `folder`."""
    report("reading", 0.0)
    split = choose_split(corpus.documents(Counter()), config.validation_fraction)
    total = max(1, split.num_bytes)

    def parts(skipped: Counter[str], skipped_held_out: Counter[str]) -> Iterator[tuple[str, str]]:
        for document in corpus.documents(skipped):
            training, validation = (document.text, "") if held_out is not None else split.divide(document)
            if training:
                yield "training", training
            if validation:
                yield "validation", validation
        for document in held_out.documents(skipped_held_out) if held_out is not None else ():
            yield "validation", document.text

    texts = (text for side, text in parts(Counter(), Counter()) if side == "training")
    tokenizer = _make_tokenizer(config.tokenizer, texts, total, report)
    tokenizer.save(folder / "tokenizer.json")
    skipped: Counter[str] = Counter()
    skipped_held_out: Counter[str] = Counter()
    with (
        _Stream(folder, "training", tokenizer) as training,
        _Stream(folder, "validation", tokenizer) as validation,
    ):
        streams = {"training": training, "validation": validation}
        for batch in _batches(parts(skipped, skipped_held_out)):
            report("encoding", min(1.0, training.num_bytes / total))
            for (side, text), tokens in zip(batch, tokenizer.encode_batch([text for _, text in batch]), strict=True):
                streams[side].write(text, tokens)
        report("encoding", 1.0)
    _require_text(training, corpus, "data.source", skipped)
    if held_out is None:
        _require_text(validation, corpus, "data.source", skipped)
    else:
        _require_text(validation, held_out, "data.validation_source", skipped_held_out)
    facts = {
        "split": split.description if held_out is None else "validation has a source of its own",
        "skipped": dict(sorted(skipped.items())),
        "validation_skipped": dict(sorted(skipped_held_out.items())),
        "training": training.facts(),
        "validation": validation.facts(),
        "tokenizer": {
            "name": config.tokenizer.name,
            "vocabulary_size": tokenizer.vocabulary_size,
            "fingerprint": tokenizer.fingerprint,
            "lossless": training.lossless and validation.lossless,
        },
        "vocabulary_coverage": float(np.count_nonzero(training.occurs) / tokenizer.vocabulary_size),
        "leakage": int(np.isin(validation.text_hashes, training.text_hashes).sum()),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))


def _require_text(stream: _Stream, source: Corpus, where: str, skipped: Counter[str]) -> None:
    if stream.num_tokens == 0:
        raise DataError(f"{where}: no text for {stream.name} in: {source.description(skipped)}")


def _make_tokenizer(config: TokenizerConfig, texts: Iterator[str], num_bytes: int, report: Progress) -> Tokenizer:
    match config:
        case BpeTokenizer():
            report("learning the tokenizer", 0.0)
            return train_bpe(spread_sample(texts, num_bytes, config.training_bytes), config.vocabulary_size)
        case ByteTokenizer():
            return byte_tokenizer()
        case FileTokenizer():
            return load_tokenizer(config.path, config.end_of_text)


def _identity(config: TokenizerConfig) -> dict[str, Any]:
    """What decides which tokenizer it is: of a file its content, not where it lies."""
    if isinstance(config, FileTokenizer):
        return {
            "name": config.name,
            "fingerprint": load_tokenizer(config.path, config.end_of_text).fingerprint,
        }
    return config.model_dump()


def _batches(parts: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part[1])
        if size >= _ENCODED_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@final
class _Stream:
    """Writes the documents of one set, one after the other, and takes note of what they are."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer) -> None:
        self.name = name
        self.num_tokens = 0
        self.num_bytes = 0
        self.text_hashes = array("Q")
        self.occurs = np.zeros(tokenizer.vocabulary_size, dtype=np.bool_)
        self._dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32)
        self._token_bytes = tokenizer.token_bytes
        self._num_token_bytes = 0
        self._end_of_text = tokenizer.end_of_text
        self._starts = array("q")
        self._digest = hashlib.sha256()
        self._folder = folder
        self._file = (folder / f"{name}.tokens.bin").open("wb")

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        (self._folder / f"{self.name}.starts.bin").write_bytes(self._starts.tobytes())

    def write(self, text: str, tokens: NDArray[np.int64]) -> None:
        document = np.append(tokens, self._end_of_text)
        self._file.write(document.astype(self._dtype).tobytes())
        self._starts.append(self.num_tokens)
        self.num_tokens += len(document)
        self.occurs[document] = True
        self._num_token_bytes += int(self._token_bytes[document].sum())
        content = text.encode()
        self.num_bytes += len(content)
        self._digest.update(len(content).to_bytes(8, "little") + content)
        self.text_hashes.append(identity_hash(text))

    @property
    def lossless(self) -> bool:
        """Whether the tokens stand for as many bytes as the text has."""
        return self._num_token_bytes == self.num_bytes

    def facts(self) -> dict[str, Any]:
        return {
            "documents": len(self._starts),
            "bytes": self.num_bytes,
            "tokens": self.num_tokens,
            "bytes_per_token": self.num_bytes / self.num_tokens,
            "sha256": self._digest.hexdigest(),
            "dtype": self._dtype.name,
        }


def _open(folder: Path, name: str, facts: dict[str, Any], sequence_length: int) -> PackedSequences:
    tokens = np.memmap(folder / f"{name}.tokens.bin", dtype=facts[name]["dtype"], mode="r")
    starts = np.memmap(folder / f"{name}.starts.bin", dtype=np.int64, mode="r")
    return PackedSequences(np.asarray(tokens), np.asarray(starts), sequence_length, num_bytes=int(facts[name]["bytes"]))


def _require_enough(
    training: PackedSequences, validation: PackedSequences, config: DataConfig, micro_batch_size: int
) -> None:
    length = config.sequence_length
    lower = "lower data.sequence_length (now {now}) to at most {most}"
    if training.num_tokens - 1 < micro_batch_size * length:
        most = (training.num_tokens - 1) // micro_batch_size
        raise DataError(
            f"data.source: too little text: {training.num_tokens} tokens to train on, and a micro-batch of "
            f"{micro_batch_size} sequences of {length} needs {micro_batch_size * length + 1}",
            hint=(lower.format(now=length, most=most) + ", or " if most >= 2 else "")
            + ("lower training.micro_batch_size, or " if micro_batch_size > 1 else "")
            + "give more text",
        )
    if validation.num_tokens - 1 < length:
        most = validation.num_tokens - 1
        where = "data.source" if config.validation_source is None else "data.validation_source"
        raise DataError(
            f"{where}: too little text to validate on: {validation.num_tokens} tokens, and one sequence of "
            f"{length} needs {length + 1}",
            hint=(lower.format(now=length, most=most) + ", or " if most >= 2 else "")
            + ("raise data.validation_fraction, or " if config.validation_source is None else "")
            + "give more text",
        )


def _sha256(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
