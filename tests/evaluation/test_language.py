from __future__ import annotations

import json
import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trimtab.data import LabelledTexts, Ragged
from trimtab.data.packing import PackedSequences
from trimtab.errors import DataError
from trimtab.evaluation import calculate_perplexity, evaluate, spread_indices
from trimtab.model import Decoder, init_weights
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy, perplexity_of
from trimtab.signals import IGNORED

END = 256
LENGTH = 32
CPU = torch.device("cpu")
TOKEN_BYTES = np.array([1] * 256 + [0])
TASK = CausalLanguageModelingTask(CrossEntropy(), TOKEN_BYTES)


def packed() -> PackedSequences:
    """Three pieces of a real file as documents of bytes, each followed by the end token."""
    text = Path(json.__file__).read_bytes()
    documents = [[*piece, END] for piece in (text[:300], text[300:310], text[310:1000])]
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    return PackedSequences(np.concatenate(documents).astype(np.uint16), starts, LENGTH, num_bytes=1000)


def decoder(dropout: float = 0.0) -> Decoder:
    model = Decoder(
        vocabulary_size=257,
        max_positions=LENGTH,
        num_layers=2,
        hidden_size=16,
        num_heads=2,
        feed_forward_size=32,
        document_mask=True,
        residual_dropout=dropout,
    )
    init_weights(model, standard_deviation=0.3, num_layers=2, seed=2)
    return model


SEQUENCES, MODEL = packed(), decoder()
evaluate_all = partial(evaluate, MODEL, TASK, SEQUENCES, device=CPU)


def test_equal_to_one_token_at_a_time() -> None:
    metrics = evaluate_all(batch_size=5)
    nats, right, num_bytes, count = 0.0, 0, 0, 0
    for index in range(len(SEQUENCES)):
        batch = SEQUENCES.batch(np.array([index]), 1)
        with torch.no_grad():
            logits_BTV = MODEL(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT).logits
        for logits_V, target in zip(logits_BTV[0].double(), batch.targets[0].tolist(), strict=True):
            if target != IGNORED:
                nats -= logits_V.log_softmax(0)[target].item()
                right += int(logits_V.argmax()) == target
                num_bytes += target != END
                count += 1
    assert count == SEQUENCES.num_tokens - 1
    assert metrics == {
        "loss": pytest.approx(nats / count, rel=1e-6),
        "accuracy": right / count,
        "perplexity": pytest.approx(math.exp(nats / count), rel=1e-5),
        "bits_per_byte": pytest.approx(nats / math.log(2) / num_bytes, rel=1e-6),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 16, 64])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    assert evaluate_all(batch_size=batch_size) == pytest.approx(evaluate_all(batch_size=4), rel=1e-6)


def test_smoothing_and_penalties_are_no_part_of_the_loss() -> None:
    smoothed = CausalLanguageModelingTask(CrossEntropy(label_smoothing=0.2, z_loss=1.0))
    metrics = evaluate(MODEL, smoothed, SEQUENCES, batch_size=8, device=CPU)
    assert metrics["loss"] == pytest.approx(evaluate_all(batch_size=8)["loss"], rel=1e-6)
    assert "bits_per_byte" not in metrics


def test_modes_and_gradients_are_left_alone() -> None:
    model = decoder(dropout=0.5)
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    first = evaluate(model, TASK, SEQUENCES, batch_size=8, device=CPU)
    assert first["loss"] == pytest.approx(evaluate_all(batch_size=8)["loss"], rel=1e-6)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_come_back_after_an_error() -> None:
    model = decoder()
    task = CausalLanguageModelingTask(CrossEntropy(), np.ones(3, dtype=np.int64))
    with pytest.raises(IndexError):
        evaluate(model, task, SEQUENCES, batch_size=8, device=CPU)
    assert model.training
    assert torch.is_grad_enabled()


def test_autocast_is_used() -> None:
    whole = evaluate_all(batch_size=8)["loss"]
    narrow = evaluate_all(batch_size=8, autocast=partial(torch.autocast, "cpu", torch.bfloat16))["loss"]
    assert narrow != whole
    assert narrow == pytest.approx(whole, rel=0.02)
    assert evaluate_all(batch_size=8, autocast=nullcontext)["loss"] == whole


def test_a_part_is_spread_over_the_whole() -> None:
    assert len(SEQUENCES) == 32
    assert spread_indices(SEQUENCES, None).tolist() == list(range(32))
    assert spread_indices(SEQUENCES, 10**9).tolist() == list(range(32))
    assert spread_indices(SEQUENCES, 4 * LENGTH + 5).tolist() == [0, 8, 16, 24]
    assert spread_indices(SEQUENCES, 1).tolist() == [0]
    part = evaluate_all(batch_size=3, max_tokens=5 * LENGTH)
    assert part == pytest.approx(evaluate_all(batch_size=64, max_tokens=5 * LENGTH), rel=1e-6)
    assert part["loss"] != evaluate_all(batch_size=64)["loss"]


def test_as_many_short_texts_are_taken_as_hold_the_tokens_asked_for() -> None:
    lengths = np.arange(1000) % 13 + 3
    starts = np.append(0, np.cumsum(lengths))
    texts = LabelledTexts(
        Ragged(np.zeros(starts[-1], np.int64), starts), np.zeros(1000, np.int64), end_of_text=0, sequence_length=256
    )
    taken = spread_indices(texts, 2048)
    assert int(lengths[taken].sum()) == pytest.approx(2048, rel=0.05)
    assert len(spread_indices(texts, int(lengths.sum()))) == 1000
    assert len(spread_indices(texts, int(lengths.sum()) - 9)) < 1000


def test_nothing_to_count_is_an_error() -> None:
    empty = PackedSequences(np.array([1], dtype=np.uint16), np.array([0]), LENGTH, num_bytes=1)
    with pytest.raises(DataError, match="nothing to evaluate on"):
        evaluate(MODEL, TASK, empty, batch_size=2, device=CPU)


def test_perplexity_of_batches_and_of_pairs() -> None:
    expected = evaluate_all(batch_size=8)["perplexity"]
    batches = [SEQUENCES.batch(np.arange(start, start + 8), 8) for start in range(0, 32, 8)]
    assert calculate_perplexity(MODEL, batches, device="cpu") == pytest.approx(expected, rel=1e-6)

    table = nn.Embedding(257, 257)
    pairs = [(batch.tokens_BT, batch.targets) for batch in batches]
    logits_NV = torch.cat([table(tokens_BT).flatten(0, 1) for tokens_BT, _ in pairs])
    targets_N = torch.cat([targets_BT.flatten() for _, targets_BT in pairs])
    mean = nn.functional.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED).item()
    assert calculate_perplexity(table, pairs, device=CPU) == pytest.approx(math.exp(mean), rel=1e-5)
    with pytest.raises(DataError):
        calculate_perplexity(table, [], device=CPU)


def test_perplexity_of_a_huge_loss_is_infinite() -> None:
    assert perplexity_of(1.0) == math.e
    assert perplexity_of(1e4) == math.inf
    assert math.isnan(perplexity_of(math.nan))
