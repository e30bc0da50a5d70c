"""Processes that make batches: the same ones in the same order, and a clear end when one is lost."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from trimtab.config import AugmentationConfig
from trimtab.data import DataPlan, Loader, Order, PackedSequences
from trimtab.data.augmentation import Augmentation
from trimtab.data.mapped import packed_for_process
from trimtab.data.worker import receive, send
from trimtab.errors import DataError, ResourceError


def sequences(tmp_path: Path, broken: bool = False) -> PackedSequences:
    """Mapped from a file."""
    path = tmp_path / "tokens.bin"
    (np.arange(401) % 97).astype(np.uint16).tofile(path)
    tokens = np.asarray(np.memmap(path, dtype=np.uint16, mode="r"))
    return PackedSequences(
        tokens, np.array([0, 7, 90]), 8, num_bytes=401, vocabulary_size=50 if broken else 97, source="tokens.bin"
    )


def loader(tmp_path: Path, workers: int, **more: Any) -> Loader:
    augment = Augmentation(
        AugmentationConfig(replacement=0.3), seed=1, end_of_text=96, vocabulary_size=96, mask_token=97
    )
    given = sequences(tmp_path, **more)
    return Loader(given, Order(len(given), seed=5), 3, prefetch=4, augment=augment, workers=workers)


def seen(given: Loader, windows: list[int]) -> list[Any]:
    found: list[Any] = []
    for number in windows:
        window = given.take(number)
        found.append(window.next_position)
        found += [{name: tensor.tolist() for name, tensor in batch.tensors().items()} for batch in window.batches]
    return found


def test_the_same_batches_in_the_same_order_with_any_number_of_workers(tmp_path: Path) -> None:
    plan = DataPlan().excluding(9, 20)
    told = []
    for workers in (0, 2):
        subject = loader(tmp_path, workers)
        try:
            subject.start(4, plan)
            told.append(seen(subject, [2, 1, 5]))
        finally:
            subject.close()
    assert told[0] == told[1]


def test_mapped_arrays_are_opened_and_not_copied(tmp_path: Path) -> None:
    subject = sequences(tmp_path)
    message = packed_for_process((subject, subject.tokens[100:200], np.arange(3)))
    assert len(message) < 1200
    assert b"tokens.bin" in message
    again, part, plain = pickle.loads(message)
    assert again.tokens.tolist() == subject.tokens.tolist()
    assert part.tolist() == subject.tokens[100:200].tolist()
    assert plain.tolist() == [0, 1, 2]
    assert torch.equal(again.batch(np.array([3])).tokens_BT, subject.batch(np.array([3])).tokens_BT)


def test_a_worker_says_nothing_on_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subject = loader(tmp_path, 1)
    try:
        subject.start(0, DataPlan())
        subject.take(1)
    finally:
        subject.close()
    assert capfd.readouterr() == ("", "")


def started(tmp_path: Path, workers: int = 2) -> tuple[Loader, list[psutil.Process]]:
    before = {child.pid for child in psutil.Process().children()}
    subject = loader(tmp_path, workers)
    subject.start(0, DataPlan())
    subject.take(1)
    children = [child for child in psutil.Process().children() if child.pid not in before]
    assert len(children) == workers
    return subject, children


def test_a_killed_worker_is_named_and_a_frozen_one_does_not_keep_the_loader_from_closing(tmp_path: Path) -> None:
    subject, children = started(tmp_path)
    try:
        children[0].send_signal(signal.SIGSTOP)
        children[1].send_signal(signal.SIGKILL)
        children[0].send_signal(signal.SIGCONT)
        told = rf"data worker \d of 2 \(process {children[1].pid}\) was killed by SIGKILL"
        with pytest.raises(ResourceError, match=told) as caught:
            seen(subject, [20])
        assert caught.value.exit_code == 7
        children[0].send_signal(signal.SIGSTOP)
    finally:
        begun = time.monotonic()
        subject.close()
    assert time.monotonic() - begun < 5
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_what_a_worker_meets_is_raised_as_it_is(tmp_path: Path) -> None:
    subject = loader(tmp_path, 1, broken=True)
    try:
        subject.start(0, DataPlan())
        with pytest.raises(DataError, match=r"tokens\.bin:\d+: token \d+, and the vocabulary has 50"):
            seen(subject, [20])
    finally:
        subject.close()


def test_a_worker_ends_with_the_process_that_asks(tmp_path: Path) -> None:
    """Then its standard input ends: here it is closed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", "from trimtab.data.worker import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        send(process.stdin, pickle.dumps(sys.path))
        send(process.stdin, packed_for_process((sequences(tmp_path), None)))
        send(process.stdin, pickle.dumps((np.array([1]), np.array([1]))))
        assert process.stdout is not None
        answer = receive(process.stdout)
        assert answer is not None
        assert pickle.loads(answer)[0]
        process.stdin.close()
        assert process.wait(timeout=20) == 0
