from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from trimtab.data import cache_folder
from trimtab.data.cache import cached_folder, cached_json
from trimtab.errors import DataError, StorageError


def build(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"0123456789")
    (folder / "b.json").write_text("{}")


def refuse(folder: Path) -> None:
    raise AssertionError("must not be built again")


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "data").iterdir())


def test_it_is_built_once(cache: Path) -> None:
    folder = cached_folder("key", build)
    assert folder == cache / "data" / "key"
    assert cached_folder("key", refuse) == folder
    assert (folder / "a.bin").read_bytes() == b"0123456789"
    assert left_in(cache) == ["key"]


def torn(folder: Path) -> None:
    with (folder / "a.bin").open("r+b") as stream:
        stream.truncate(5)


def altered(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"0123456780")


def missing(folder: Path) -> None:
    (folder / "b.json").unlink()


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def torn_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"schema": 1, "files": {')


def other_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('["files"]')


@pytest.mark.parametrize("damage", [torn, altered, missing, no_manifest, torn_manifest, other_manifest])
def test_damage_is_noticed_and_repaired(cache: Path, damage: object) -> None:
    folder = cached_folder("key", build)
    damage(folder)  # type: ignore[operator]
    with pytest.warns(UserWarning, match="is damaged .*preparing it again"):
        assert cached_folder("key", build) == folder
    assert (folder / "a.bin").read_bytes() == b"0123456789"
    assert cached_folder("key", refuse) == folder
    assert left_in(cache) == ["key"]


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise DataError("no text")

    with pytest.raises(DataError, match="no text"):
        cached_folder("key", fail)
    assert left_in(cache) == []


def test_a_full_disk(cache: Path) -> None:
    def fill(folder: Path) -> None:
        build(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"No space left.*\nhint: set TRIMTAB_CACHE") as error:
        cached_folder("key", fill)
    assert error.value.exit_code == 5
    assert left_in(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"Not a directory\nhint: set TRIMTAB_CACHE"):
        cached_folder("key", build)


def test_two_builders_agree(cache: Path) -> None:
    both, folders = threading.Barrier(2), []

    def together(folder: Path) -> None:
        build(folder)
        both.wait(5)

    threads = [threading.Thread(target=lambda: folders.append(cached_folder("key", together))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [cache / "data" / "key"] * 2
    assert left_in(cache) == ["key"]


def test_what_a_killed_process_left_is_removed_after_a_day(cache: Path) -> None:
    old, fresh = cache / "data" / ".building-old", cache / "data" / ".building-fresh"
    for folder in (old, fresh):
        folder.mkdir(parents=True)
        build(folder)
    os.utime(old, (0, 0))
    cached_folder("key", build)
    assert left_in(cache) == [".building-fresh", "key"]


def test_values_are_kept_beside_the_data(cache: Path) -> None:
    folder, computed = cached_folder("key", build), []

    def compute() -> object:
        computed.append(1)
        return {"bigram": 1.25, "capped": False}

    for _ in range(2):
        assert cached_json(folder, "yardsticks", compute) == {"bigram": 1.25, "capped": False}
    assert len(computed) == 1
    path = folder / "derived" / "yardsticks.json"
    for content in (path.read_text()[:-9], path.read_text().replace("1.25", "9.25"), "[]"):
        path.write_text(content)
        assert cached_json(folder, "yardsticks", compute) == {"bigram": 1.25, "capped": False}
    assert len(computed) == 4
    assert cached_folder("key", refuse) == folder


def test_a_value_that_cannot_be_kept_is_still_given(tmp_path: Path) -> None:
    assert cached_json(tmp_path / "missing", "a", lambda: 5) == 5


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == Path(os.environ["TRIMTAB_CACHE"])
    monkeypatch.delenv("TRIMTAB_CACHE")
    assert cache_folder() == tmp_path / "trimtab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "trimtab"
