"""Tokens of a stream, kept on disk as they come: what was read once can be read again, at any place.

Chunk k has the tokens from k · CHUNK on; beside it lies where the stream stood when it was complete, and the SHA-256 of
both. So a resumed run, a rollback, and another process go on from the last chunk, or read again what is there, and see
the same; a chunk that does not match is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from trimtab.data.coding import Coding
from trimtab.data.corpora import Document
from trimtab.data.left_out import UNUSABLE, LeftOut
from trimtab.errors import ConfigError, DataError, StorageError

CHUNK: Final = 1 << 20
"""Tokens of a chunk."""
_ENCODED_AT_ONCE: Final = 1 << 20
_WHERE: Final = "data.source"
_OVER: Final = object()


@final
class Spool:
    """What `coding` makes of what `open_source` gives, document by document: tokens; begun anew when it is over.

    Chunks are made one at a time, whoever needs them; what a killed process or a failing disk leaves is checked by each
    process before it reads it. Not for several threads.
    """

    def __init__(
        self,
        folder: Path,
        open_source: Callable[[], Iterable[Any]],
        coding: Coding,
        *,
        resume: Literal["state", "replay"] = "state",
        chunk: int = CHUNK,
        most_bad: int = 0,
    ) -> None:
        """Keeps chunks in `folder`, which is made if need be. Of each pass up to `most_bad` documents that lack what is
        asked for are passed over."""
        self._folder, self._open, self._coding = folder, open_source, coding
        self._resume, self.chunk, self._most_bad = resume, chunk, most_bad
        self._dtype = coding.dtype
        self._live: _Reader | None = None
        self._live_at = -1
        self._checked: set[int] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made: {error.strerror or error}") from error

    @property
    def name(self) -> str:
        """Where it is kept."""
        return str(self._folder)

    def tokens(self, begin: int, end: int) -> NDArray[Any]:
        """Those from `begin` to `end`, the latter not included; what was not read yet is read now.

        Raises: DataError for what the stream gives; StorageError where it cannot be kept.
        """
        first, last = begin // self.chunk, (max(begin, end - 1)) // self.chunk
        parts = [self._chunk(number) for number in range(first, last + 1)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return whole[begin - first * self.chunk : end - first * self.chunk]

    def _chunk(self, number: int) -> NDArray[Any]:
        try:
            if number not in self._checked:
                if not self._is_whole(number):
                    with (self._folder / "lock").open("w") as lock:
                        fcntl.flock(lock, fcntl.LOCK_EX)
                        self._make_up_to(number)
                self._checked.add(number)
            return np.asarray(np.memmap(self._path(number), dtype=self._dtype, mode="r"))
        except OSError as error:
            raise StorageError(
                f"{self._folder}: what the stream gives cannot be kept: {error.strerror or error}",
                hint="set TRIMTAB_CACHE to a folder that can be written and has room",
            ) from error

    def _make_up_to(self, number: int) -> None:
        """Make `number`, and those before it that are missing; none where another process made them meanwhile."""
        missing = number + 1
        while missing > 0 and not self._is_whole(missing - 1):
            missing -= 1
        for index in range(missing, number + 1):
            self._make(index)

    def _is_whole(self, number: int) -> bool:
        """Whether a chunk, and where the stream stood, are there as they were written."""
        try:
            if self._path(number).stat().st_size != self.chunk * self._dtype.itemsize:
                return False
            kept = json.loads(self._path(number, "json").read_bytes())
            expected = kept.pop("sha256")
            found = {ending: _digest(self._path(number, ending).read_bytes()) for ending in ("npy", "bin")}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return False
        return bool(expected == found | {"json": _digest(json.dumps(kept).encode())})

    def _make(self, number: int) -> None:
        # What it has read is in no chunk until all is written: a failure leaves it to be read again.
        live, self._live = self._live, None
        if live is None or self._live_at != number:
            before = None if number == 0 else json.loads(self._path(number - 1, "json").read_text())
            rest = np.empty(0, dtype=np.int64) if number == 0 else np.load(self._path(number - 1, "npy"))
            if live is not None and before is not None and live.is_not_beyond(before):
                live.catch_up(before, rest)
            else:
                live = _Reader(self._open, self._coding, self._resume, before, rest, self._most_bad)
        live.fill(self.chunk)
        tokens, live.rest = live.rest[: self.chunk], live.rest[self.chunk :]
        state, rest_bytes, chunk_bytes = live.state(), _npy(live.rest), tokens.astype(self._dtype).tobytes()
        # As it will be read: JSON has lists for tuples, and texts for keys that are numbers.
        state = json.loads(_json(state))
        digests = {"json": _digest(_json(state)), "npy": _digest(rest_bytes), "bin": _digest(chunk_bytes)}
        aside = self._path(number, f"{os.getpid()}.tmp")
        for ending, content in (
            ("json", _json(state | {"sha256": digests})),
            ("npy", rest_bytes),
            ("bin", chunk_bytes),  # last: it says all is there
        ):
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path(number, ending))
        self._live, self._live_at = live, number + 1

    def _path(self, number: int, ending: str = "bin") -> Path:
        return self._folder / f"chunk-{number:08}.{ending}"

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the stream for itself."""
        return self.__dict__ | {"_live": None, "_live_at": -1, "_checked": set()}


