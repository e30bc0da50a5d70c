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

LEFT_ALONE = """
import json, os, sys, time
import torch
import torch.distributed as dist
from trimtab.training import ranks
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
alone, both, slow = ranks.RankStatistics(["a"], [0]), ranks.RankStatistics(["a", "b"]), ranks.RankStatistics(["a"])
row = {"a": 1.0, "b": 2.0}
alone.begin(1, row)
both.begin(1, row)
found = {"alone": alone.drain(20.0), "both": both.drain(20.0)}
if rank:
    while not os.path.exists(sys.argv[2] + ".begun"):
        time.sleep(0.01)
    assert (found, alone.pending) == ({"alone": [], "both": []}, 0)
    os._exit(9)
ranks.MOST_PENDING = 50
for step in range(1, 201):
    slow.begin(step, row)
pending = slow.pending
open(sys.argv[2] + ".begun", "w").close()
junk = [torch.full((2,), 12345.0, dtype=torch.float64) for _ in range(1000)]
del junk
end = time.perf_counter() + 20.0
for step in range(2, 2000):
    both.begin(step, row)
    for name, statistics in (("both", both), ("alone", alone)):
        found[name] += statistics.arrived()
    if not both.pending and time.perf_counter() > end - 19.0 or time.perf_counter() > end:
        break
    time.sleep(0.01)
left = both.pending
begun = time.perf_counter()
found["both"] += both.drain(5.0)
alone.begin(2, row)
found["alone"] += alone.drain(5.0)
rows = {name: [[step, *(part.tolist() for part in reduced)] for step, reduced in one] for name, one in found.items()}
seconds = time.perf_counter() - begun
print(json.dumps({"pending": pending, "left": left, "rows": rows, "seconds": seconds}), flush=True)
os._exit(0)
"""


def started(script: str, meet: Path) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(meet)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def test_a_rank_that_is_killed_gives_no_values(tmp_path: Path) -> None:
    first, second = started(LEFT_ALONE, tmp_path / "meet")
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    _, err = second.communicate(timeout=120)
    assert second.returncode == 9, err
    said = json.loads(out)
    assert said["pending"] == 50, "of a rank that stands still"
    assert said["rows"]["both"] == [[1, [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0, 0], [0, 0]]]
    assert [row[0] for row in said["rows"]["alone"]] == [1, 2]
    assert said["left"] == 0
    assert said["seconds"] < 4.0


def test_no_rank_waits_for_another(tmp_path: Path) -> None:
    ranks = started(RANK, tmp_path / "meet")
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
