"""Texts changed a little: how much, what stays, and that it depends on the seed and the place alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file

from trimtab.config import AugmentationConfig, Config, SynonymsConfig, load_config
from trimtab.data import Frame, LabelledTexts, PackedSequences, Ragged, prepare_data
from trimtab.data.augmentation import Augmentation, build_augmentation, spans
from trimtab.data.neighbours import neighbours_of, read_embeddings
from trimtab.errors import ConfigError, DataError
from trimtab.signals import IGNORED, Batch

END, MASK, SIZE = 99, 100, 99


def rows(*lengths: int, tags: bool = False, frame: Frame | None = None) -> LabelledTexts:
    order = np.random.default_rng(0)
    texts = [np.append(order.integers(1, 99, length), END) for length in lengths]
    starts = np.cumsum([0, *map(len, texts)])
    targets = np.concatenate([np.where(text == END, IGNORED, text % 3) for text in texts])
    return LabelledTexts(
        Ragged(np.concatenate(texts), starts),
        targets if tags else np.arange(len(lengths)),
        end_of_text=END,
        sequence_length=512,
        tags=tags,
        frame=frame,
    )


def augmentation(frame: Frame | None = None, seed: int = 0, near: Any = None, **config: Any) -> Augmentation:
    return Augmentation(
        AugmentationConfig.model_validate(config),
        seed=seed,
        end_of_text=END,
        vocabulary_size=SIZE,
        mask_token=MASK,
        frame=frame or Frame.beginning(END),
        neighbours_VK=near,
    )


def text_of(batch: Batch, row: int) -> NDArray[np.int64]:
    real = batch.document_ids_BT[row] >= 0
    found: NDArray[np.int64] = batch.tokens_BT[row, real].numpy()
    return found


def test_replaced_tokens_are_as_many_as_asked_for_and_the_rest_stays() -> None:
    batch = rows(400, 300).batch(np.array([0, 1]))
    changed = augmentation(replacement=0.3)(batch, np.array([5, 6]))
    differs = changed.tokens_BT != batch.tokens_BT
    # One in 99 replacements is the token itself, or an end of text that is not taken: 3 standard errors of 700 draws.
    assert float(differs.sum()) / 700 == pytest.approx(0.3, abs=0.055)
    assert not differs[batch.document_ids_BT < 0].any()
    assert (changed.tokens_BT[:, 0] == END).all()
    assert int(changed.tokens_BT.max()) <= END
    assert torch.equal(changed.targets, batch.targets)
    assert changed.count == batch.count
    assert batch.tokens_BT is not changed.tokens_BT


def test_of_pairs_both_texts_are_changed_by_draws_of_their_own() -> None:
    frame = Frame((97,), (98,))
    plain = rows(40, 5, frame=frame).batch(np.array([0, 1]))
    second = torch.where(plain.document_ids_BT >= 0, plain.tokens_BT, -1)
    pairs = replace(plain, second_BS=second)
    changed = augmentation(frame, token_dropout=0.3, replacement=0.3)(pairs, np.array([3, 4]))
    alone = augmentation(frame, token_dropout=0.3, replacement=0.3)(plain, np.array([3, 4]))
    assert torch.equal(changed.tokens_BT, alone.tokens_BT)
    assert changed.second_BS is not None
    first, partner = text_of(changed, 0), changed.second_BS[0][changed.second_BS[0] >= 0].numpy()
    assert partner[0] == 97
    assert partner[-1] == 98
    assert 10 < len(partner) < 42
    assert (changed.second_BS[0, len(partner) :] == -1).all()
    assert first.tolist() != partner.tolist()
    read = replace(pairs, targets=second)  # what a decoder reads
    kept = augmentation(frame, token_dropout=0.3)(read, np.array([3, 4])).second_BS
    assert kept is not None
    assert torch.equal(kept, second)


def test_dropped_tokens_leave_a_shorter_text() -> None:
    frame = Frame((97,), (98, 98))
    batch = rows(400, 5, frame=frame).batch(np.array([0, 1]))
    changed = augmentation(frame, token_dropout=0.5)(batch, np.array([0, 1]))
    before, after = text_of(batch, 0), text_of(changed, 0)
    assert len(after) == pytest.approx(200, abs=35)
    assert after[0] == 97
    assert after[-2:].tolist() == [98, 98]
    kept = iter(before.tolist())
    assert all(token in kept for token in after.tolist())  # in their order
    length = len(after)
    assert changed.positions_BT[0, :length].tolist() == list(range(length))
    assert not changed.tokens_BT[0, length:].any()
    assert not changed.positions_BT[0, length:].any()
    assert (changed.document_ids_BT[0, length:] == -1).all()


def test_something_of_a_text_is_left() -> None:
    batch = rows(*[3] * 50).batch(np.arange(50))
    changed = augmentation(token_dropout=0.999)(batch, np.arange(50))
    assert [len(text_of(changed, row)) for row in range(50)] == [2] * 50


def test_an_empty_text_stays_empty() -> None:
    batch = rows(0, 4).batch(np.array([0, 1]))
    changed = augmentation(token_dropout=0.5, replacement=0.5)(batch, np.array([0, 1]))
    assert text_of(changed, 0).tolist() == [END]


def test_targets_of_words_go_with_their_tokens() -> None:
    texts = rows(200, 100, tags=True)
    batch = texts.batch(np.array([0, 1]))
    changed = augmentation(token_dropout=0.3)(batch, np.array([0, 1]))
    for row in range(2):
        length = len(text_of(changed, row))
        expected = changed.tokens_BT[row, 1:length] % 3
        assert torch.equal(changed.targets[row, 1:length], expected)
        assert (changed.targets[row, length:] == IGNORED).all()
    assert changed.count == int((changed.targets != IGNORED).sum()) < batch.count


def test_spans_hide_as_much_as_asked_for_in_runs_of_that_length() -> None:
    order = np.random.default_rng(1)
    for rate, mean in ((0.15, 3.0), (0.4, 5.0), (0.2, 1.0)):
        hidden = spans(order.random(200_000), order.random(200_000), rate, mean)
        assert hidden.mean() == pytest.approx(rate, rel=0.05)
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], hidden, [0]]))))[::2]
        # Runs that touch or overlap are one.
        assert mean <= runs.mean() < mean * 1.6
    assert spans(np.zeros(3), np.full(3, 0.5), 0.5, 1.0).tolist() == [True] * 3


def test_hidden_tokens_are_the_mask_and_ends_of_packed_documents_stay() -> None:
    tokens = np.tile(np.array([5, 6, 7, END]), 50)
    packed = PackedSequences(tokens, np.arange(0, 200, 4), 50, num_bytes=200)
    batch = packed.batch(np.array([0, 1]))
    subject = Augmentation(
        AugmentationConfig(replacement=0.5), seed=0, end_of_text=END, vocabulary_size=SIZE, mask_token=MASK
    )
    changed = subject(batch, np.array([0, 1]))
    assert ((changed.tokens_BT == END) == (batch.tokens_BT == END)).all()
    assert torch.equal(changed.targets, batch.targets)
    texts = rows(300).batch(np.array([0]))
    hidden = augmentation(span_masking={"rate": 0.3, "mean_length": 2.0})(texts, np.array([0]))
    differs = hidden.tokens_BT != texts.tokens_BT
    assert set(hidden.tokens_BT[differs].tolist()) == {MASK}


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 2))
def test_what_is_drawn_depends_on_the_seed_and_the_place_alone(order: list[int], seed: int) -> None:
    texts = rows(8, 30, 5, 17, 40, 2)
    subject = augmentation(seed=seed, replacement=0.3, token_dropout=0.2, span_masking={"rate": 0.2})
    places = np.arange(100, 106)
    whole = subject(texts.batch(np.arange(6)), places)
    for row in order:  # one at a time, in batches of other widths
        alone = subject(texts.batch(np.array([row])), places[[row]])
        assert text_of(alone, 0).tolist() == text_of(whole, row).tolist()


def test_another_place_or_seed_draws_anew_and_techniques_do_not_touch_each_other() -> None:
    batch = rows(200).batch(np.array([0]))
    first = augmentation(replacement=0.3)(batch, np.array([0])).tokens_BT
    assert not torch.equal(first, augmentation(replacement=0.3)(batch, np.array([1])).tokens_BT)
    assert not torch.equal(first, augmentation(seed=1, replacement=0.3)(batch, np.array([0])).tokens_BT)
    both = augmentation(replacement=0.3, span_masking={"rate": 0.2})(batch, np.array([0])).tokens_BT
    seen = both != MASK
    assert torch.equal(both[seen], first[seen])


# ---------------------------------------------------------------- neighbours


def test_neighbours_are_the_nearest_by_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    order = np.random.default_rng(0)
    table = order.normal(size=(30, 8)).astype(np.float32)
    table[7] = 0.0
    monkeypatch.setattr("trimtab.data.neighbours._AT_ONCE", 7)
    found = neighbours_of(table, 4, 0.2, never=(3,))
    for token in range(30):
        if token in (3, 7):
            assert (found[token] == -1).all()
            continue
        norms = np.linalg.norm(table, axis=1)
        cosines = table @ table[token] / np.where(norms == 0, 1, norms) / norms[token]
        cosines[[token, 3]] = -np.inf
        best = np.argsort(-cosines, kind="stable")[:4]
        assert found[token].tolist() == [one if cosines[one] >= 0.2 else -1 for one in best]


def test_synonyms_are_neighbours() -> None:
    near = np.full((END, 3), -1, dtype=np.int32)
    near[:, 0], near[::2, 1] = (np.arange(END) + 1) % END, (np.arange(0, END, 2) + 2) % END
    near[10] = -1
    texts = rows(500)
    batch = texts.batch(np.array([0]))
    changed = augmentation(near=near, synonyms={"embeddings": "x", "rate": 0.4})(batch, np.array([0]))
    before, after = text_of(batch, 0)[1:], text_of(changed, 0)[1:]
    differs = before != after
    assert differs.mean() == pytest.approx(0.4, abs=0.07)
    for old, new in zip(before[differs].tolist(), after[differs].tolist(), strict=True):
        assert new in near[old][near[old] >= 0]
    assert not differs[before == 10].any()


def test_tables_are_found_by_name_and_height(tmp_path: Path) -> None:
    table = torch.arange(40.0).reshape(10, 4)
    save_file(
        {"model/embedding.weight": table, "optimizer/embedding.weight/master": table + 1, "model/wide": table[:5] + 1},
        tmp_path / "a.safetensors",
    )
    np.save(tmp_path / "alone.npy", table.numpy())

    def read(embeddings: str, size: int = 10, **more: Any) -> NDArray[np.float32]:
        return read_embeddings(SynonymsConfig(embeddings=str(tmp_path / embeddings), **more), size)

    assert read(".").tolist() == table.tolist()
    assert read("a.safetensors", 8).tolist() == table[:8].tolist()
    assert read("alone.npy").tolist() == table.tolist()
    assert read(".", tensor="optimizer/embedding.weight/master").tolist() == (table + 1).tolist()
    with pytest.raises(ConfigError, match=r"no table of at least 10 tokens goes by it\. Received: 'none'"):
        read(".", tensor="none")
    with pytest.raises(ConfigError, match="no table of at least 11 tokens"):
        read(".", 11)
    with pytest.raises(DataError, match=r"neither a \.npy or \.safetensors file"):
        read("missing")
    (tmp_path / "bad.safetensors").write_bytes(b"no such thing at all")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        read("bad.safetensors")


# ---------------------------------------------------------------- prepared


def paraphrase(texts: list[str], mark: str = "!") -> list[Any]:
    """Two texts for the first, the same for the second, one for the others."""
    return [[text + mark, text + mark * 2] if not number else text if number == 1 else text + mark
            for number, text in enumerate(texts)]  # fmt: skip


def broken(texts: list[str]) -> list[str]:
    return texts[1:]


def config_of(tmp_path: Path, **augmentation: Any) -> Config:
    path = tmp_path / "rows.jsonl"
    lines = [{"text": f"this is text {number}", "label": number % 2} for number in range(100)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Config.model_validate(
        {
            "task": {"name": "classification"},
            "model": {"name": "encoder"},
            "data": {
                "source": {"name": "jsonl", "path": str(path)},
                "tokenizer": {"name": "bytes"},
                "sequence_length": 64,
                "augmentation": augmentation,
            },
        }
    )


def test_back_translated_rows_are_trained_on_with_the_same_class(tmp_path: Path) -> None:
    target = {"target": f"{__name__}:paraphrase", "arguments": {"mark": "?"}}
    config = config_of(tmp_path, back_translation=target)
    data, plain = (prepare_data(one.data, one.task, seed=0) for one in (config, config_of(tmp_path)))
    assert isinstance(data.training, LabelledTexts)
    assert data.facts["back_translated"] == 95
    assert len(data.training) == 190
    assert len(data.validation) == len(plain.validation) == 5
    texts = [data.tokenizer.decode(data.training.row(index).tolist()) for index in range(3)]
    assert texts[1:] == [texts[0] + "?", texts[0] + "??"]
    assert data.training.batch(np.arange(3)).targets.tolist() == [0, 0, 0]
    assert data.cache != prepare_data(config_of(
        tmp_path, back_translation={"target": f"{__name__}:paraphrase"}
    ).data, config.task, seed=0).cache  # fmt: skip
    wrong = config_of(tmp_path, back_translation={"target": f"{__name__}:broken"})
    with pytest.raises(DataError, match="must give one answer for each of 95 texts"):
        prepare_data(wrong.data, wrong.task, seed=0)


def test_a_loader_gives_what_is_drawn_and_an_evaluation_does_not(tmp_path: Path) -> None:
    config = config_of(tmp_path, replacement=0.5, span_masking={"rate": 0.3})
    data = build_augmentation(config, prepare_data(config.data, config.task, seed=0))
    assert data.vocabulary_size == 258
    loader = data.loader(4, prefetch=2, pin_memory=False)
    from trimtab.data import DataPlan

    loader.start(8, DataPlan())
    try:
        taken = loader.take(1).batches[0]
    finally:
        loader.close()
    plain = data.training.batch(taken.sample_ids_B.numpy())
    assert data.augment is not None
    assert torch.equal(taken.tokens_BT, data.augment(plain, np.arange(8, 12)).tokens_BT)
    assert (taken.tokens_BT != plain.tokens_BT).any()
    assert (taken.tokens_BT == 257).any()
    assert replace(data, augment=None).loader(4, prefetch=1, pin_memory=False) is not None


def test_synonyms_of_a_run_are_kept_and_told(tmp_path: Path) -> None:
    order = np.random.default_rng(0)
    np.save(tmp_path / "table.npy", order.normal(size=(257, 4)).astype(np.float32))
    config = config_of(tmp_path, synonyms={"embeddings": str(tmp_path / "table.npy"), "similarity": 0.8})
    data = prepare_data(config.data, config.task, seed=0)
    first = build_augmentation(config, data)
    assert len(list((data.cache / "derived").glob("neighbours-*.npy"))) == 1
    assert build_augmentation(config, data).facts == first.facts
    assert 0 < first.facts["synonyms"]["tokens"] <= 256


@pytest.mark.parametrize(
    "task, name, value, message",
    [
        ("causal_lm", "token_dropout", "0.1", r"each token is the target of the one before it\. Fitting: replacement"),
        ("causal_lm", "span_masking", "{rate: 0.2}", "each token is the target"),
        ("masked_lm", "replacement", "0.1", r"hides and replaces tokens itself\. Fitting: none"),
        ("token_classification", "back_translation", "{target: 'a:b'}", "each word has its own target"),
    ],
)
def test_what_is_refused(task: str, name: str, value: str, message: str) -> None:
    rows = [] if task.endswith("lm") else ["data.source={name: jsonl, path: x}"]
    model = "decoder" if task == "causal_lm" else "encoder"
    overrides = [f"task.name={task}", f"model.name={model}", f"data.augmentation.{name}={value}", *rows]
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides, environment={})
