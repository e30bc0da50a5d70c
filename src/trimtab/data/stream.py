"""Documents as tokens on disk, one after the other."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from trimtab.data.split import identity_hash
from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import DataError


@final
class Stream:
    """Writes the documents of one set, one after the other, and takes note of what they are."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer) -> None:
        self.name = name
        self.num_tokens = 0
        self.num_bytes = 0
        self.text_hashes = array("Q")
        self.sources: dict[str, int] = {}
        """Documents of each of several sources, in their order."""
        self.occurs = np.zeros(tokenizer.vocabulary_size, dtype=np.bool_)
        self._dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32)
        self._token_bytes = tokenizer.token_bytes
        self._num_token_bytes = 0
        self._end_of_text = tokenizer.end_of_text
        self._starts = array("q")
        self._digest = hashlib.sha256()
        self._folder = folder
        self._file = (folder / f"{name}.tokens.bin").open("wb")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        (self._folder / f"{self.name}.starts.bin").write_bytes(self._starts.tobytes())

    def write(self, text: str, tokens: NDArray[np.int64], source: str = "") -> None:
        """Add a document, of a named `source` if there are several; its end of text is added here."""
        if source:
            self.sources[source] = self.sources.get(source, 0) + 1
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

    @property
    def digest(self) -> str:
        """SHA-256 of the texts."""
        return self._digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "documents": len(self._starts),
            "bytes": self.num_bytes,
            "tokens": self.num_tokens,
            "bytes_per_token": self.num_bytes / self.num_tokens,
            "sha256": self.digest,
            "dtype": self._dtype.name,
        } | ({"sources": dict(self.sources)} if self.sources else {})

    def require_text(self, where: str, source: str) -> None:
        """Raises: DataError when nothing was written, of what `source` says."""
        if self.num_tokens == 0:
            raise DataError(f"{where}: no text for {self.name} in: {source}")


def shared_facts(name: str, tokenizer: Tokenizer, training: Stream, validation: Stream) -> dict[str, Any]:
    """What is known of the tokens of both sets, as JSON values; `name` is the tokenizer's in the configuration."""
    return {
        "training": training.facts(),
        "validation": validation.facts(),
        "tokenizer": {
            "name": name,
            "vocabulary_size": tokenizer.vocabulary_size,
            "fingerprint": tokenizer.fingerprint,
            "lossless": training.lossless and validation.lossless,
        },
        "vocabulary_coverage": float(np.count_nonzero(training.occurs) / tokenizer.vocabulary_size),
        "leakage": int(np.isin(validation.text_hashes, training.text_hashes).sum()),
    }


def open_stream(folder: Path, name: str, dtype: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The tokens that were written, memory-mapped, and where each document begins."""
    tokens = np.memmap(folder / f"{name}.tokens.bin", dtype=dtype, mode="r")
    starts = np.memmap(folder / f"{name}.starts.bin", dtype=np.int64, mode="r")
    return np.asarray(tokens), np.asarray(starts)


def bounds_of(sources: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The first document of each source, and the one after its last, where each has so many."""
    ends = list(accumulate(sources.values()))
    return {name: (end - number, end) for (name, number), end in zip(sources.items(), ends, strict=True)}


def require_known(tokens: NDArray[Any], vocabulary_size: int, source: str, begin: int = 0) -> None:
    """`tokens` stand in `source` from position `begin` on.

    Raises: DataError when a token is not below `vocabulary_size`: a model would read beyond its embedding.
    """
    if tokens.size and int(tokens.max()) >= vocabulary_size:
        index = int(np.argmax(tokens >= vocabulary_size))
        raise DataError(
            f"{source}:{begin + index}: token {int(tokens[index])}, and the vocabulary has {vocabulary_size}",
            hint="the prepared data was changed while it was read: start again, and it is checked and made anew",
        )
