"""Per-layer values: what is written is read back, torn tails are dropped, old windows are thinned."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import StorageError
from trimtab.runs import StatisticsWriter, read_statistics


def write(folder: Path, first: int, last: int, *, segment_windows: int = 500, marks: tuple[int, ...] = ()) -> None:
    """One window a step, two columns that depend on the step."""
    writer = StatisticsWriter(folder, segment_windows=segment_windows)
    for step in range(first, last + 1):
        writer.append(step, {"a": float(step), "b": 2.0 * step})
        if step in marks:
            writer.mark(step)
    writer.close()


@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.floats(width=32), min_size=1, max_size=4), min_size=1, max_size=20
    )
)
@settings(max_examples=50, deadline=None)
def test_columns_may_change(rows: list[dict[str, float]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run") / "statistics"
    writer = StatisticsWriter(folder, segment_windows=7)
    for index, row in enumerate(rows):
        writer.append(10 * index, row)
    writer.close()
    steps, columns, values = read_statistics(folder)
    assert steps.tolist() == [10 * index for index in range(len(rows))]
    assert set(columns) == {name for row in rows for name in row}
    for row, found in zip(rows, values, strict=True):
        expected = np.array([row.get(name, np.nan) for name in columns], dtype=np.float32)
        np.testing.assert_array_equal(found, expected)


def test_nothing_written_is_nothing_read(tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        steps, columns, values = read_statistics(folder)
        assert (steps.shape, columns, values.shape) == ((0,), (), (0, 0))


def test_a_stranger_can_read_the_blocks(tmp_path: Path) -> None:
    write(tmp_path, 1, 3)
    data = (tmp_path / "0000.f32").read_bytes()
    columns, rows = [], []
    while data:
        magic, length, crc = struct.unpack("<4sII", data[:12])
        payload, data = data[12 : 12 + length], data[12 + length :]
        assert zlib.crc32(payload) == crc
        if magic == b"TTSN":
            columns = json.loads(payload)["columns"]
        elif magic == b"TTSV":
            rows.append((struct.unpack("<q", payload[:8])[0], np.frombuffer(payload[12:], "<f4").tolist()))
    assert columns == ["a", "b"]
    assert rows == [(1, [1.0, 2.0]), (2, [2.0, 4.0]), (3, [3.0, 6.0])]


def test_every_cut_leaves_the_whole_blocks(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    path = tmp_path / "0000.f32"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        steps, _, _ = read_statistics(tmp_path)
        complete = len(steps)
        assert steps.tolist() == list(range(1, complete + 1))
        assert complete >= (cut - 40) // 32 - 1
        write(tmp_path, complete + 1, complete + 1)
        steps, _, values = read_statistics(tmp_path)
        assert steps.tolist() == list(range(1, complete + 2))
        np.testing.assert_array_equal(values[:, 1], 2.0 * steps)


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_never_shows_a_wrong_value(
    position: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    writer = StatisticsWriter(folder)
    for step in range(1, 9):
        writer.append(step, {"a": float(step)} if step < 4 else {"a": float(step), "b": 2.0 * step})
    writer.close()
    path = folder / "0000.f32"
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(data)
    steps, columns, values = read_statistics(folder)
    assert len(steps) >= 3
    for step, row in zip(steps, values, strict=True):
        named = dict(zip(columns, row, strict=True))
        assert named.get("a", step) == step or np.isnan(named["a"])
        assert step < 4 or named["b"] == 2 * step


def test_a_block_that_a_flipped_bit_makes_one_of_another_kind_is_skipped(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path)
    writer.append(1, {"abc": 1.0})
    writer.append(3, {"abc": 3.0})
    writer.append(2, {"abc": 2.0}, late=True)
    writer.mark(3)
    writer.close()
    path = tmp_path / "0000.f32"
    whole = path.read_bytes()
    begins = [place for place in range(len(whole)) if whole.startswith(b"TTS", place)]
    assert len(begins) == 5
    for begin in begins:
        for bit in range(8):
            path.write_bytes(whole[: begin + 3] + bytes([whole[begin + 3] ^ 1 << bit]) + whole[begin + 4 :])
            steps, _, values = read_statistics(tmp_path)
            assert set(steps.tolist()) <= {1, 2, 3}
            np.testing.assert_array_equal(values[:, 0] if len(steps) else [], steps)


def test_a_resumed_run_takes_back_what_it_does_again(tmp_path: Path) -> None:
    write(tmp_path, 1, 50)
    write(tmp_path, 31, 40)
    steps, _, _ = read_statistics(tmp_path)
    assert steps.tolist() == list(range(1, 41))


def test_old_segments_are_thinned_but_around_marks(tmp_path: Path) -> None:
    write(tmp_path, 0, 479, segment_windows=100, marks=(50,))
    steps, _, values = read_statistics(tmp_path)
    recent = [step for step in steps if step >= 200]
    assert recent == list(range(200, 480))
    assert [step for step in steps if 100 <= step < 200] == list(range(100, 200, 10))
    old = [step for step in steps if step < 100]
    assert old == sorted({*range(0, 100, 10), *range(41, 61)})
    np.testing.assert_array_equal(values[:, 0], steps)
    # Thinning again, after more segments, changes nothing in what is thinned.
    write(tmp_path, 480, 900, segment_windows=100)
    steps, _, _ = read_statistics(tmp_path)
    assert [step for step in steps if step < 100] == old
    assert len(steps) == len(old) + 6 * 10 + 201


def test_a_mark_may_be_the_first_of_all(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path, segment_windows=100)
    writer.mark(0)
    for step in range(1, 402):
        writer.append(step, {"a": float(step)})
    writer.close()
    steps, _, values = read_statistics(tmp_path)
    assert [step for step in steps if step <= 100] == sorted({*range(1, 11), *range(11, 101, 10)})
    np.testing.assert_array_equal(values[:, 0], steps)


@pytest.mark.parametrize("payload", [None, b"\xff", b"[]", b'{"columns": ["a"]}'])
def test_a_segment_whose_names_are_damaged_stays_as_it_is(payload: bytes | None, tmp_path: Path) -> None:
    write(tmp_path, 1, 301, segment_windows=100)
    path = tmp_path / "0000.f32"
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 4)
    if payload is None:  # a flipped bit
        damaged = data[:20] + bytes([data[20] ^ 1]) + data[21:]
    else:
        damaged = struct.pack("<4sII", b"TTSN", len(payload), zlib.crc32(payload)) + payload + data[12 + length :]
    path.write_bytes(damaged)
    write(tmp_path, 302, 501, segment_windows=100)
    assert path.read_bytes() == damaged
    assert b"TTSV" not in (tmp_path / "0001.f32").read_bytes(), "the one after it is thinned"


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="statistics: cannot be created"):
        StatisticsWriter(tmp_path / "file" / "statistics")
