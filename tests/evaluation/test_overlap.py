"""ROUGE against Google's rouge-score; BLEU and chrF are sacrebleu's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.evaluation.overlap import Overlap, rouge_l, rouge_n, rouge_words

WORDS = st.lists(st.sampled_from(["the", "Cat", "sat,", "on", "a", "mat.", "über", "x_1", "don't", "\n"]), max_size=12)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_rouge(written: list[str], wanted: list[str]) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    ours, theirs = " ".join(written), " ".join(wanted)
    expected = scorer.score(theirs, ours)
    words = rouge_words(ours), rouge_words(theirs)
    assert rouge_n(*words, 1) == pytest.approx(expected["rouge1"].fmeasure)
    assert rouge_n(*words, 2) == pytest.approx(expected["rouge2"].fmeasure)
    assert rouge_l(*words) == pytest.approx(expected["rougeL"].fmeasure)


def test_by_hand() -> None:
    """Written: the cat sat; wanted: the cat on the mat. Common: the, cat of 3 and 5; one pair of 2 and 4."""
    words = ["the", "cat", "sat"], ["the", "cat", "on", "the", "mat"]
    assert rouge_n(*words, 1) == pytest.approx(2 * 2 / 8)
    assert rouge_n(*words, 2) == pytest.approx(2 * 1 / 6)
    assert rouge_l(*words) == pytest.approx(2 * 2 / 8)
    assert rouge_l([], []) == 0.0


def test_of_a_corpus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    written = ["the cat sat on the mat today", "a dog barks loudly at night"]
    wanted = ["the cat sat on a mat today", "a dog barks at night"]
    overlap = Overlap()
    assert overlap.metrics() == {}
    for pair in zip(written, wanted, strict=True):
        overlap.add(*pair)
    found = overlap.metrics()
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [wanted]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, [wanted]).score)
    each = [rouge_n(rouge_words(one), rouge_words(other), 1) for one, other in zip(written, wanted, strict=True)]
    assert found["rouge_1"] == pytest.approx(sum(each) / 2)
