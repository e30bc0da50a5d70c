"""All runs of the bank in one compressed file: logs and truth, without weights and without the machine's paths."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from bank.score import log_of

INDEX: Final = "index.json"
_KEPT: Final = ("schema", "versions", "seed", "source")
"""Of environment.json."""


def pack(folders: Iterable[Path], file: Path) -> int:
    """Write the runs in `folders`, each named after its part, into `file` (.tar.xz); gives their number."""
    contents: dict[str, bytes] = {}
    index: dict[str, Any] = {"schema": 1, "runs": []}
    for folder in folders:
        for path in sorted(folder.glob("*/truth.json")):
            truth = json.loads(path.read_text(encoding="utf-8"))
            index["runs"].append(truth)
            place = f"{truth['part']}/{truth['name']}"
            contents[f"{place}/truth.json"] = path.read_bytes()
            for name, content in _log(log_of(path.parent)):
                contents[f"{place}/{name}"] = _without(content, folder.parent, name)
    index["generators"] = sorted({run["generator"] for run in index["runs"]})
    with tarfile.open(file, "w:xz", preset=9) as archive:
        _add(archive, INDEX, json.dumps(index, indent=1).encode())
        for name in sorted(contents, key=lambda name: (Path(name).name, name)):  # what is alike lies together
            _add(archive, name, contents[name])
    return len(index["runs"])


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Put the runs of a file into `folder`/tuning and `folder`/test; gives the index."""
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return index


def _log(log: Path) -> Iterator[tuple[str, bytes]]:
    """What a doctor reads, by the name under the run's folder."""
    if log.is_file():
        yield log.name, log.read_bytes()
        return
    for path in sorted(log.rglob("*")):
        if not path.is_file() or path.name in ("lock.json", "index.json"):
            continue
        content = path.read_bytes()
        if path.name == "environment.json":
            surroundings = json.loads(content)
            content = json.dumps({name: surroundings[name] for name in _KEPT if name in surroundings}).encode()
        yield f"{log.name}/{path.relative_to(log)}", content


def _without(content: bytes, root: Path, name: str) -> bytes:
    """`content` with `/bank` in place of `root`; the lines of a record with checksums to match."""
    told = str(root.resolve()).encode()
    if told not in content:
        return content
    changed = content.replace(told, b"/bank")
    if not name.endswith("record.jsonl"):
        return changed
    return b"".join(_checked(line) for line in changed.splitlines(keepends=True))


def _checked(line: bytes) -> bytes:
    """A line of a record with the checksum of what stands before it."""
    body, mark, _ = line.rpartition(b',"crc32":')
    return body + mark + str(zlib.crc32(body + b"}")).encode() + b"}\n" if mark else line


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
