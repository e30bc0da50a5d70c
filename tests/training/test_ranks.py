"""Two real processes: what each measured comes together on the first, and the quick one never waits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RANK = """
import json, sys, time
import torch.distributed as dist
from trimtab.training.ranks import RankStatistics
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
statistics = RankStatistics(["step_seconds", "only_one"])
dist.barrier()
seconds, found = [], []
for step in range(1, 21):
    if rank == 1 and step == 5:
        time.sleep(1.0)  # a slow rank
    begun = time.perf_counter()
    statistics.begin(step, {"step_seconds": 10.0 * rank + step} | ({"only_one": 7.0} if rank else {}))
    found += statistics.arrived()
    seconds.append(time.perf_counter() - begun)
early = len(found)
found += statistics.drain(20.0)
rows = [[step, *(part.tolist() for part in reduced)] for step, reduced in found]
print(json.dumps({"worst": max(seconds), "early": early, "rows": rows, "pending": statistics.pending}))
dist.barrier()
dist.destroy_process_group()
"""


def test_no_rank_waits_for_another(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = []
    for process in ranks:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(json.loads(out))
    first, second = said
    assert first["worst"] < 0.5, "of a second that the other one was late"
    assert first["early"] < 20
    assert [row[0] for row in first["rows"]] == list(range(1, 21))
    for step, low, mean, high, lowest, highest in first["rows"]:
        assert (low, mean, high) == ([step, 7.0], [step + 5.0, 7.0], [step + 10.0, 7.0])
        assert (lowest, highest) == ([0, 1], [1, 1])
    assert second["rows"] == []
    assert second["pending"] == 0
