"""Text larger than the memory is prepared, and read, in memory that does not grow with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trimtab.data.minhash import release

CHILD = """
import json, resource, sys
import numpy as np
from trimtab.config import DataConfig
from trimtab.data import DataPlan, prepare_data

def own():
    # Without pages of mapped files, which the system takes back as it likes.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024

path, near = sys.argv[1:]
config = DataConfig.model_validate({
    "source": {"name": "jsonl", "path": path}, "tokenizer": {"name": "bytes"}, "sequence_length": 512,
    "duplicates": {"near": near},
})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = prepare_data(config, seed=0)
prepared = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = own()
loader = data.loader(16, prefetch=4, pin_memory=False)
loader.start(0, DataPlan())
for _ in range(200):
    loader.take(1)
loader.close()
after = own()
print(json.dumps({"bytes": data.facts["training"]["bytes"], "documents": data.facts["training"]["documents"],
                  "prepared": (prepared - before) * 1024, "read": after - begun,
                  "sequences": len(data.training),
                  "near": sum(data.facts["duplicates"]["near"][side] for side in ("training", "leaking"))}))
"""


def grown(tmp_path: Path, megabytes: int, near: str) -> dict[str, int]:
    """Write `megabytes` of JSON Lines, prepare them in a process of its own, and say by how much its peak grew."""
    path = tmp_path / "large.jsonl"
    line_bytes = 20_000
    block = " ".join(f"word{number % 977}" for number in range(line_bytes // 8))
    with path.open("w") as stream:
        for number in range(megabytes * 1_000_000 // len(block)):
            stream.write(json.dumps({"text": f"{number} {block}"}) + "\n")
    environment = os.environ | {"TRIMTAB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), near], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    assert found["bytes"] > 0.9 * megabytes * 1e6
    return found


@pytest.mark.parametrize(
    "megabytes, bound",
    [(60, 60e6), pytest.param(5_000, 200e6, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])],
)
def test_memory_does_not_grow_with_the_text(tmp_path: Path, megabytes: int, bound: float) -> None:
    found = grown(tmp_path, megabytes, "report")
    assert found["prepared"] < bound
    assert found["read"] < 20e6 + 4 * found["sequences"]  # their order
    assert found["near"] == found["documents"]  # all are nearly the same, on one side or the other


def test_what_was_read_of_a_mapped_file_is_given_back(tmp_path: Path) -> None:
    def of_files() -> int:
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile:")]
        return int(line.split()[1]) * 1024

    (tmp_path / "signatures").write_bytes(b"\1" * 40_000_000)
    mapped = np.memmap(tmp_path / "signatures", dtype=np.uint32, mode="r").reshape(-1, 100)
    before = of_files()
    total = int(mapped.sum(dtype=np.uint64))
    assert of_files() - before > 30e6
    release(mapped)
    assert of_files() - before < 10e6
    assert int(mapped.sum(dtype=np.uint64)) == total, "it is read again"
    release(np.zeros(3))  # nothing is mapped
