"""Whatever bytes a file holds, reading it as a log gives a history or one of our errors, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import TrimtabError
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
NUM_BYTES = 1 << 27
FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
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
    name=st.sampled_from(["tensorboard", "wandb_offline", "mlflow.db", "trackio.db", "trackio.parquet", "neptune"]),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    end=st.floats(0.0, 1.0) | st.just(1.0),
)
def test_any_damage_of_a_binary_log(tmp_path: Path, name: str, places: list[tuple[float, int]], end: float) -> None:
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
        for _ in range(NUM_BYTES // len(part)):
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
    assert int(done.stdout.split()[-1]) < 200, done.stdout
