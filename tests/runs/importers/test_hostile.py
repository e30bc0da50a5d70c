"""Whatever bytes a file holds, reading it as a log gives a history or one of our errors, in bounded memory."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_foreign_case
from trimtab.errors import DataError, TrimtabError, UsageError
from trimtab.report import render_html, render_text
from trimtab.report.gather import gather
from trimtab.runs.importers import read_foreign

NAMES = st.sampled_from(
    ["step", "epoch", "loss", "val_loss", "lr", "time", "value", "key", "split", "x - loss", "Step", "step_time", "acc"]
)
CELLS = st.one_of(
    st.sampled_from(["", "nan", "-inf", "1e999", "1" * 400, "0x10", "train", "val", "loss", "½", "1,5", '"', "1_0"]),
    st.floats().map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.text(max_size=5),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
FORMATS = Path(__file__).with_name("formats")
ALL_FORMATS = sorted(path.name for path in FORMATS.iterdir() if path.name != "README.md")
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a terminal would show it
            imported = read_foreign(path)
    except TrimtabError:
        return
    for series in imported.history.series.values():
        steps, _ = series.raw()
        assert (steps[1:] >= steps[:-1]).all()


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    read_or_refuse(tmp_path / "log", content)


@FUZZ
@given(
    header=st.lists(NAMES | st.text(max_size=4), min_size=1, max_size=5),
    rows=st.lists(st.lists(CELLS, max_size=6), max_size=15),
    delimiter=st.sampled_from(",;\t|"),
)
def test_any_table(tmp_path: Path, header: list[str], rows: list[list[str]], delimiter: str) -> None:
    text = "\n".join(delimiter.join(row) for row in [header, *rows])
    read_or_refuse(tmp_path / "log.csv", text.encode(errors="surrogatepass"))


@FUZZ
@given(st.lists(st.dictionaries(NAMES | st.text(max_size=3), VALUES, max_size=5), max_size=8), st.integers(0, 40))
def test_any_json(tmp_path: Path, records: list[dict[str, Any]], cut: int) -> None:
    lines = "\n".join(map(json.dumps, records)).encode()
    read_or_refuse(tmp_path / "log.jsonl", lines[: len(lines) - cut])
    document = json.dumps({"log_history": records, "max_steps": cut}).encode()
    read_or_refuse(tmp_path / "trainer_state.json", document)
    read_or_refuse(tmp_path / "trainer_state.json", document[: len(document) - cut])


# fmt: off
WORDS = st.sampled_from([
    "loss", "val", "step", "epoch", ":", "=", " ", "10", "1.5", "nan", "[", "]", "/", "%|", "|", "{", "}", "'", "\b",
    "\r", "\x1b[31m", "100%|██| 5/5 [00:01<00:00, 9it/s, loss=2]", "5/5 [===] - loss: 1", "is", "Test set", "1,000",
    "acc", "ms", "\n",
])
# fmt: on


@FUZZ
@given(st.lists(WORDS | st.text(max_size=3), max_size=60))
def test_any_printed_lines(tmp_path: Path, parts: list[str]) -> None:
    read_or_refuse(tmp_path / "run.log", "".join(parts).encode(errors="replace"))


@FUZZ
@given(
    name=st.sampled_from(ALL_FORMATS),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    end=st.floats(0.0, 1.0) | st.just(1.0),
)
def test_any_damage_of_a_log(tmp_path: Path, name: str, places: list[tuple[float, int]], end: float) -> None:
    found = FORMATS / name
    whole = bytearray((found if found.is_file() else next(p for p in found.rglob("*") if p.is_file())).read_bytes())
    for at, value in places:
        whole[int(at * len(whole))] = value
    read_or_refuse(tmp_path / "log", bytes(whole[: int(end * len(whole))]))


@pytest.mark.parametrize(
    "line", ["a " * 2000, "loss " * 800, "a" * 4000, "loss 1 " * 550, "epoch[[" * 600, "1:2-3/" * 600]
)
def test_a_line_that_is_made_to_be_slow(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.log"
    path.write_text(
        "".join(f"{line}{chr(97 + number % 26)}{number}x\n" for number in range(20)) + "step 1 loss 2\n" * 40
    )
    begin = time.process_time()
    read_or_refuse(path, path.read_bytes())
    assert time.process_time() - begin < 4.0


def damaged(whole: bytes, draw: random.Random, times: int) -> Iterator[bytes]:
    """Cut, with bytes that are others, with parts left out or there twice, and in other encodings."""
    size = len(whole)
    for end in range(size) if size <= times else draw.sample(range(size), times):
        yield whole[:end]
    for _ in range(times):
        hurt = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 4, 16, 64))):
            hurt[draw.randrange(size)] = draw.choice((0, 255, draw.randrange(256), *b'9"-e{'))
        yield bytes(hurt)
    for _ in range(times // 4):
        begin, end = sorted((draw.randrange(size), draw.randrange(size)))
        yield whole[:begin] + whole[end:]
        yield whole[:end] + whole[begin:]
    yield whole[::-1]
    try:
        text = whole.decode()
    except UnicodeDecodeError:
        return
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"):
        yield text.encode(encoding, "replace")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_FORMATS)
def test_every_format_damaged_in_every_way(tmp_path: Path, name: str) -> None:
    kept, copy = FORMATS / name, tmp_path / name
    files = [kept] if kept.is_file() else [file for file in sorted(kept.rglob("*")) if file.stat().st_size]
    files = [file for file in files if file.is_file()]
    (shutil.copytree if kept.is_dir() else shutil.copy)(kept, copy)
    draw, times = random.Random(name), max(20, 200 // len(files))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # which a terminal would show
        for file in files:
            whole, hurt = file.read_bytes(), copy / file.relative_to(kept)
            for number, content in enumerate(damaged(whole, draw, times)):
                hurt.write_bytes(content)
                try:
                    case, _ = open_foreign_case(copy)
                except TrimtabError:
                    continue
                if number % 10 == 0:
                    render_text(diagnose(case, name))
            hurt.write_bytes(whole)


HOSTILE = {
    "nul.log": b"epoch 1 loss 0.5\nstep 5 loss 0.5\nstep 5\0 loss\n" * 5 + b"step\0 6 loss 0.5\0\n",
    "name.csv": b"step," + b"loss_" * 60_000 + b"\n1,2\n2,1\n",
    "quote.csv": b'step,"loss\n' + b"1,2\n" * 60_000,
    "depths.jsonl": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n") * 2,
    "depths.json": b'{"log_history":' + b'[{"a":' * 50_000,
    "numbers.jsonl": b'{"step": 1, "loss": ' + b"9" * 100_000 + b'}\n{"step": 2, "loss": 1e999999999}\n',
    "either.json": b'{"log_history": [{"step": 1, "loss": Infinity}, {"step": 1, "loss": -Infinity}]}',
    "columns.csv": b",".join(b"c%d" % number for number in range(100_000)) + b"\n" + b"1," * 99_999 + b"1\n",
    "columns.jsonl": b"{" + b",".join(b'"c%d": 1' % number for number in range(30_000)) + b"}\n",
    "words.csv": b"step,loss\n" + b"x,y\n" * 1_000_000,
    "line.csv": b"x," * 5_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_made_to_break_a_reader(tmp_path: Path, name: str) -> None:
    begin = time.process_time()
    read_or_refuse(tmp_path / name, HOSTILE[name])
    assert time.process_time() - begin < 10.0


def test_a_header_longer_than_what_is_looked_at_first_is_read_whole(tmp_path: Path) -> None:
    names = [f"layer_{number}_attention_output_dense_weight_norm" for number in range(2_000)]
    path = tmp_path / "wide.csv"
    rows = "".join(f"{step}," + "0.5," * 2_000 + f"{4 / step}\n" for step in range(1, 4))
    path.write_text(",".join(["step", *names, "loss"]) + "\n" + rows)
    loss = read_foreign(path).history.get("train/loss")
    assert loss is not None
    assert loss.raw()[1].tolist() == [4.0, 2.0, 4 / 3]


@pytest.mark.parametrize(
    "name", ["nanogpt.log", "keras.csv", "flat.jsonl", "tensorboard", "tensorboard_folders", "wandb_offline"]
)
def test_who_waits_hears_how_far_it_is(name: str) -> None:
    heard: list[float] = []
    read_foreign(FORMATS / name, progress=heard.append)
    assert heard == sorted(heard)
    assert 0.9 < heard[-1] <= 1.0


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    """Under whatever name: a run of Weights & Biases, or what lies beside a log."""
    names = [
        "run-x.wandb",
        "trainer_state.json",
        "events.out.tfevents.1",
        "metrics.csv",
        "log.jsonl",
        "x.db",
        "x.parquet",
    ]
    for name in names:
        folder = tmp_path / f"only-{name}"
        folder.mkdir()
        os.mkfifo(folder / name)
    beside = tmp_path / "beside"
    shutil.copytree(FORMATS / "huggingface", beside)
    for name in ("config.json", "model.safetensors"):
        os.mkfifo(beside / name)
    shutil.copy(FORMATS / "mlflow.db", tmp_path)
    os.mkfifo(tmp_path / "mlflow.db-wal")
    run = tmp_path / "runs" / "run"
    (run / "metrics").mkdir(parents=True)
    (run / "meta.yaml").write_text("run_name: x\n")
    os.mkfifo(run / "metrics" / "loss")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(20)
    try:
        for name in names:
            for path in (tmp_path / f"only-{name}", tmp_path / f"only-{name}" / name):
                with pytest.raises(UsageError):
                    read_foreign(path)
        assert read_foreign(beside).history.has("train/loss")
        assert read_foreign(tmp_path / "mlflow.db").history.has("train/loss")
        with pytest.raises(DataError):
            read_foreign(tmp_path / "runs")
        for path in (Path("/dev/zero"), Path("/dev/null")):
            with pytest.raises(UsageError):
                read_foreign(path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="no such file"):
        read_foreign(tmp_path / "loop")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "again").symlink_to("../folder")
    with pytest.raises(UsageError, match="holds no log"):
        read_foreign(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs another user")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,2\n")
    path.chmod(0)
    code = (
        "import os, sys; from pathlib import Path; from trimtab.errors import UsageError\n"
        "from trimtab.runs.importers import read_foreign\n"
        "os.getuid() or os.setresuid(65534, 65534, 65534)\n"
        "try: read_foreign(Path(sys.argv[1]))\n"
        "except UsageError as error: print(error)"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be read (Permission denied)" in done.stdout


ROWS = "run_uuid TEXT, key TEXT, value REAL, step INT, timestamp INT, is_nan INT"
ENDLESS = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS run_uuid, 'loss' AS key, "
    "1.0 AS value, x AS step, x AS timestamp, 0 AS is_nan, x AS name FROM c"
)


@pytest.mark.parametrize(
    ("made", "readable"),
    [
        ([f"CREATE VIEW metrics AS {ENDLESS}"], False),
        ([f"CREATE TABLE metrics({ROWS})", f"CREATE VIEW runs AS {ENDLESS}"], True),
        ([f"CREATE TABLE metrics({ROWS})", "CREATE TRIGGER t AFTER INSERT ON metrics BEGIN SELECT 1; END"], True),
        ([f"CREATE TABLE metrics({ROWS.replace('key TEXT', 'key TEXT AS (hex(zeroblob(300000000)))')})"], False),
    ],
)
def test_what_a_database_would_run_is_not_run(tmp_path: Path, made: list[str], readable: bool) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        for command in made:
            connection.execute(command)
        for step in range(1, 6 if readable else 1):
            connection.execute("INSERT INTO metrics VALUES('run', 'loss', ?, ?, ?, 0)", (4 / step, step, step))
    connection.close()
    before, begin = path.read_bytes(), time.process_time()
    if readable:
        assert read_foreign(path).history.last_step == 5
    else:
        with pytest.raises(DataError, match="database without metrics"):
            read_foreign(path)
    assert time.process_time() - begin < 2.0
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


class Payload:
    """What unpickling it would do, is seen."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("EXECUTED",)


