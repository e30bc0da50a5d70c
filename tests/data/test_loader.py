from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data import DataPlan, Loader, Order, PackedSequences
from trimtab.errors import DataError, ResourceError

NUM_SEQUENCES = 13


def sequences() -> PackedSequences:
    return PackedSequences(np.arange(4 * NUM_SEQUENCES + 1), np.array([0, 7, 30]), 4, num_bytes=4 * NUM_SEQUENCES + 1)


def loader(prefetch: int = 3, num_sequences: int = NUM_SEQUENCES) -> Loader:
    return Loader(sequences(), Order(num_sequences, seed=5), 3, prefetch=prefetch)


def data_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "trimtab-data"]


def taken(given_loader: Loader, windows: list[int]) -> tuple[list[int], int]:
    shown, position = [], 0
    for num in windows:
        window = given_loader.take(num)
        assert len(window.batches) == num
        assert window.seconds_waited >= 0.0
        shown += [i for batch in window.batches for i in batch.sample_ids_B.tolist()]
        position = window.next_position
    return shown, position


@settings(max_examples=25, deadline=None)
@given(
    windows=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    prefetch=st.integers(1, 7),
    start=st.integers(0, 40),
    excluded=st.tuples(st.integers(0, 40), st.integers(1, 20)),
)
def test_batches_are_those_of_the_order_however_they_are_taken(
    windows: list[int], prefetch: int, start: int, excluded: tuple[int, int]
) -> None:
    plan = DataPlan().excluding(excluded[0], sum(excluded))
    order = Order(NUM_SEQUENCES, seed=5)
    positions, next_position = order.advance(start, 3 * sum(windows), plan)
    subject = loader(prefetch)
    subject.start(start, plan)
    try:
        assert taken(subject, windows) == (order.sequences_at(positions).tolist(), next_position)
        assert not set(positions.tolist()) & set(range(excluded[0], sum(excluded)))
    finally:
        subject.close()


def test_a_restart_goes_on_as_if_nothing_had_happened() -> None:
    subject = loader()
    subject.start(0, DataPlan())
    whole, _ = taken(subject, [2, 2, 2])
    subject.start(0, DataPlan())
    first, position = taken(subject, [2])
    subject.start(position, DataPlan())
    rest, _ = taken(subject, [2, 2])
    subject.close()
    assert first + rest == whole


def test_no_thread_is_left() -> None:
    subject = loader(prefetch=1)
    subject.start(0, DataPlan())
    subject.start(9, DataPlan())
    assert len(data_threads()) == 1
    time.sleep(0.01)  # the queue is full, and the thread stands still
    subject.close()
    subject.close()
    assert data_threads() == []


def test_the_thread_does_not_run_ahead_without_bound() -> None:
    made: list[int] = []

    source = sequences()
    original = source.batch

    def counted(indices: np.ndarray, batch_size: int | None = None, occurrences: object = None) -> object:
        made.append(len(indices))
        return original(indices, batch_size)

    source.batch = counted  # type: ignore[method-assign, assignment]
    subject = Loader(source, Order(NUM_SEQUENCES, seed=5), 3, prefetch=4)
    subject.start(0, DataPlan())
    time.sleep(0.05)
    assert len(made) == 4
    subject.take(1)
    time.sleep(0.05)
    assert len(made) == 5
    subject.close()


def test_what_fails_in_the_thread_is_raised_where_batches_are_taken() -> None:
    subject = loader(num_sequences=10_000)  # an order of more sequences than there are
    subject.start(0, DataPlan())
    for _ in range(2):
        with pytest.raises(ResourceError, match="prepares data failed") as failure:
            taken(subject, [50])
        assert isinstance(failure.value.__cause__, IndexError)
    subject.close()
    assert data_threads() == []


def test_our_own_errors_come_through_as_they_are() -> None:
    source = sequences()

    def fail(indices: np.ndarray, batch_size: int | None = None, occurrences: object = None) -> object:
        raise DataError("shard 3 is torn")

    source.batch = fail  # type: ignore[method-assign, assignment]
    subject = Loader(source, Order(NUM_SEQUENCES, seed=5), 3, prefetch=4)
    subject.start(0, DataPlan())
    with pytest.raises(DataError, match="shard 3"):
        subject.take(1)
    subject.close()


def test_closing_frees_one_who_waits() -> None:
    source, waiting = sequences(), threading.Event()

    def slow(indices: np.ndarray, batch_size: int | None = None, occurrences: object = None) -> object:
        waiting.wait(5)
        raise DataError("never mind")

    source.batch = slow  # type: ignore[method-assign, assignment]
    subject = Loader(source, Order(NUM_SEQUENCES, seed=5), 3, prefetch=1)
    subject.start(0, DataPlan())
    outcome: list[BaseException] = []

    def take() -> None:
        try:
            subject.take(1)
        except RuntimeError as error:
            outcome.append(error)

    taker = threading.Thread(target=take)
    taker.start()
    time.sleep(0.02)
    threading.Timer(0.05, waiting.set).start()
    subject.close()
    taker.join(2)
    assert len(outcome) == 1
    assert "closed" in str(outcome[0])


def test_taking_before_the_start_says_so() -> None:
    with pytest.raises(RuntimeError, match="start the loader"):
        loader().take(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_pinned() -> None:
    subject = Loader(sequences(), Order(NUM_SEQUENCES, seed=5), 3, prefetch=2, pin_memory=True)
    subject.start(0, DataPlan())
    assert subject.take(1).batches[0].tokens_BT.is_pinned()
    subject.close()
