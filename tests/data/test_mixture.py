from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import DataConfig, load_config
from trimtab.config.task import Classification
from trimtab.data import PreparedData, prepare_data
from trimtab.data.mixture import Mixture, Part, shares_of
from trimtab.data.order import Order
from trimtab.errors import ConfigError, DataError


def mixture_of(sizes: list[int], shares: list[float], **kwargs: Any) -> Mixture:
    ends = np.cumsum(sizes).tolist()
    parts = [
        Part(str(index), end - size, end, share)
        for index, (size, end, share) in enumerate(zip(sizes, ends, shares, strict=True))
    ]
    return Mixture(parts, seed=3, **kwargs)


def test_shares_are_weights_or_sizes_to_the_power_of_one_over_the_temperature() -> None:
    assert shares_of({"a": 90, "b": 10}, {}, 1.0) == pytest.approx({"a": 0.9, "b": 0.1})
    assert shares_of({"a": 90, "b": 10}, {"a": 1.0, "b": 3.0}, 1.0) == pytest.approx({"a": 0.25, "b": 0.75})
    # By hand: 9^(1/2) : 1^(1/2) = 3 : 1.
    assert shares_of({"a": 90, "b": 10}, {}, 2.0) == pytest.approx({"a": 0.75, "b": 0.25})
    assert shares_of({"a": 90, "b": 10}, {}, 100.0)["b"] == pytest.approx(1 / (1 + 9**0.01))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 1.0)), min_size=2, max_size=5), st.integers(0, 5))
def test_every_epoch_gives_each_source_its_share(parts: list[tuple[int, float]], epoch: int) -> None:
    total = sum(weight for _, weight in parts)
    sizes, shares = [size for size, _ in parts], [weight / total for _, weight in parts]
    mixture = mixture_of(sizes, shares)
    order = mixture.epoch(epoch)
    assert len(order) == sum(sizes)
    source_of = np.repeat(np.arange(len(sizes)), sizes)
    counts = np.bincount(source_of[order], minlength=len(sizes))
    assert counts.tolist() == mixture.quotas
    for count, share in zip(counts, shares, strict=True):
        assert count >= 1
        assert count - 1 <= max(1.0, share * len(order)) + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 0.95))
def test_no_sample_comes_again_before_all_others_of_its_source(first: int, second: int, share: float) -> None:
    mixture = mixture_of([first, second], [share, 1 - share])
    stream = np.concatenate([mixture.epoch(epoch) for epoch in range(4)])
    for begin, end in ((0, first), (first, first + second)):
        own = stream[(stream >= begin) & (stream < end)]
        for turn in range(0, len(own), end - begin):
            piece = own[turn : turn + end - begin]
            assert len(set(piece.tolist())) == len(piece)


def test_parts_as_large_as_the_sources_are_plain_epochs() -> None:
    mixture = mixture_of([7, 13], [0.35, 0.65])
    assert sorted(mixture.epoch(2).tolist()) == list(range(20))
    assert mixture.epoch(2).tolist() != mixture.epoch(3).tolist()