def test_a_pickle_in_a_parquet_schema_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As old versions of pyarrow did for extension types (CVE-2023-47248)."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload()),
    }
    schema = pyarrow.schema(
        [pyarrow.field("step", pyarrow.int64()), pyarrow.field("loss", pyarrow.float64(), metadata=extension)]
    )
    table = pyarrow.table({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}, schema=schema)
    parquet.write_table(table, tmp_path / "log.parquet")
    monkeypatch.chdir(tmp_path)
    read_or_refuse(tmp_path / "log.parquet", (tmp_path / "log.parquet").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_a_long_text_in_each_row_of_parquet_is_held_once(tmp_path: Path) -> None:
    """A file of a few kilobytes would be two gigabytes of texts."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    long = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), pyarrow.array(["x" * 2**21]))
    table = pyarrow.table({"step": range(1000), "loss": [1000 / (1 + step) for step in range(1000)], "text": long})
    path = tmp_path / "log.parquet"
    parquet.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    code = (
        "import sys; from pathlib import Path; import pyarrow; from trimtab.runs.importers import read_foreign\n"
        "assert read_foreign(Path(sys.argv[1])).history.last_step == 999\n"
        "print(pyarrow.default_memory_pool().max_memory() >> 20)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100


@pytest.mark.parametrize(
    "header",
    [
        [1, 2],
        {"a": {"shape": [[0] * 9, 10**12]}},
        {"a": {"shape": ["a", 10**12]}},
        {"a": {"shape": [2] * 100_000}},
        {"a": {"shape": [-1, 5]}},
        {"a": {}},
        {"a": 1},
    ],
)
def test_a_model_beside_a_log_that_claims_the_impossible(tmp_path: Path, header: Any) -> None:
    shutil.copy(FORMATS / "huggingface" / "trainer_state.json", tmp_path)
    content = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["XForCausalLM"], "vocab_size": 10**300}))
    facts = read_foreign(tmp_path).facts
    assert "parameters" not in facts
    assert "tokenizer" not in facts


def test_names_are_harmless_in_a_terminal_and_in_a_page(tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>\x1b[31m\x1b]0;title\x07\u202egnp\r\nnext: rm </script><script>alert(2)</script>"
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(json.dumps({"step": s, "loss": 3 / s + 1, bad: 1.0, f"val_{bad}": 2}) + "\n" for s in range(1, 40))
    )
    case, imported = open_foreign_case(path)
    page = render_html(gather(None, case, diagnose(case, "log")))
    for text in (*imported.names, *imported.names.values(), *imported.notes, page):
        assert not {"\x1b", "\x07", "\u202e", "\r"} & set(text)
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "onerror" in page, "the name is shown all the same"


LARGE = 1 << 30
"""Bytes of a file in the formats that grow so large; an eighth of it of what only is made to be large."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "state", "one_line", "braces", "printed", "events"])
def test_a_large_file_needs_little_memory(tmp_path: Path, kind: str) -> None:
    part = {
        "csv": "".join(f"{step % 97 / 7:.6f},1e-3,{step % 31}\n" for step in range(20_000)),
        "jsonl": "".join(f'{{"step": {step}, "loss": {step % 97 / 7:.6f}, "lr": 0.001}}\n' for step in range(20_000)),
        "state": "".join(f'  {{"loss": {step % 97 / 7:.6f}, "step": {step}}},\n' for step in range(20_000)),
        "one_line": "x," * 500_000,
        "braces": '{"a":[' * 100_000,
        "printed": "".join(f"iter {step}: loss {step % 97 / 7:.4f}, time 32.5ms\n" for step in range(20_000)),
        "events": next((FORMATS / "tensorboard").iterdir()).read_bytes().decode("latin-1"),
    }[kind]
    path = tmp_path / "log"
    with open(path, "w", encoding="latin-1") as file:
        file.write({"csv": "loss,lr,x\n", "state": '{"log_history": [\n'}.get(kind, ""))
        for _ in range((LARGE if kind in ("csv", "jsonl", "printed", "events") else LARGE // 8) // len(part)):
            file.write(part)
    code = (
        "import re, sys; from pathlib import Path; from trimtab.errors import TrimtabError\n"
        "from trimtab.runs.importers import read_foreign\n"
        "try: read_foreign(Path(sys.argv[1]))\n"
        "except TrimtabError as error: print(type(error).__name__)\n"
        # getrusage would give the peak of the process that started this one, if that was higher.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "print(int(peak[1]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    path.unlink()
    assert int(done.stdout.split()[-1]) < 220, done.stdout
