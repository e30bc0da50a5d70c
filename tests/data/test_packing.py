from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data import PackedSequences
from trimtab.signals import IGNORED

lengths_of_documents = st.lists(st.integers(1, 9), min_size=1, max_size=12).filter(lambda n: sum(n) >= 2)


def packed(lengths: list[int], sequence_length: int) -> PackedSequences:
    """Documents of so many tokens each; the token at position p of the stream is p + 1."""
    starts = np.cumsum([0, *lengths[:-1]])
    tokens = np.arange(1, sum(lengths) + 1, dtype=np.uint16)
    return PackedSequences(tokens, starts, sequence_length, num_bytes=sum(lengths))


@given(lengths=lengths_of_documents, length=st.integers(2, 11), batch_size=st.integers(1, 4))
def test_every_token_but_the_first_is_a_counted_target_once(lengths: list[int], length: int, batch_size: int) -> None:
    sequences = packed(lengths, length)
    targets: list[int] = []
    for start in range(0, len(sequences), batch_size):
        indices = np.arange(start, min(start + batch_size, len(sequences)))
        batch = sequences.batch(indices, batch_size)
        counted = batch.targets != IGNORED
        assert batch.targets.shape == (batch_size, length)
        assert batch.count == int(counted.sum())
        assert torch.equal(batch.tokens_BT[counted] + 1, batch.targets[counted])
        targets += batch.targets[counted].tolist()
    assert targets == list(range(2, sum(lengths) + 1))


@given(lengths=lengths_of_documents, length=st.integers(2, 11))
def test_documents_and_positions_are_those_of_the_stream(lengths: list[int], length: int) -> None:
    sequences = packed(lengths, length)
    batch = sequences.batch(np.arange(len(sequences)), len(sequences) + 1)
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    for row in range(len(sequences)):
        place = 0
        for column in range(length):
            position = row * length + column
            if position + 1 >= sequences.num_tokens:
                assert batch.document_ids_BT[row, column] == -1
                assert batch.positions_BT[row, column] == 0
                continue
            assert batch.document_ids_BT[row, column] == document_of[position]
            begins = column == 0 or document_of[position] != document_of[position - 1]
            place = 0 if begins else place + 1
            assert batch.positions_BT[row, column] == place
    assert batch.sample_ids_B.tolist() == [*range(len(sequences)), -1]
    assert (batch.document_ids_BT[-1] == -1).all()
    assert (batch.targets[-1] == IGNORED).all()


def test_the_types_are_those_of_the_contract() -> None:
    batch = packed([4, 5], 4).batch(np.array([1, 0, 1]))
    assert [tensor.dtype for tensor in (batch.tokens_BT, batch.targets, batch.sample_ids_B)] == [torch.int64] * 3
    assert [tensor.dtype for tensor in (batch.document_ids_BT, batch.positions_BT)] == [torch.int32] * 2
    assert batch.sample_ids_B.tolist() == [1, 0, 1]


def test_lengths() -> None:
    sequences = packed([4, 6], 4)
    assert (len(sequences), sequences.num_tokens, sequences.num_bytes, sequences.num_documents) == (
        3,
        10,
        10,
        2,
    )


def test_sequences_that_are_not_there_are_refused() -> None:
    sequences = packed([9], 4)
    for indices in ([2], [-1]):
        with pytest.raises(IndexError, match="below 2"):
            sequences.batch(np.array(indices))
    with pytest.raises(IndexError, match="do not fit"):
        sequences.batch(np.array([0, 1]), 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 90), st.integers(1, 12), st.data())
def test_sliding_sequences_ask_for_every_target_once(num_tokens: int, length: int, data: st.DataObject) -> None:
    """Each with as many tokens before it as the stride leaves, where the text has them."""
    stride = data.draw(st.integers(1, length))
    tokens = np.arange(num_tokens, dtype=np.uint16)
    starts = np.array([0, num_tokens // 2]) if num_tokens >= 2 * 2 else np.array([0])
    whole = PackedSequences(tokens, starts, length, num_bytes=num_tokens)
    sliding = whole.sliding(stride)
    batch = sliding.batch(np.arange(len(sliding)))
    counted = batch.targets != IGNORED
    assert sorted(batch.targets[counted].tolist()) == list(range(1, num_tokens))
    assert batch.count == num_tokens - 1
    for row, place in counted.nonzero().tolist():
        target = int(batch.targets[row, place])
        assert int(batch.tokens_BT[row, place]) == target - 1
        assert place + 1 >= min(target, length - stride + 1)
    assert [len(whole.sliding(length)), len(whole)] == [len(whole)] * 2
    same = whole.sliding(length).batch(np.arange(len(whole)))
    assert torch.equal(same.targets, whole.batch(np.arange(len(whole))).targets)


def test_a_stride_beyond_the_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 4"):
        PackedSequences(np.arange(9, dtype=np.uint16), np.array([0]), 4, num_bytes=9).sliding(5)
