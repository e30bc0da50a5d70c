"""Adaptive logging: calm windows now and then, remarkable ones whole; what is measured and trained stays the same."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimtab import Trainer, load_config
from trimtab.config import AdaptiveLoggingConfig
from trimtab.events import AlertRaised, FindingsChanged, RunEnded, RunStarted, StepsEnded
from trimtab.runs import History, Recorder, RunDirectory, StatisticsWriter, read_statistics
from trimtab.runs.adaptive import Band
from trimtab.runs.compressed import Row, compressed, decompressed
from trimtab.runs.drift import drift

STEPS = 10


def window(number: int, loss: np.ndarray[Any, Any], layers: dict[str, float] | None = None) -> StepsEnded:
    first = (number - 1) * STEPS + 1
    layers = {"layer/a/grad_norm": float(number), "layer/b/grad_norm": 2.0 * number} if layers is None else layers
    return StepsEnded(first, first + STEPS - 1, {"train/loss": loss}, {"memory_bytes": 1e9}, layers)


def record(
    run: Path, events: list[Any], *, adaptive: AdaptiveLoggingConfig | None, branch: int = 0, closes: bool = True
) -> Recorder:
    run.mkdir(exist_ok=True)
    recorder = Recorder.open(RunDirectory(run), branch=branch, adaptive=adaptive)
    for event in events:
        recorder.record(event)
    if closes:
        recorder.close()
    return recorder


def losses(num: int, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [2 + math.exp(-number / 50) + rng.normal(0, 0.05, STEPS) for number in range(1, num + 1)]


def written(run: Path) -> list[int]:
    return [int(step) // STEPS for step in read_statistics(run / "statistics")[0]]


def test_a_band_is_calm_over_noise_and_a_falling_loss() -> None:
    alarms = 0
    for seed in range(10):
        band = Band(6.0, 100)
        alarms += sum(bool(band.leaves(loss)) for loss in losses(300, seed))
    assert alarms <= 3, "of 3,000 windows"


@pytest.mark.parametrize(
    "change",
    [
        lambda loss: np.append(loss[:-1], loss[-1] + 1.0),  # one step of ten
        lambda loss: loss + 0.5,
        lambda loss: loss - 0.5,
        lambda loss: np.append(loss[:-1], math.nan),
        lambda loss: np.full(STEPS, math.inf),
    ],
)
def test_a_band_is_left(change: Any) -> None:
    band = Band(6.0, 100)
    usual = losses(61)
    assert not any(band.leaves(loss) for loss in usual[40:60])
    assert band.leaves(change(usual[60]))


def test_what_never_changes_may_change_a_little() -> None:
    band = Band(6.0, 100)
    assert not any(band.leaves([value]) for value in [1e9] * 20 + [1.01e9])
    assert band.leaves([1.5e9])


def test_all_is_written_around_a_spike_and_the_loss_everywhere(tmp_path: Path) -> None:
    series = losses(300)
    series[150] = series[150].copy()
    series[150][3] += 4.0  # window 151
    events = [window(number, loss) for number, loss in enumerate(series, 1)]
    config = AdaptiveLoggingConfig(around=20, calm_every=10)
    record(tmp_path / "full", events, adaptive=None)
    record(tmp_path / "adaptive", events, adaptive=config)
    found = written(tmp_path / "adaptive")
    calm = {number for number in range(9, 281) if number % 10 == 0}
    around = set(range(131, 172))
    assert found == sorted({*range(1, 9), *calm, *around, *range(281, 301)})
    for kind in ("full", "adaptive"):  # of the loss nothing is missing
        history = History.read(tmp_path / kind / "record.jsonl")
        steps, values = history.series["train/loss"].raw()
        assert steps.tolist() == list(range(1, 3001))
        np.testing.assert_allclose(values, np.concatenate(series), rtol=1e-6)
    whole = dict(zip(*read_statistics(tmp_path / "full" / "statistics")[::2], strict=True))
    for step, row in zip(*read_statistics(tmp_path / "adaptive" / "statistics")[::2], strict=True):
        np.testing.assert_array_equal(row, whole[step])


@pytest.mark.parametrize(
    "event",
    [
        AlertRaised(1500, "outlying_step", "step 1,500 lies far above"),
        FindingsChanged(1500, ({"code": "loss-spike"},)),
    ],
)
def test_events_are_remarkable(tmp_path: Path, event: Any) -> None:
    events: list[Any] = [window(number, loss) for number, loss in enumerate(losses(300), 1)]
    events.insert(150, event)
    record(tmp_path, events, adaptive=AdaptiveLoggingConfig())
    assert set(range(131, 171)) <= set(written(tmp_path))
    assert not set(range(171, 180)) & set(written(tmp_path))


def test_where_every_window_is_remarkable_only_a_part_is_written(tmp_path: Path) -> None:
    events: list[Any] = []
    for number, loss in enumerate(losses(3000), 1):
        events += [window(number, loss), AlertRaised(number * STEPS, "outlying_step", "again")]
    record(tmp_path / "bands", events, adaptive=AdaptiveLoggingConfig())
    found = written(tmp_path / "bands")
    assert set(range(1, 301)) <= set(found), "how it began"
    assert set(range(10, 3001, 10)) <= set(found)
    assert len(found) <= 300 + (0.1 + 0.2) * 3000
    record(tmp_path / "full", events, adaptive=None)
    assert len(written(tmp_path / "full")) <= 1500 + 3 * 270  # three segments are as they were


HEAVY: dict[str, Any] = {
    "student-t": lambda rng: 2 + 0.05 * rng.standard_t(3, STEPS),
    "log-normal": lambda rng: np.exp(rng.normal(0, 0.7, STEPS)),
}


@pytest.mark.parametrize("tails", HEAVY)
def test_false_alarms_of_heavy_tails_leave_room_for_spikes_and_events(tails: str, tmp_path: Path) -> None:
    rng, spikes, told = np.random.default_rng(0), (1503, 2003, 2503), 2903
    events: list[Any] = []
    for number in range(1, 3001):
        loss = HEAVY[tails](rng)
        if number in spikes:
            loss[3] += 40.0
        events.append(window(number, loss))
        if number == told:
            events.append(AlertRaised(number * STEPS, "outlying_step", "it lies far above"))
    record(tmp_path, events, adaptive=AdaptiveLoggingConfig())
    found = set(written(tmp_path))
    for spike in (*spikes, told):
        assert set(range(spike - 19, spike + 20)) <= found, spike
    assert len(found) <= 300 + (0.1 + 0.2) * 3000


def test_what_waits_belongs_to_its_branch(tmp_path: Path) -> None:
    events: list[Any] = [window(number, loss) for number, loss in enumerate(losses(105), 1)]
    again = [window(number, loss + 9.0) for number, loss in enumerate(losses(140), 1)][50:]  # a remarkable branch
    record(tmp_path, [*events, RunStarted(500, 1, 1, 500, 2000), *again], adaptive=AdaptiveLoggingConfig())
    found = written(tmp_path)
    assert found == sorted(set(found))
    assert [number for number in found if number <= 50] == [*range(1, 9), 10, 20, 30, 40, 50]
    assert set(range(51, 71)) <= set(found)
    assert max(found) == 140


def test_every_cut_leaves_whole_rows_in_order(tmp_path: Path) -> None:
    series = losses(40)
    series[30] = series[30] + 3.0
    record(tmp_path, [window(number, loss) for number, loss in enumerate(series, 1)], adaptive=AdaptiveLoggingConfig())
    path = tmp_path / "statistics" / "0000.f32"
    whole = path.read_bytes()
    before = 0
    for cut in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        steps, _, values = read_statistics(tmp_path / "statistics")
        assert steps.tolist() == sorted(set(steps.tolist()))
        np.testing.assert_array_equal(values[:, 0] * STEPS if len(steps) else [], steps)
        assert len(steps) >= before
        before = len(steps)


def test_a_resumed_run_goes_on_after_a_kill(tmp_path: Path) -> None:
    events = [window(number, loss) for number, loss in enumerate(losses(60), 1)]
    killed = record(tmp_path, events, adaptive=AdaptiveLoggingConfig(), closes=False)
    more = [RunStarted(600, 2, 1, 600, 900), *(window(number, loss) for number, loss in enumerate(losses(90), 1))]
    record(tmp_path, [more[0], *more[61:]], adaptive=AdaptiveLoggingConfig(), branch=1)
    del killed
    found = written(tmp_path)
    assert found == sorted(set(found))
    assert set(range(61, 69)) <= set(found)  # whole until there is a band again
    assert found[-1] == 90


FLOATS = st.integers(0, 2**32 - 1).map(lambda bits: np.array([bits], "<u4").view("<f4")[0])


@given(
    groups=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), arrays("<u4", st.tuples(st.integers(1, 9), st.integers(1, 5)))),
        min_size=1,
        max_size=4,
    ),
    late=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_compressing_loses_no_bit(groups: list[tuple[int, Any]], late: bool) -> None:
    rows = [
        Row(10 * index - 7, late, names, bits.view("<f4"))
        for names, values in groups
        for index, bits in enumerate(values)
    ]
    found = decompressed(compressed(rows))
    assert [(row.step, row.late, row.names_crc) for row in found] == [
        (row.step, row.late, row.names_crc) for row in rows
    ]
    for one, other in zip(found, rows, strict=True):
        assert one.values.tobytes() == other.values.tobytes()


@given(content=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_a_payload_that_is_none_gives_no_rows(content: bytes) -> None:
    assert all(len(row.values) >= 0 for row in decompressed(content))


def test_a_stream_that_grows_without_end_is_not_unpacked() -> None:
    import struct
    import zlib

    bomb = zlib.compress(b"\0" * 10_000_000)
    assert decompressed(struct.pack("<IIII", 1, 1, 0, len(bomb)) + bomb) == []
    assert decompressed(struct.pack("<IIII", 2**31, 2**31, 0, len(bomb)) + bomb) == []


def layer_values(num_windows: int, num_columns: int) -> np.ndarray[Any, Any]:
    """Norms of gradients as they are: each around a level that drifts, with a few per cent of noise."""
    rng = np.random.default_rng(0)
    level = np.exp(rng.normal(0, 2, num_columns) + np.cumsum(rng.normal(0, 0.003, (num_windows, num_columns)), axis=0))
    return (level * np.exp(rng.normal(0, 0.03, level.shape))).astype(np.float32)


def test_bytes_before_and_after(tmp_path: Path) -> None:
    """Of 3,000 windows with 150 columns: as they were measured, thinned, compressed, and written adaptively."""
    values = layer_values(3000, 150)
    columns = [f"layer/blocks.{index}/grad_norm" for index in range(150)]
    rows = [dict(zip(columns, row.tolist(), strict=True)) for row in values]

    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.glob("*.f32"))

    full = StatisticsWriter(tmp_path / "full", segment_windows=10**9)
    old = StatisticsWriter(tmp_path / "old")
    for number, row in enumerate(rows, 1):
        full.append(number, row)
        old.append(number, row)
        if number == 700:
            old.mark(number)
    full.close()
    old.close()
    events = [window(number, loss, row) for number, (loss, row) in enumerate(zip(losses(3000), rows, strict=True), 1)]
    record(tmp_path / "run", events, adaptive=AdaptiveLoggingConfig())
    sizes = {"full": size(tmp_path / "full"), "old": size(tmp_path / "old")}
    sizes["adaptive"] = size(tmp_path / "run" / "statistics")
    segments = sorted((tmp_path / "old").glob("*.f32"))
    steps, _, found = read_statistics(tmp_path / "old")
    retired = sum(path.stat().st_size for path in segments[:-3])
    thinned = int((steps <= 500 * len(segments[:-3])).sum()) * (24 + 4 * 150)
    shown = {name: f"{num_bytes / 2**20:.2f} MiB" for name, num_bytes in sizes.items()}
    print(shown, f"compressed {retired / thinned:.2f} of thinned")
    assert sizes["old"] < 0.6 * sizes["full"]  # half of it is the newest three segments
    assert retired < 0.9 * thinned
    assert sizes["adaptive"] < 0.2 * sizes["full"]
    assert set(range(691, 711)) <= set(steps.tolist())  # the mark's
    for step, row in zip(steps, found, strict=True):
        np.testing.assert_array_equal(row, values[step - 1])


def test_an_older_segment_is_compressed_when_its_turn_comes(tmp_path: Path) -> None:
    for begin in range(0, 700, 70):  # many attempts
        writer = StatisticsWriter(tmp_path, segment_windows=100)
        for step in range(begin, begin + 70):
            writer.append(step, {"a": float(step)})
        writer.close()
    assert b"TTSV" not in (tmp_path / "0000.f32").read_bytes()
    steps, _, values = read_statistics(tmp_path)
    np.testing.assert_array_equal(values[:, 0], steps)
    assert [step for step in steps if step < 100] == list(range(0, 100, 10))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_the_weights_are_those_of_a_run_that_writes_everything(tmp_path: Path, cache: None) -> None:
    settings_ = {
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 1},
        "data": {
            "source": {"name": "text", "path": json.__file__},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 16,
        },
        "training": {"steps": 120, "micro_batch_size": 4, "compile": "off"},
        "evaluation": {"every": 120, "gap_tokens": 0, "max_tokens": 256, "yardsticks": False},
        "stopping": {"name": "none"},
    }
    digests = []
    bands = {"name": "bands", "metrics": ["train/loss"], "threshold": 50.0, "around": 2}
    for name, logging in (("full", {"every": 2}), ("bands", {"every": 2, "adaptive": bands})):
        run = tmp_path / name
        Trainer(load_config({**settings_, "logging": logging}, environment={}), run=run).fit()
        weights = sorted((run / "checkpoints").glob("*/*.safetensors"))
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in weights])
        assert weights
    assert digests[0] == digests[1]
    (full, _, _), (adaptive, _, _) = (read_statistics(tmp_path / name / "statistics") for name in ("full", "bands"))
    assert set(adaptive.tolist()) < set(full.tolist())
    histories = [History.read(tmp_path / name / "record.jsonl") for name in ("full", "bands")]
    series = [history.series["train/loss"].raw()[1] for history in histories]
    np.testing.assert_array_equal(*series)
    assert RunEnded.__name__ in (tmp_path / "bands" / "record.jsonl").read_text()


def test_it_may_be_changed_when_a_run_goes_on() -> None:
    assert drift({"config.logging.adaptive.name": "none"}, {"config.logging.adaptive.name": "bands"}) == []
