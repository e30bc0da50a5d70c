"""What is there twice is found: by shingles and MinHash, in planted data, on one side or both."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import Config, DataConfig, DuplicatesConfig
from trimtab.config.task import Classification, Regression, SequenceToSequence
from trimtab.data import PreparedData, prepare_data
from trimtab.data.duplicates import Survey
from trimtab.data.minhash import HASHES, signature, similar
from trimtab.data.shingles import jaccard, shingles
from trimtab.doctor.lint import lint

# ---------------------------------------------------------------- shingles and signatures


def plain_shingles(text: str, words: int = 5) -> set[tuple[str, ...]]:
    """The definition, for ASCII."""
    found = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    size = min(words, len(found))
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)} if found else set()


@settings(max_examples=200, deadline=None)
@given(st.text("aAbB1 .,\n_", max_size=60), st.text("aAbB1 .,\n_", max_size=60))
def test_shingles_are_the_sets_of_words_that_follow_each_other(first: str, second: str) -> None:
    ours, plain = (shingles(first), shingles(second)), (plain_shingles(first), plain_shingles(second))
    for mine, theirs in zip(ours, plain, strict=True):
        assert len(mine) == len(theirs)
    together = len(plain[0] | plain[1])
    expected = len(plain[0] & plain[1]) / together if together else 1.0
    assert jaccard(*ours) == pytest.approx(expected)


def mixed(value: int) -> int:
    """SplitMix64's finalizer, in whole numbers."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def test_shingles_are_the_same_for_ever_and_in_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = 0
    for word in ("one", "two", "three", "four", "five"):
        hashed = mixed(sum((byte + 1) * 0x100000001B3**place for place, byte in enumerate(word.encode())) % 2**64)
        by_hand = (by_hand * 0x100000001B3 + hashed) % 2**64
    assert shingles("One, two: THREE four-five!").tolist() == [mixed(by_hand)]
    text = " ".join(str(number) for number in range(5000))
    whole = shingles(text)
    monkeypatch.setattr("trimtab.data.shingles._BYTES_AT_ONCE", 1000)
    assert shingles(text).tolist() == whole.tolist()
    assert len(whole) == 4996


def test_letters_without_spaces_are_words() -> None:
    assert len(shingles("一二三四五六")) == 2
    assert jaccard(shingles("一二三四五六七八九十"), shingles("二三四五六七八九十")) == pytest.approx(5 / 6)