class Counted(np.ndarray[Any, Any]):
    """Counts the elements that are worked on, so that no clock is asked."""

    worked_on = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        Counted.worked_on += self.size
        plain = [np.asarray(one) if isinstance(one, Counted) else one for one in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        found = np.asarray(super().__getitem__(key))
        Counted.worked_on += found.size
        return found


def test_a_small_source_that_is_gone_through_often_costs_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    divmod = np.divmod
    monkeypatch.setattr(np, "divmod", lambda *given: tuple(one.view(Counted) for one in divmod(*given)))
    Counted.worked_on = 0
    drawn = mixture_of([2, 4000], [0.5, 0.5])._draws(0, 0, 2001)
    assert 2001 <= Counted.worked_on < 5 * 2001
    assert np.bincount(drawn).tolist() in ([1000, 1001], [1001, 1000])


def test_unshuffled_sources_are_spread_evenly_and_stay_in_order() -> None:
    mixture = mixture_of([2, 6], [0.25, 0.75], shuffle=False)
    assert mixture.epoch(0).tolist() == [2, 0, 3, 4, 5, 1, 6, 7]


def test_any_position_is_found_at_once() -> None:
    mixture = mixture_of([30, 5], [0.5, 0.5])
    lengths = np.arange(35) % 7
    whole = Order(35, seed=1, mixture=mixture, lengths=lengths, block=4, bucketing=2)
    stream = whole.sequences_at(np.arange(35 * 6))
    for positions in ([200], [34, 35], [100, 7, 170]):
        fresh = Order(35, seed=1, mixture=mixture_of([30, 5], [0.5, 0.5]), lengths=lengths, block=4, bucketing=2)
        assert fresh.sequences_at(np.array(positions)).tolist() == stream[positions].tolist()


# ---------------------------------------------------------------- prepared


def sources(tmp_path: Path) -> dict[str, Any]:
    for name, letter, count in (("web", "w", 60), ("code", "c", 30)):
        rows = [{"text": f"{letter}{i} " + letter * 40, "label": letter} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: {"name": "jsonl", "path": str(tmp_path / f"{name}.jsonl")} for name in ("web", "code")}


def prepared(tmp_path: Path, task: Any = None, **mixture: Any) -> PreparedData:
    source = {"name": "mixture", "sources": sources(tmp_path), **mixture}
    config = DataConfig.model_validate({"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 32})
    return prepare_data(config, task, seed=0)


def letters(data: PreparedData, positions: range) -> Counter[str]:
    tokens = data.training.batch(data.order.sequences_at(np.array(positions))).tokens_BT.numpy()
    text = [bytes(row[row < 256].tolist()).decode() for row in tokens]
    return Counter("c" if row.count("c") > row.count("w") else "w" for row in text)


@pytest.mark.parametrize("task", [None, Classification()])
def test_a_source_of_several_files_is_seen_in_its_parts(tmp_path: Path, task: Any) -> None:
    data = prepared(tmp_path, task, weights={"web": 1.0, "code": 3.0})
    epoch = data.order.num_sequences
    seen = letters(data, range(epoch))
    assert seen["c"] / epoch == pytest.approx(0.75, abs=0.03)
    facts = data.facts["mixture"]
    assert facts["code"]["share"] == 0.75
    assert facts["code"]["repeats"] == facts["code"]["per_epoch"] / facts["code"]["samples"] > 2
    assert sum(part["samples"] for part in facts.values()) == epoch
    assert data.facts["training"]["sources"].keys() == {"web", "code"}


def test_weights_order_the_samples_and_leave_the_tokens(tmp_path: Path) -> None:
    plain, weighted = prepared(tmp_path), prepared(tmp_path, weights={"web": 1.0, "code": 3.0})
    assert plain.cache == weighted.cache
    assert letters(plain, range(plain.order.num_sequences))["w"] > letters(weighted, range(60))["w"]


def test_a_source_too_small_for_a_sample_is_named(tmp_path: Path) -> None:
    parts = sources(tmp_path)
    (tmp_path / "tiny.jsonl").write_text('{"text": "x"}\n')
    parts["tiny"] = {"name": "jsonl", "path": str(tmp_path / "tiny.jsonl")}
    config = DataConfig.model_validate(
        {
            "source": {"name": "mixture", "sources": parts},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 512,
            "validation_source": parts["web"],
        }
    )
    with pytest.raises(DataError, match=r"data\.source\.sources\.tiny: has too little text"):
        prepare_data(config, seed=0)


def test_weights_are_for_all_sources_or_none(tmp_path: Path) -> None:
    source = {"name": "mixture", "sources": sources(tmp_path), "weights": {"web": 1.0}}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"data": {"source": source}}))
    with pytest.raises(ConfigError, match="give one for each source, or none"):
        load_config(path)


def test_every_source_must_fit_the_task(tmp_path: Path) -> None:
    parts = sources(tmp_path) | {"notes": {"name": "text", "path": str(tmp_path)}}
    path = tmp_path / "c.yaml"
    path.write_text(
        json.dumps(
            {
                "task": {"name": "classification"},
                "model": {"name": "encoder"},
                "data": {"source": {"name": "mixture", "sources": parts}},
            }
        )
    )
    with pytest.raises(ConfigError, match=r"data\.source\.sources\.notes\.name text does not fit"):
        load_config(path)
