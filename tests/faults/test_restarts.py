"""`--max-restarts`: a training that is killed goes on by itself, to the same bits."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from processes import Cli, events, wait_for


@pytest.mark.parametrize("kills", [(60,), pytest.param((60, 150), marks=pytest.mark.slow)])
def test_a_killed_training_is_begun_again_to_the_same_bits(
    cli: Cli, whole: tuple[object, str], kills: tuple[int, ...]
) -> None:
    run = cli.folder / "run"
    process = cli.start("train", cli.config, "--run", run, "--max-restarts", "2")
    for number, step in enumerate(kills, start=1):
        wait_for(run / "record.jsonl", f'"last_step":{step}', process)
        holder = json.loads((run / "lock.json").read_text())["pid"]
        assert holder != process.pid, "the supervisor does not train"
        os.kill(holder, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while len(events(run, "RunStarted")) <= number and time.monotonic() < deadline:
            time.sleep(0.02)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "killed by SIGKILL; restart 1 of 2: goes on from step 50" in output
    assert f"begun again by the supervisor: killed by SIGKILL; restart {len(kills)} of 2" in output
    assert cli.same_bits(run, whole[0]) == "same"  # type: ignore[arg-type]
    restarts = [json.loads(line)["facts"].get("restart") for line in events(run, "RunStarted")]
    assert restarts == [None, "killed by SIGKILL; restart 1 of 2", "killed by SIGKILL; restart 2 of 2"][: len(restarts)]
    assert len(restarts) == 1 + len(kills)
    assert "attempt 2 by the supervisor: killed by SIGKILL; restart 1 of 2" in cli.run("show", run)


@pytest.mark.slow
def test_an_interrupted_training_is_not_begun_again_and_a_mistake_neither(cli: Cli) -> None:
    run = cli.folder / "run"
    process = cli.start("train", cli.config, "--run", run, "--max-restarts", "2")
    wait_for(run / "record.jsonl", '"last_step":60', process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert len(events(run, "RunStarted")) == 1
    assert "SIGINT received, all is saved" in events(run, "RunEnded")[0]
    output = cli.run("train", cli.config, "training.steps=10000", "--run", run, "--max-restarts", "2", expect=2)
    assert "restart" not in output
    assert cli.run("resume", run, "--max-restarts", "2")