def test_signatures_estimate_what_sets_have_in_common() -> None:
    order = np.random.default_rng(0)
    errors = []
    for share in (0.2, 0.5, 0.8, 0.95):
        for _ in range(20):
            values = order.integers(0, 1 << 63, 2000).astype(np.uint64)
            common = int(2000 * share)
            first, second = values[: 1000 + common // 2], values[1000 - common // 2 :]
            told = float((signature(first) == signature(second)).mean())
            errors.append(told - jaccard(np.unique(first), np.unique(second)))
    # Binomial: sqrt(J (1 - J) / 128) is at most 0.044; of the mean over 80 a ninth of it.
    assert np.std(errors) == pytest.approx(0.04, abs=0.01)
    assert abs(np.mean(errors)) < 0.015


def test_similar_sets_meet_and_others_do_not() -> None:
    order = np.random.default_rng(1)
    base = [order.integers(0, 1 << 63, 300).astype(np.uint64) for _ in range(200)]
    near = [np.concatenate([one[:285], order.integers(0, 1 << 63, 15).astype(np.uint64)]) for one in base[:50]]
    pairs = set(similar(np.array([signature(one) for one in [*base, *near]]), 0.8))
    assert pairs == {(index, 200 + index) for index in range(50)}
    assert not list(similar(np.empty((0, HASHES), dtype=np.uint32), 0.8))


# ---------------------------------------------------------------- planted

WORDS = [f"word{number}" for number in range(500)]


def text_of(seed: int, length: int = 60) -> str:
    order = random.Random(seed)
    return " ".join(order.choice(WORDS) for _ in range(length))


def nearly(text: str, changed: int = 1) -> str:
    words = text.split()
    for number in range(changed):
        words[-1 - 20 * number] = "other"
    return " ".join(words)


def write(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "jsonl", "path": str(path)}


def prepared(tmp_path: Path, rows: list[Any], held_out: list[Any], task: Any = None, **duplicates: Any) -> PreparedData:
    def source(name: str, given: list[Any]) -> dict[str, Any]:
        return write(tmp_path / name, [{"text": row} if isinstance(row, str) else row for row in given])

    config = {
        "source": source("train.jsonl", rows),
        "validation_source": source("held.jsonl", held_out),
        "tokenizer": {"name": "bytes"},
        "sequence_length": 64,
        "duplicates": duplicates,
    }
    return prepare_data(DataConfig.model_validate(config), task, seed=0)


FRESH = [text_of(seed) for seed in range(60)]
HELD = [text_of(seed) for seed in range(1000, 1020)]
PLANTED = [*FRESH, FRESH[3], nearly(FRESH[4]), HELD[2], nearly(HELD[5])]


def test_planted_duplicates_and_leaks_are_told(tmp_path: Path) -> None:
    facts = prepared(tmp_path, PLANTED, HELD).facts
    duplicates = facts["duplicates"]
    assert duplicates["exact"] == {"training": 1, "validation": 0, "leaking": 1, "leaked": 1}
    assert duplicates["near"] == {"training": 1, "validation": 0, "leaking": 1, "leaked": 1}
    assert duplicates["dropped"] == 0
    assert {tuple(pair) for pair in duplicates["examples"]} == {
        ("train.jsonl:61", "train.jsonl:4"),
        ("train.jsonl:62", "train.jsonl:5"),
        ("train.jsonl:63", "held.jsonl:3"),
        ("train.jsonl:64", "held.jsonl:6"),
    }
    assert duplicates["examples"][0][1].startswith("held")
    assert facts["leakage"] == 1
    told = {finding.code: finding for finding in lint(Config(), facts)}
    assert "10.0% of the validation texts" in told["validation-in-training"].message


@pytest.mark.parametrize(
    "choice, dropped, leaked",
    [({"exact": "drop"}, 2, 0), ({"near": "drop"}, 4, 0), ({"exact": "drop", "near": "off"}, 2, 0), ({}, 0, 1)],
)
def test_what_is_dropped_is_not_trained_on(tmp_path: Path, choice: dict[str, str], dropped: int, leaked: int) -> None:
    data = prepared(tmp_path, PLANTED, HELD, **choice)
    facts = data.facts
    assert facts["duplicates"]["dropped"] == dropped
    assert facts["training"]["documents"] == 64 - dropped
    assert facts["validation"]["documents"] == 20
    assert facts["leakage"] == leaked
    assert facts["skipped"] == ({"duplicate": dropped} if dropped else {})
    assert ("near" in facts["duplicates"]) == (choice.get("near") != "off")
    assert data.fingerprint != prepared(tmp_path, [*PLANTED, "more"], HELD, **choice).fingerprint


def test_what_goes_together_by_way_of_others_is_counted_together(tmp_path: Path) -> None:
    """Two validation texts that are like one training text are both leaked, though they name one partner."""
    held = [*HELD, nearly(HELD[5])]
    near = prepared(tmp_path, [*FRESH, "so " + HELD[5], HELD[5] + " so", nearly(FRESH[0])], held).facts["duplicates"][
        "near"
    ]
    assert near == {"training": 1, "validation": 1, "leaking": 2, "leaked": 2}


def test_what_is_like_nothing_that_is_left_stays(tmp_path: Path) -> None:
    """Texts in a chain: each is like the one before it, and soon like nothing at its beginning."""
    words = text_of(77, 300).split()
    chain = [" ".join(words[6 * place : 6 * place + 60]) for place in range(20)]
    found = [shingles(one) for one in chain]
    # By hand: of 56 runs 50 are in both, of 62 together; two steps on 44 of 68.
    assert jaccard(found[0], found[1]) == pytest.approx(50 / 62)
    assert jaccard(found[0], found[2]) == pytest.approx(44 / 68)
    data = prepared(tmp_path, [*FRESH, *chain[1:]], [*HELD, chain[0]], near="drop", threshold=0.7)
    facts = data.facts["duplicates"]
    signatures = [signature(one) for one in found]
    left: list[int] = [0]
    for place in range(1, 20):  # the definition, each with each that is left
        if all((signatures[place] == signatures[one]).mean() < 0.7 for one in left):
            left.append(place)
    assert 8 <= len(left) <= 14
    assert facts["dropped"] == 20 - len(left)
    assert facts["near"]["leaked"] == 1
    assert facts["near"]["leaking"] == sum((signatures[0] == one).mean() >= 0.7 for one in signatures[1:]) == 1
    held = prepared(tmp_path, [*FRESH, chain[-1]], [*HELD, *chain[:-1]], threshold=0.7).facts["duplicates"]["near"]
    assert (held["leaking"], held["leaked"]) == (1, 1)


def test_many_alike_on_both_sides_take_time_as_they_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared with few; with each of the other side it would be 64 million pairs."""
    same = signature(shingles(text_of(5)))
    monkeypatch.setattr("trimtab.data.duplicates.signature", lambda found: same)
    with Survey(tmp_path, DuplicatesConfig()) as survey:
        for number in range(16_000):
            survey.add("training" if number % 2 else "validation", HELD[0], str(number))
        begun = time.process_time()
        facts = survey.found().facts()
    assert time.process_time() - begun < 3.0
    assert facts["near"] == {"training": 0, "validation": 7999, "leaking": 8000, "leaked": 8000}


def test_what_is_less_alike_than_the_threshold_stays(tmp_path: Path) -> None:
    # Of 56 runs the changes touch 1 and 5. By hand: 50 / 62.
    rows = [*FRESH, nearly(FRESH[0], changed=2)]
    assert jaccard(shingles(FRESH[0]), shingles(rows[-1])) == pytest.approx(50 / 62)
    assert prepared(tmp_path, rows, HELD, threshold=0.95).facts["duplicates"]["near"]["training"] == 0
    low = prepared(tmp_path, rows, HELD, threshold=0.65).facts["duplicates"]["near"]
    assert low["training"] == 1


def test_short_texts_are_not_nearly_equal(tmp_path: Path) -> None:
    rows = [*FRESH, "yes it is so", "Yes, it is so!"]
    assert prepared(tmp_path, rows, HELD).facts["duplicates"]["near"]["training"] == 0


def test_ends_of_few_files_are_told_apart_by_side(tmp_path: Path) -> None:
    """Of fewer than 20 documents the end of each is held out: a copy is on both sides, and drops from the first."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("\n".join(text_of(seed) for seed in range(40)))
    config = DataConfig.model_validate(
        {
            "source": {"name": "text", "path": str(tmp_path), "pattern": "*.txt"},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 64,
            "duplicates": {"exact": "drop"},
        }
    )
    facts = prepare_data(config, seed=0).facts
    assert facts["duplicates"]["exact"] == {"training": 1, "validation": 1, "leaking": 0, "leaked": 0}
    assert facts["training"]["documents"] == 1
    assert facts["validation"]["documents"] == 2


def labelled(rows: list[str], **more: Any) -> list[dict[str, Any]]:
    return [{"text": row, "label": "ab"[number % 2], **more} for number, row in enumerate(rows)]


def test_rows_are_compared_by_their_text(tmp_path: Path) -> None:
    rows = [*labelled(FRESH), {"text": FRESH[0], "label": "b"}, {"text": nearly(HELD[1]), "label": "a"}]
    reported = prepared(tmp_path, rows, labelled(HELD), Classification()).facts
    assert reported["duplicates"]["exact"]["training"] == 1
    assert reported["duplicates"]["near"]["leaked"] == 1
    assert reported["contradictions"] == 1
    data = prepared(tmp_path, rows, labelled(HELD), Classification(), near="drop")
    assert len(data.training) == 60
    assert data.facts["contradictions"] == 0
    assert data.facts["targets"]["counts"] == [30, 30]
    assert data.facts["duplicates"]["dropped"] == 2


def test_a_pair_is_the_same_only_with_the_same_answer(tmp_path: Path) -> None:
    rows = [{"text": row, "target": text_of(number + 500)} for number, row in enumerate(FRESH)]
    rows += [{"text": FRESH[0], "target": text_of(9)}, rows[1]]
    held = [{"text": row, "target": row} for row in HELD]
    data = prepared(tmp_path, rows, held, SequenceToSequence(), exact="drop")
    assert len(data.training) == 61


def test_balance_and_order_of_targets(tmp_path: Path) -> None:
    rows = [{"text": text, "label": "a" if number < 57 else "b"} for number, text in enumerate(FRESH)]
    facts = prepared(tmp_path, rows, [*labelled(HELD), {"text": "x y", "label": "c"}], Classification()).facts
    assert facts["balance"] == {
        "most": "a", "most_share": 0.95, "least": "c", "least_share": 0.0, "never": ["c"],
    }  # fmt: skip
    # By hand: of 59 neighbours one pair differs; by chance 0.95² + 0.05².
    assert facts["order"] == pytest.approx({"found": 58 / 59, "expected": 0.905})
    mixed = prepared(tmp_path, labelled(FRESH), labelled(HELD), Classification()).facts
    assert mixed["order"] == {"found": 0.0, "expected": 0.5}
    numbers = [{"text": text, "value": number} for number, text in enumerate(FRESH)]
    held = [{"text": text, "value": number} for number, text in enumerate(HELD)]
    rising = prepared(tmp_path, numbers, held, Regression()).facts
    assert rising["order"]["found"] > 0.9
    random.Random(0).shuffle(numbers)
    assert abs(prepared(tmp_path, numbers, held, Regression()).facts["order"]["found"]) < 0.3


def test_a_dozen_damaged_rows_in_a_row_are_no_order_of_the_numbers(tmp_path: Path) -> None:
    drawn = random.Random(3)
    rows = [{"text": text_of(number), "value": drawn.gauss(0, 1)} for number in range(600)]
    held = [{"text": text, "value": number} for number, text in enumerate(HELD)]
    sound = prepared(tmp_path, rows, held, Regression()).facts["order"]["found"]
    for row in rows[300:312]:
        row["value"] = 60.0
    torn = prepared(tmp_path, rows, held, Regression()).facts["order"]["found"]
    assert abs(torn - sound) < 0.1  # of the numbers themselves 0.9
    rows.sort(key=lambda row: float(row["value"]))
    assert prepared(tmp_path, rows, held, Regression()).facts["order"]["found"] > 0.95


def test_second_texts_that_lie_sorted_are_told_by_their_first_words(tmp_path: Path) -> None:
    words = ["add", "build", "close", "draw"]
    pairs = [{"text": text, "target": f"{words[number // 15]} {number}"} for number, text in enumerate(FRESH)]
    held = [{"text": text, "target": "draw it"} for text in HELD]
    # By hand: of 59 neighbours three pairs differ.
    found = prepared(tmp_path, pairs, held, SequenceToSequence()).facts["order"]
    assert found == pytest.approx({"found": 56 / 59, "expected": 0.25})
