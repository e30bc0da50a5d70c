"""Tokens of a stream, kept on disk as they come: what was read once can be read again, at any place.

Chunk k has the tokens from k · CHUNK on; beside it lies where the stream stood when it was complete. So a resumed run,
a rollback, and another process go on from the last chunk, or read again what is there, and see the same.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import ConfigError, DataError, StorageError

CHUNK: Final = 1 << 20
"""Tokens of a chunk."""
_ENCODED_AT_ONCE: Final = 1 << 20
_WHERE: Final = "data.source"


@final
class Spool:
    """The tokens of what `open_source` gives, one document after the other, each ended; begun anew when it is over.

    Chunks are made one at a time, whoever needs them; a killed process leaves whole ones. Not for several threads.
    """

    def __init__(
        self,
        folder: Path,
        open_source: Callable[[], Iterable[Any]],
        tokenizer: Tokenizer,
        *,
        column: str = "text",
        resume: Literal["state", "replay"] = "state",
        chunk: int = CHUNK,
    ) -> None:
        """Keeps chunks in `folder`, which is made if need be."""
        self._folder, self._open, self._tokenizer = folder, open_source, tokenizer
        self._column, self._resume, self.chunk = column, resume, chunk
        self._dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32)
        self._live: _Reader | None = None
        self._live_at = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made: {error.strerror or error}") from error

    def tokens(self, begin: int, end: int) -> NDArray[Any]:
        """Those from `begin` to `end`, the latter not included; what was not read yet is read now.

        Raises: DataError for what the stream gives; StorageError where it cannot be kept.
        """
        first, last = begin // self.chunk, (max(begin, end - 1)) // self.chunk
        parts = [self._chunk(number) for number in range(first, last + 1)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return whole[begin - first * self.chunk : end - first * self.chunk]

    def _chunk(self, number: int) -> NDArray[Any]:
        path = self._path(number)
        if not path.exists():
            try:
                with (self._folder / "lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    missing = next(index for index in range(number + 1) if not self._path(index).exists())
                    for index in range(missing, number + 1):
                        self._make(index)
            except OSError as error:
                raise StorageError(
                    f"{self._folder}: what the stream gives cannot be kept: {error.strerror or error}",
                    hint="set TRIMTAB_CACHE to a folder that can be written and has room",
                ) from error
        return np.asarray(np.memmap(path, dtype=self._dtype, mode="r"))

    def _make(self, number: int) -> None:
        if self._live is None or self._live_at != number:
            before = None if number == 0 else json.loads(self._path(number - 1, "json").read_text())
            rest = np.empty(0, dtype=np.int64) if number == 0 else np.load(self._path(number - 1, "npy"))
            self._live = _Reader(self._open, self._tokenizer, self._column, self._resume, before, rest)
        live = self._live
        live.fill(self.chunk)
        tokens, live.rest = live.rest[: self.chunk], live.rest[self.chunk :]
        aside = self._path(number, f"{os.getpid()}.tmp")
        for ending, write in (
            ("json", lambda: aside.write_text(json.dumps(live.state()))),
            ("npy", lambda: _save(aside, live.rest)),
            ("bin", lambda: aside.write_bytes(tokens.astype(self._dtype).tobytes())),  # last: it says all is there
        ):
            write()
            aside.replace(self._path(number, ending))
        self._live_at = number + 1

    def _path(self, number: int, ending: str = "bin") -> Path:
        return self._folder / f"chunk-{number:08}.{ending}"

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the stream for itself."""
        return self.__dict__ | {"_live": None, "_live_at": -1}


def _save(path: Path, values: NDArray[np.int64]) -> None:
    with path.open("wb") as stream:
        np.save(stream, values)


@final
class _Reader:
    """Goes through the documents, and knows where it stands."""

    def __init__(
        self,
        open_source: Callable[[], Iterable[Any]],
        tokenizer: Tokenizer,
        column: str,
        resume: Literal["state", "replay"],
        before: Mapping[str, Any] | None,
        rest: NDArray[np.int64],
    ) -> None:
        self._open, self._tokenizer, self._column, self._resume = open_source, tokenizer, column, resume
        self._passes = 0 if before is None else int(before["passes"])
        self._documents = 0 if before is None else int(before["documents"])
        self.rest = rest
        """Tokens that are read, and in no chunk yet."""
        self._source = self._opened()
        if before is not None and before["source"] is not None:
            self._source.load_state_dict(before["source"])
        self._iterator: Iterator[Any] = iter(self._source)
        if before is not None and before["source"] is None:
            for _ in range(self._documents):
                next(self._iterator, None)

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON values."""
        keeps = self._resume == "state"
        return {
            "passes": self._passes,
            "documents": self._documents,
            "source": self._source.state_dict() if keeps else None,
        }

    def fill(self, count: int) -> None:
        """Read until `rest` has at least `count` tokens."""
        parts, have = [self.rest], len(self.rest)
        while have < count:
            texts = self._next()
            for tokens in self._tokenizer.encode_batch(texts):
                parts.append(np.append(tokens, self._tokenizer.end_of_text))
                have += len(tokens) + 1
        self.rest = np.concatenate(parts)

    def _next(self) -> list[str]:
        """Some documents, at least one."""
        texts: list[str] = []
        size = 0
        while size < _ENCODED_AT_ONCE:
            try:
                text = self._text(next(self._iterator))
            except StopIteration:
                if not self._documents:
                    raise DataError(f"{_WHERE}: the stream gives no documents") from None
                if texts:
                    break
                self._passes, self._documents = self._passes + 1, 0
                self._source = self._opened()
                self._iterator = iter(self._source)
                continue
            self._documents += 1
            if text:
                texts.append(text)
                size += len(text)
        return texts

    def _opened(self) -> Any:
        source = self._open()
        if self._resume == "state" and not callable(getattr(source, "state_dict", None)):
            raise ConfigError(
                f"{_WHERE}.resume: what {_WHERE}.target gives has no state_dict by which it could go on later. "
                f"Received: {type(source).__name__}",
                hint=f"{_WHERE}.resume=replay goes through all that was read, whenever a run goes on",
            )
        if callable(set_epoch := getattr(source, "set_epoch", None)):
            set_epoch(self._passes)
        return source

    def _text(self, document: Any) -> str:
        text = document.get(self._column) if isinstance(document, Mapping) else document
        if not isinstance(text, str):
            fields = list(document) if isinstance(document, Mapping) else []
            raise DataError(
                f"{_WHERE}.column: document {self._documents + 1:,} of the stream has no text in {self._column!r}. "
                f"Received: {type(text).__name__}"
                + (f"; its fields: {', '.join(map(repr, fields[:12]))}" if fields else "")
            )
        return text
