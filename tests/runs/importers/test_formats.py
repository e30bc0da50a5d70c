"""One run in the formats of many trainers: each is recognised unaided, and gives the series that was put in.

write_formats.py wrote formats/; formats/README.md says what the tools themselves wrote.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import DataError, TrimtabError, UsageError
from trimtab.runs.importers import Imported, read_foreign

FORMATS = Path(__file__).with_name("formats")
STEPS = list(range(10, 501, 10))
EVALUATED = list(range(100, 501, 100))
EPOCHS = list(range(1, 11))


def loss(step: int) -> float:
    return round(4 * math.exp(-step / 150) + 0.5, 4)


def values(imported: Imported, name: str) -> tuple[list[int], list[float]]:
    series = imported.history.get(name)
    assert series is not None, f"{name} is not in {list(imported.history.series)}"
    steps, numbers = series.raw()
    return steps.tolist(), numbers.tolist()


BY_STEP = {
    "tensorboard": ("tensorboard", "validation/loss", "learning_rate"),
    "tensorboard_resumed": ("tensorboard",),
    "tensorboard_tensors": ("tensorboard",),
    "wandb_offline": ("wandb", "validation/loss", "learning_rate"),
    "wandb_offline/offline-run-20260101_000000-abcdefgh": ("wandb", "validation/loss", "learning_rate"),
    "mlflow_files": ("mlflow", "validation/loss", "learning_rate"),
    "mlflow_files/mlruns": ("mlflow", "validation/loss", "learning_rate"),
    "mlflow.db": ("mlflow", "validation/loss", "learning_rate"),
    "trackio.db": ("trackio", "validation/loss", "learning_rate"),
    "trackio.parquet": ("trackio", "validation/loss", "learning_rate"),
    "neptune": ("neptune", "validation/loss", "learning_rate"),
    "huggingface": ("huggingface", "validation/loss", "learning_rate"),
    "huggingface_printed.log": ("text", "validation/loss", "learning_rate"),
    "lightning_logs": ("lightning", "validation/loss", "learning_rate"),
    "wandb_export.csv": ("wandb", "validation/loss"),
    "run-mine-tag-train_loss.csv": ("tensorboard",),
    "mlflow_export.csv": ("csv", "validation/loss", "learning_rate"),
    "hand_made.csv": ("csv", "validation/loss"),
    "semicolons.csv": ("csv",),
    "tabs.tsv": ("csv", "validation/loss"),
    "flat.jsonl": ("jsonl", "validation/loss", "learning_rate"),
    "nested.jsonl": ("jsonl", "validation/loss", "learning_rate"),
    "splits.jsonl": ("jsonl", "validation/loss"),
    "events.ndjson": ("jsonl",),
    "list.json": ("json", "validation/loss", "learning_rate"),
    "lists.json": ("json",),
    "printed_dicts.log": ("jsonl", "validation/loss", "learning_rate"),
    "nanogpt.log": ("text", "validation/loss"),
    "nanochat.log": ("text", "validation/bits_per_byte"),
    "megatron.log": ("text", "validation/loss", "learning_rate"),
    "torchtitan.log": ("text",),
    "axolotl.log": ("text", "validation/loss", "learning_rate"),
    "imagenet.log": ("text",),
    "mnist.log": ("text",),
    "mmdetection.log": ("text", "learning_rate"),
    "logging.log": ("text", "validation/loss", "learning_rate"),
    "fairseq.log": ("text", "learning_rate"),
}
BY_EPOCH = {
    "tensorboard_folders": "tensorboard",
    "keras.csv": "keras",
    "keras2.log": "text",
    "keras3.log": "text",
    "epochs.txt": "text",
    "tutorial.log": "text",
}


@pytest.mark.parametrize("name", BY_STEP)
def test_a_format_is_found_and_gives_what_was_put_in(name: str) -> None:
    if name in ("trackio.parquet", "neptune"):
        pytest.importorskip("pyarrow")
    kind, *further = BY_STEP[name]
    imported = read_foreign(FORMATS / name)
    assert imported.format == kind
    steps, numbers = values(imported, "train/loss")
    assert steps == STEPS
    assert numbers == pytest.approx([loss(step) for step in STEPS], rel=1e-3)
    for ours in further:
        steps, numbers = values(imported, ours)
        if ours == "learning_rate":
            assert numbers == pytest.approx([1e-3 * (1 - step / 1000) for step in steps], rel=1e-3)
            assert steps == STEPS
        else:
            assert steps == EVALUATED
            assert numbers == pytest.approx([loss(step) + 0.1 for step in EVALUATED], rel=1e-3)


@pytest.mark.parametrize("name", BY_EPOCH)
def test_a_format_by_epochs(name: str) -> None:
    imported = read_foreign(FORMATS / name)
    assert imported.format == BY_EPOCH[name]
    assert values(imported, "train/loss") == (EPOCHS, pytest.approx([loss(50 * epoch) for epoch in EPOCHS]))
    assert values(imported, "validation/loss") == (
        EPOCHS,
        pytest.approx([loss(50 * epoch) + 0.1 for epoch in EPOCHS]),
    )


def test_bars_of_lightning(tmp_path: Path) -> None:
    text = (FORMATS / "lightning_bars.log").read_text()
    assert values(read_foreign(FORMATS / "lightning_bars.log"), "train/loss") == (
        [epoch - 1 for epoch in EPOCHS],
        [loss(50 * epoch) for epoch in EPOCHS],
    )
    half = [line.replace("50/50", "25/50") + "\n" + line for line in text.splitlines()]
    (tmp_path / "a.log").write_text("\n".join(half))
    imported = read_foreign(tmp_path / "a.log")
    assert values(imported, "train/loss")[0] == [25 * number for number in range(1, 21)]
    assert any("anew in each epoch" in note for note in imported.notes)


def test_there_are_thirty_formats_in_one_megabyte() -> None:
    assert len(BY_STEP) + len(BY_EPOCH) >= 30
    assert sum(one.stat().st_size for one in FORMATS.rglob("*") if one.is_file()) < 1 << 20


def test_units_and_names_of_printed_logs(tmp_path: Path) -> None:
    imported = read_foreign(FORMATS / "nanochat.log")
    assert values(imported, "step_seconds")[1][0] == 1.51346
    assert values(imported, "tokens_per_second")[1][0] == 1_021_088
    imported = read_foreign(FORMATS / "torchtitan.log")
    assert values(imported, "memory_bytes")[1][0] == 1.64 * 2**30
    assert values(imported, "grad_norm")[1][0] == 1.5
    judged = tmp_path / "titan.log"
    judged.write_text(
        "".join(f"[titan] step: {s}  loss:  4.0\n[titan] validate step: {s}  loss:  4.5\n" for s in range(1, 9))
    )
    assert values(read_foreign(judged), "validation/loss")[1] == [4.5] * 8
    assert values(read_foreign(judged), "train/loss")[1] == [4.0] * 8
    imported = read_foreign(FORMATS / "megatron.log")
    assert values(imported, "step_seconds")[1][0] == 1.2345
    assert values(imported, "validation/perplexity")[1][0] == pytest.approx(math.exp(loss(100) + 0.1), rel=1e-4)
    assert values(read_foreign(FORMATS / "mnist.log"), "validation/accuracy")[1] == [0.9825]
    assert values(read_foreign(FORMATS / "nanogpt.log"), "step_seconds")[1][0] == pytest.approx(0.0321)
    imported = read_foreign(FORMATS / "nanogpt.log")
    assert imported.names["train loss"] == "training_slice/loss"  # that of its evaluations, beside the iterations' own
    assert values(imported, "training_slice/loss")[1][0] == pytest.approx(loss(100), abs=1e-4)
    assert values(imported, "generalization_gap")[1] == pytest.approx([0.1] * 5, abs=1e-3)
    alone = [line for line in (FORMATS / "nanogpt.log").read_text().splitlines() if line.startswith("step ")]
    (tmp_path / "alone.log").write_text("\n".join(alone) + "\n")
    imported = read_foreign(tmp_path / "alone.log")
    assert imported.names == {"train loss": "train/loss", "val loss": "validation/loss"}
    assert values(read_foreign(FORMATS / "mmdetection.log"), "data_seconds")[1][0] == 0.051
    padded = [f"mmengine - INFO - Iter(train) [{step:>6}/2000]  lr: 1.0e-02  loss: 2.5" for step in range(50, 451, 50)]
    (tmp_path / "padded.log").write_text("\n".join(padded) + "\n")
    assert values(read_foreign(tmp_path / "padded.log"), "train/loss")[0] == list(range(50, 451, 50))


def test_the_runs_of_a_store() -> None:
    for store in ("mlflow.db", "trackio.db"):
        imported = read_foreign(FORMATS / store)
        assert any("2 runs" in note and "run-0" in note for note in imported.notes)
        other = values(read_foreign(FORMATS / store / "run-1"), "train/loss")[1]
        assert other == pytest.approx([loss(step) + 1 for step in STEPS])
        with pytest.raises(UsageError, match="holds no run 'run-7'"):
            read_foreign(FORMATS / store / "run-7")
    runs = [one.parent for one in (FORMATS / "mlflow_files").glob("mlruns/*/*/meta.yaml")]
    first = sorted(values(read_foreign(run), "train/loss")[1][0] for run in runs)
    assert first == pytest.approx([loss(10), loss(10) + 1])
    assert math.isnan(values(read_foreign(FORMATS / "mlflow.db"), "grad_norm")[1][0])


def test_event_files_of_several_runs(tmp_path: Path) -> None:
    whole = next((FORMATS / "tensorboard").iterdir())
    for number, name in enumerate(("second", "first")):
        (tmp_path / name).mkdir()
        shutil.copy(whole, tmp_path / name / f"events.out.tfevents.170000000{2 - number}.host")
    (tmp_path / "train.log").write_text("step 1 loss 2\n")
    imported = read_foreign(tmp_path)
    assert imported.names["Loss/train"] == "train/loss"
    assert any("2 runs: the newest, second, was read, not first" in note for note in imported.notes)


def test_a_mapping_finds_names_in_printed_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"begin\nround {step} objective {step / 2}\n" for step in range(1, 9)))
    with pytest.raises(DataError):
        read_foreign(path)
    imported = read_foreign(path, {"round": "step", "objective": "train/loss"})
    assert values(imported, "train/loss") == (list(range(1, 9)), [step / 2 for step in range(1, 9)])


def test_torn_and_damaged_event_files(tmp_path: Path) -> None:
    whole = next((FORMATS / "tensorboard").iterdir()).read_bytes()
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(whole[:-5])
    assert any("torn" in note for note in read_foreign(path).notes)
    at = 12 + int.from_bytes(whole[:8], "little") + 4  # the second record
    for place, told in ((at + 20, "1 record with a wrong checksum"), (at + 2, "damaged from byte")):
        bad = bytearray(whole)
        bad[place] ^= 0x40
        path.write_bytes(bytes(bad))
        if told.startswith("1"):
            imported = read_foreign(path)
            assert any(told in note for note in imported.notes), imported.notes
            assert len(values(imported, "train/loss")[0]) == len(STEPS) - 1
        else:
            with pytest.raises(DataError, match=r"damaged from byte|torn"):
                read_foreign(path)


def test_a_renamed_event_file_and_another_axis(tmp_path: Path) -> None:
    shutil.copy(next((FORMATS / "tensorboard").iterdir()), tmp_path / "mine.bin")
    assert read_foreign(tmp_path / "mine.bin").format == "tensorboard"
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(tmp_path / "logs")) as writer:
        for step in range(1, 1001):
            writer.add_scalar("train/loss", 1.0, step)
            if step % 100 == 0:
                writer.add_scalar("val/loss", step / 100, step // 100)  # by epochs
    imported = read_foreign(tmp_path / "logs")
    assert values(imported, "validation/loss") == (list(range(100, 1001, 100)), list(range(1, 11)))
    assert any("not counted in the steps of the others" in note for note in imported.notes)


def test_torn_and_damaged_offline_runs(tmp_path: Path) -> None:
    whole = next((FORMATS / "wandb_offline").rglob("*.wandb")).read_bytes()
    path = tmp_path / "run.wandb"
    found = whole.index(b"1.2555")  # the loss at step 250, in its history and in a summary
    for bad, told in ((whole[: found + 2], "torn"), (whole.replace(b"1.2555", b"9.2555"), "checksum")):
        path.write_bytes(bad)
        imported = read_foreign(path)
        assert any(told in note for note in imported.notes), imported.notes
        steps, numbers = values(imported, "train/loss")
        assert set(steps) < set(STEPS)
        assert numbers == pytest.approx([loss(step) for step in steps])


def test_records_of_offline_runs_that_cross_blocks(tmp_path: Path) -> None:
    """A long record is divided at the blocks of 32 KiB, as LevelDB does."""
    long = b"\x12" + _sized(b"\x0a" + _sized(b"\x82\x01" + _sized(b'"' + b"x" * 70_000 + b'"') + b"\x0a\x01a"))
    rows = [
        b"\x12"
        + _sized(
            b"\x0a"
            + _sized(b"\x0a\x04loss" + b"\x82\x01" + _sized(str(step).encode()))
            + b"\x12"
            + _sized(b"\x08" + bytes([step]))
        )
        for step in range(1, 9)
    ]
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in (rows[0], long, *rows[1:]):
        begin = True
        while record or begin:
            room = (1 << 15) - len(out) % (1 << 15)
            if room < 7:
                out += bytes(room)
                continue
            part, record = record[: room - 7], record[room - 7 :]
            kind = (1 if not record else 2) if begin else (4 if not record else 3)
            out += zlib.crc32(part, zlib.crc32(bytes([kind]))).to_bytes(4, "little")
            out += len(part).to_bytes(2, "little") + bytes([kind]) + part
            begin = False
    path = tmp_path / "long.wandb"
    path.write_bytes(bytes(out))
    imported = read_foreign(path)
    assert values(imported, "train/loss") == (list(range(1, 9)), list(range(1, 9)))
    assert not any("checksum" in note for note in imported.notes)


def _sized(data: bytes) -> bytes:
    size, out = len(data), b""
    while size >= 0x80:
        out, size = out + bytes([size & 0x7F | 0x80]), size >> 7
    return out + bytes([size]) + data


def test_hostile_databases(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE x (run_uuid, key, value, step, timestamp, is_nan)")
        connection.execute("CREATE VIEW metrics AS SELECT * FROM x")
    connection.close()
    with pytest.raises(DataError, match="without metrics"):
        read_foreign(path)
    whole = (FORMATS / "mlflow.db").read_bytes()
    before = sorted(one.name for one in tmp_path.iterdir())
    for seed in range(20):
        random = np.random.default_rng(seed)
        bad = bytearray(whole)
        for place in random.integers(16, len(whole), 200):
            bad[place] = random.integers(256)
        path.write_bytes(bytes(bad[: len(whole) // (1 + seed % 2)]))
        with contextlib.suppress(TrimtabError):
            read_foreign(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == before  # nothing is written beside a store


def test_no_package_is_loaded_for_binary_formats() -> None:
    code = (
        "import sys; from pathlib import Path; from trimtab.runs.importers import read_foreign\n"
        f"for name in ('tensorboard', 'wandb_offline', 'mlflow.db', 'trackio.db', 'nanogpt.log'):\n"
        f"    read_foreign(Path({str(FORMATS)!r}) / name)\n"
        "print([n for n in ('torch', 'tensorboard', 'wandb', 'mlflow', 'google', 'pyarrow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
