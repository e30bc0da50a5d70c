"""A logger beside a busy GPU: a call does not wait for it, and takes the value as it was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from trimtab import TrainingLogger
from trimtab.runs.columns import columns_of_record

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def test_a_call_does_not_wait_for_the_device(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        value = torch.full((), 3.0, device="cuda")
        logger.log({"warm": value}, step=1)  # the first takes pinned memory
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000_000)  # about a second
        value += 1
        begun = time.perf_counter()
        logger.log({"loss": value, "grad_norm": value * 2}, step=1)
        logger.log_histogram("weights", torch.arange(10.0, device="cuda") * value, step=1)
        seconds = time.perf_counter() - begun
        value += 1
        assert seconds < 0.05
        assert not torch.cuda.current_stream().query()
    found = columns_of_record(logger.run.record)
    assert found["train/loss"][1].tolist() == [4.0]
    assert found["grad_norm"][1].tolist() == [8.0]
    assert "memory_bytes" in found