def _npy(values: NDArray[np.int64]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{_WHERE}.resume: the state_dict of what {_WHERE}.target gives cannot be kept as JSON: {error}",
            hint="give plain numbers, texts, lists and mappings: int(number), array.tolist(); or set "
            f"{_WHERE}.resume=replay, which needs no state",
        ) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """What the stream itself cannot open or reach is no fault of the disk that keeps it."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{_WHERE}.target: the stream cannot be read: {type(error).__name__}: {error}",
            hint="see whether what it reads is there; the run goes on from its newest checkpoint: trimtab resume RUN",
        ) from error


@final
class _Reader:
    """Goes through the documents, and knows where it stands."""

    def __init__(
        self,
        open_source: Callable[[], Iterable[Any]],
        coding: Coding,
        resume: Literal["state", "replay"],
        before: Mapping[str, Any] | None,
        rest: NDArray[np.int64],
        most_bad: int,
    ) -> None:
        self._open, self._coding, self._resume = open_source, coding, resume
        self._passes = 0 if before is None else int(before["passes"])
        self._documents = 0 if before is None else int(before["documents"])
        self._bad = LeftOut(most_bad)
        self._bad[UNUSABLE] = 0 if before is None else int(before["bad"])
        self.rest = rest
        """Tokens that are read, and in no chunk yet."""
        self._has_text = before is not None
        """Whether this pass had any: not known where it was begun by another reader."""
        with _reading():
            self._source = self._opened()
            if before is not None and before["source"] is not None:
                self._source.load_state_dict(before["source"])
            self._iterator: Iterator[Any] = iter(self._source)
            if before is not None and before["source"] is None:
                self._pass_over(self._documents)

    def is_not_beyond(self, before: Mapping[str, Any]) -> bool:
        """Whether this one, of a stream that is replayed, can come to where another reader stood by reading on."""
        there = (int(before["passes"]), int(before["documents"]))
        return self._resume == "replay" and (self._passes, self._documents) <= there

    def catch_up(self, before: Mapping[str, Any], rest: NDArray[np.int64]) -> None:
        """Go on from where another reader stood: what that one read is passed over, from here and not from the first
        document on, so that several processes that make chunks in turn read each document once."""
        had, self._documents = self._documents, int(before["documents"])
        self._bad[UNUSABLE], self.rest, self._has_text = int(before["bad"]), rest, True
        with _reading():
            if self._passes != int(before["passes"]):
                had, self._passes = 0, int(before["passes"])
                self._source = self._opened()
                self._iterator = iter(self._source)
            self._pass_over(self._documents - had)

    def _pass_over(self, documents: int) -> None:
        for _ in range(documents):
            next(self._iterator, None)

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON values."""
        keeps = self._resume == "state"
        return {
            "passes": self._passes,
            "documents": self._documents,
            "bad": self._bad[UNUSABLE],
            "source": self._source.state_dict() if keeps else None,
        }

    def fill(self, count: int) -> None:
        """Read until `rest` has at least `count` tokens."""
        parts, have = [self.rest], len(self.rest)
        while have < count:
            for numbers in self._coding.encode(self._next()):
                parts.append(numbers)
                have += len(numbers)
        self.rest = np.concatenate(parts)

    def _next(self) -> list[Document]:
        """Some documents, at least one."""
        found: list[Document] = []
        size = 0
        while size < _ENCODED_AT_ONCE:
            with _reading():
                document = next(self._iterator, _OVER)
            if document is _OVER:
                if not self._documents:
                    raise DataError(f"{_WHERE}: the stream gives no documents")
                if found:
                    break
                if not self._has_text:
                    raise DataError(
                        f"{_WHERE}.target: the stream gives no text: all of its {self._documents:,} documents are empty"
                        + (", or passed over" if self._bad[UNUSABLE] else "")
                    )
                self._begin_again()
                continue
            read = None
            try:
                read = self._coding.read(document, self._documents + 1)
            except DataError as error:
                self._bad.pass_over(error)
            self._documents += 1
            if read is not None:
                self._has_text = True
                found.append(read)
                size += len(read.text)
        return found

    def _begin_again(self) -> None:
        self._passes, self._documents, self._has_text = self._passes + 1, 0, False
        self._bad[UNUSABLE] = 0
        with _reading():
            self._source = self._opened()
            self._iterator = iter(self._source)

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
