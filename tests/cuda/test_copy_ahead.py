"""Micro-batches that are copied while the one before them is computed. Under two minutes:

python -m pytest -q tests/cuda/test_copy_ahead.py
"""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.config import load_config
from trimtab.events import Event, StepsEnded
from trimtab.signals import Batch
from trimtab.trainer import Trainer
from trimtab.training.copy_ahead import CopyAhead

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

ROWS, LENGTH, CYCLES = 8, 2_000, 100_000_000
"""`CYCLES` of the device's clock: some 0.05 s."""


def made(number: int) -> Batch:
    """A batch in page-locked memory, of which every value says which it is."""
    tokens_BT = torch.full((ROWS, LENGTH), number)
    documents_BT = tokens_BT.int()
    return Batch(tokens_BT, tokens_BT + 1, documents_BT, documents_BT + 2, tokens_BT[:, 0], 1).pin_memory()


def is_made(batch: Batch, number: int) -> bool:
    pairs = zip(batch.tensors().values(), made(number).tensors().values(), strict=True)
    return all(torch.equal(found.cpu(), wanted) for found, wanted in pairs)


@pytest.mark.parametrize("late", ["the copies", "the computing", "neither"])
def test_the_device_reads_what_was_asked_for_however_late_a_stream_is(late: str) -> None:
    """Between copy and reading, memory is given back and taken by others all the time."""
    copies, batches, read = CopyAhead(torch.device("cuda")), [made(number) for number in range(20)], []
    assert copies._stream is not None
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        if late == "the copies":
            with torch.cuda.stream(copies._stream):
                torch.cuda._sleep(CYCLES)
        sent = copies._sent
        there = copies.take(batch, following)
        assert batch is batches[0] or (sent is not None and there is sent[1]), "what was copied is what is taken"
        torch.full((ROWS, LENGTH), -7, device="cuda")
        if late == "the computing":
            torch.cuda._sleep(CYCLES)
        read.append(there.each(torch.clone))
        del there, sent
        torch.full((ROWS, LENGTH), -8, device="cuda")
    assert all(is_made(batch, number) for number, batch in enumerate(read))


def test_what_was_copied_for_nothing_is_dropped() -> None:
    copies, (a, b, c, d) = CopyAhead(torch.device("cuda")), (made(number) for number in range(4))
    copies.upcoming = lambda: d
    read = [copies.take(a, b).each(torch.clone), copies.take(c).each(torch.clone), copies.take(d).each(torch.clone)]
    assert [is_made(batch, number) for batch, number in zip(read, (0, 2, 3), strict=True)] == [True] * 3


def test_the_host_waits_for_nothing() -> None:
    copies, batches = CopyAhead(torch.device("cuda")), [made(number) for number in range(10)]
    assert copies._stream is not None
    copies.take(batches[0], batches[1])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        begun = time.perf_counter()
        for stream in (copies._stream, torch.cuda.current_stream()):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(10 * CYCLES)
        for batch, following in pairwise(batches[1:]):
            copies.take(batch, following)
        spent = time.perf_counter() - begun
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert spent < 0.5 * (time.perf_counter() - begun)


SETTINGS = (
    "data.tokenizer={name: bytes}",
    "data.sequence_length=64",
    "model={name: decoder, num_layers: 2, hidden_size: 64, num_heads: 2, dropout: {residual: 0.1}}",
    "optimizer={name: adamw, learning_rate: 3e-3}",
    "training={steps: 40, micro_batch_size: 4, compile: off, deterministic: true}",
    "evaluation={every: 20, gap_tokens: 0, max_tokens: 2048, yardsticks: false}",
    "checkpoint.every=10",
)
BF16 = "training.precision.name=bf16"


class Leaves:
    """Ends a run after so many steps, as Ctrl-C would."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step == self.step:
            raise KeyboardInterrupt


def trained(text: Path, run: Path, *settings: str, leaves: int | None = None) -> tuple[list[torch.Tensor], list[Any]]:
    """The weights, and of each micro-batch its samples, as read on the device, and whether it was copied ahead."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    take, seen = CopyAhead.take, []

    def watched(self: CopyAhead, batch: Batch, following: Batch | None = None) -> Batch:
        sent = self._sent
        torch.cuda.set_sync_debug_mode("error")
        try:
            there = take(self, batch, following)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        seen.append((batch.sample_ids_B, there.sample_ids_B.clone(), sent is not None and there is sent[1]))
        return there

    source = f"data.source={{name: text, path: {text}}}"
    trainer = Trainer(load_config(None, [source, *SETTINGS, *settings]), run=run, monitors=[Leaves(leaves)])
    CopyAhead.take = watched  # type: ignore[method-assign]
    try:
        trainer.fit()
    except KeyboardInterrupt:
        return [], seen
    finally:
        CopyAhead.take = take  # type: ignore[method-assign]
    assert trainer.model is not None
    return [one.detach().clone() for one in trainer.model.parameters()], seen


def samples(seen: list[Any]) -> list[list[int]]:
    """In the order in which the device read them."""
    read = [on_device.tolist() for _, on_device, _ in seen]
    assert read == [on_host.tolist() for on_host, _, _ in seen]
    return read


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py", "argparse.py"):
        (folder / name).write_text((Path(os.__file__).parent / name).read_text())
    return folder


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("capture", ["auto", "off"])
def test_the_same_samples_in_the_same_order_and_the_same_weights(
    text: Path, tmp_path: Path, accumulation: int, capture: str
) -> None:
    settings = (BF16, f"training.accumulation={accumulation}", f"training.capture={capture}")
    ahead, seen = trained(text, tmp_path / "ahead", *settings)
    plain, seen_plainly = trained(text, tmp_path / "plain", *settings, "training.copy_ahead=off")
    assert json.loads((tmp_path / "ahead/plan.json").read_text())["capture"]["chosen"] == (capture == "auto")
    assert samples(seen) == samples(seen_plainly)
    assert len(seen) == 40 * accumulation
    in_time = sum(copied for _, _, copied in seen)
    print(f"{in_time} of {len(seen)} were copied ahead")
    assert in_time >= 40 * (accumulation - 1) + 1
    assert not any(copied for _, _, copied in seen_plainly)
    assert all(torch.equal(a, b) for a, b in zip(ahead, plain, strict=True))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_run_that_stops_in_the_middle_goes_on_as_if_nothing_had_been_copied(
    text: Path, tmp_path: Path, accumulation: int
) -> None:
    settings = (BF16, f"training.accumulation={accumulation}")
    whole, _ = trained(text, tmp_path / "whole", *settings, "training.copy_ahead=off")
    trained(text, tmp_path / "run", *settings, leaves=20)
    resumed, _ = trained(text, tmp_path / "run", *settings)
    assert len(resumed) == len(whole)
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole, strict=True))


def test_skipped_steps_and_two_passes_a_step(text: Path, tmp_path: Path) -> None:
    """Overflow at the first loss scales skips steps; sharpness-aware minimization goes twice over their batches."""
    settings = ("training.precision={name: fp16, initial_scale: 1e9}", "training.accumulation=2")
    settings = (*settings, "sharpness={name: sam}")
    ahead, seen = trained(text, tmp_path / "ahead", *settings)
    plain, seen_plainly = trained(text, tmp_path / "plain", *settings, "training.copy_ahead=off")
    record = (tmp_path / "ahead/record.jsonl").read_text()
    assert '"skipped":[1' in record.replace(" ", "")
    assert len(seen) == 40 * 4
    assert samples(seen) == samples(seen_plainly)
    assert all(torch.equal(a, b) for a, b in zip(ahead, plain, strict=True))
