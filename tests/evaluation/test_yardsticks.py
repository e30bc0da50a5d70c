from __future__ import annotations

import importlib.util
import lzma
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.evaluation.yardsticks import BigramModel, smoothed_unigram, yardsticks


@given(size=st.integers(1, 9), data=st.data())
def test_probabilities_sum_to_one_after_every_token(size: int, data: st.DataObject) -> None:
    tokens = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=60)))
    model = BigramModel(tokens, size)
    for previous in range(size):
        probability = np.exp2(model.log2_probability(np.full(size, previous), np.arange(size)))
        assert (probability > 0).all()
        assert math.isclose(probability.sum(), 1.0, rel_tol=1e-12)
    assert math.isclose(smoothed_unigram(tokens, size).sum(), 1.0, rel_tol=1e-12)


def test_against_a_calculation_by_hand() -> None:
    # Pairs of 0 1 0 1 0 2: (0,1) twice, (1,0) twice, (0,2) once. n1 = 1, n2 = 2, so D = 1/5.
    model = BigramModel(np.array([0, 1, 0, 1, 0, 2]), 4)
    # Kinds before 0, 1, 2: one each, none before 3. n1 = 3, n2 = 0, so D = 1/2 and Pc = 0.5/3 + 1.5/3 / 4.
    seen, unseen = 0.5 / 3 + 0.125, 0.125
    expected = [
        1.8 / 3 + 0.2 * 2 / 3 * seen,
        0.8 / 3 + 0.2 * 2 / 3 * seen,
        0.2 * 2 / 3 * unseen,
        seen,
        unseen,
    ]
    given_pairs = np.array([[0, 1], [0, 2], [0, 3], [3, 1], [2, 3]])
    assert np.allclose(np.exp2(model.log2_probability(given_pairs[:, 0], given_pairs[:, 1])), expected)


def test_they_are_judged_on_every_token_but_the_first() -> None:
    training, validation = np.array([0, 1, 2, 1, 0, 2, 2, 1]), np.array([2, 1, 1, 0])
    token_bytes = np.array([0, 3, 1])
    text = b"abcabc"
    result = yardsticks(training, validation, token_bytes, text)
    bits = -BigramModel(training, 3).log2_probability(validation[:-1], validation[1:]).sum()
    assert result["bigram"] == pytest.approx(bits / 6)
    assert result["unigram"] == pytest.approx(-np.log2(smoothed_unigram(training, 3)[[1, 1, 0]]).sum() / 6)
    assert result["zlib"] == 8 * len(zlib.compress(text, 9)) / 6
    assert result["judged_tokens"] == 3
    assert result["judged_bytes"] == 6
    assert result["training_tokens"] == 8
    assert result["capped"] is False


def test_on_code_each_is_better_than_the_one_before() -> None:
    spec = importlib.util.find_spec("mpmath")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    training = (folder / "functions" / "functions.py").read_bytes() + (folder / "libmp" / "libmpf.py").read_bytes()
    text = (folder / "libmp" / "gammazeta.py").read_bytes()
    stream = np.frombuffer(b"\n" + text, np.uint8)
    result = yardsticks(np.frombuffer(training, np.uint8), stream, np.ones(256, dtype=np.int64), text)
    assert 8.0 > result["unigram"] > result["bigram"] > result["zlib"] > result["lzma"] > 1.0
    assert result["lzma"] == pytest.approx(8 * len(lzma.compress(text, preset=9)) / len(text), rel=1e-3)


def test_long_texts_are_judged_on_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("trimtab.evaluation.yardsticks")
    monkeypatch.setattr(module, "MOST_VALIDATION_BYTES", 5)
    stream = np.array([0, 1, 2, 1, 2, 1])
    token_bytes = np.array([0, 2, 1])
    result = yardsticks(stream, stream, token_bytes, b"aabaabaa")
    assert (result["judged_tokens"], result["judged_bytes"], result["capped"]) == (3, 5, True)
    assert result["zlib"] == 8 * len(zlib.compress(b"aabaa", 9)) / 5
    monkeypatch.setattr(module, "MOST_VALIDATION_BYTES", 100)
    monkeypatch.setattr(module, "MOST_TRAINING_TOKENS", 4)
    result = yardsticks(stream, stream, token_bytes, b"aabaabaa")
    assert (result["judged_tokens"], result["training_tokens"], result["capped"]) == (5, 4, True)
