"""What is done to embeddings in training: its size, its place, and that nothing of it stays."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import EncoderConfig, EncoderDecoderConfig, Fp32
from trimtab.errors import ConfigError
from trimtab.model import Encoder, EncoderDecoder, build_model
from trimtab.model.embeddings import Cutout, EmbeddingNoise, EmbeddingTransforms, Mixup, changing, embedding_of
from trimtab.objective import ClassificationTask, CrossEntropy, SequenceToSequenceTask
from trimtab.signals import IGNORED, Batch, Outputs, SpecialTokens, key
from trimtab.training import Precision
from trimtab.training.passes import Passes

CPU = torch.device("cpu")
SHAPE = {"num_layers": 1, "hidden_size": 8, "num_heads": 2, "positions": {"name": "learned"}}


def real_of(lengths: list[int], positions: int) -> Tensor:
    return torch.arange(positions)[None] < torch.tensor(lengths)[:, None]


def test_noise_is_even_within_its_bound_and_none_on_padding() -> None:
    """alpha / sqrt(L D) with L the real positions of each text; an even number has a third of its bound squared."""
    real = real_of([100, 400], 400)
    noise = EmbeddingNoise(5.0)(torch.zeros(2, 400, 64), real, torch.Generator().manual_seed(1))
    assert float(noise[0, 100:].abs().max()) == 0.0
    for row, length in ((0, 100), (1, 400)):
        bound, values = 5.0 / math.sqrt(length * 64), noise[row, :length]
        assert float(values.abs().max()) <= bound
        assert float(values.abs().max()) > 0.99 * bound
        assert float(values.mean()) == pytest.approx(0.0, abs=0.03 * bound)
        assert float(values.square().mean()) == pytest.approx(bound**2 / 3, rel=0.03)
    half = EmbeddingNoise(5.0)(torch.ones(1, 4, 8, dtype=torch.bfloat16), real_of([4], 4), torch.Generator())
    assert half.dtype == torch.bfloat16


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.floats(0.05, 0.9), st.integers(0, 99))
def test_a_span_is_whole_and_among_the_real_positions(lengths: list[int], rate: float, seed: int) -> None:
    real = real_of(lengths, 12)
    found = Cutout(rate, "span")(torch.ones(len(lengths), 12, 2), real, torch.Generator().manual_seed(seed))
    for row, length in enumerate(lengths):
        cut = [place for place in range(12) if float(found[row, place].abs().sum()) == 0.0]
        assert len(cut) == round(torch.tensor(rate * length).item())
        assert cut == list(range(cut[0], cut[0] + len(cut))) if cut else True
        assert all(place < length for place in cut)


def test_every_place_of_a_span_occurs_and_the_other_kinds_cut_their_part() -> None:
    generator, ones = torch.Generator().manual_seed(2), torch.ones(4000, 10, 8)
    real = real_of([10] * 4000, 10)
    spans = Cutout(0.3, "span")(ones, real, generator)
    firsts = torch.bincount((spans[:, :, 0] == 0).int().argmax(1), minlength=8)
    assert firsts.shape == (8,)
    assert (firsts.float() / 4000 - 1 / 8).abs().max() < 0.02
    tokens = Cutout(0.3, "token")(ones, real, generator)
    assert float((tokens == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(tokens.amax(2), tokens.amin(2))  # a position is cut whole
    features = Cutout(0.3, "feature")(ones, real, generator)
    assert float((features == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(features.amax(1), features.amin(1))  # a column through the text


def texts() -> Batch:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 11, (4, 6), generator=generator)
    documents = torch.where(real_of([2, 6, 4, 3], 6), torch.tensor([[0], [1], [2], [3]]), -1).int()
    places = torch.where(documents >= 0, torch.arange(6), 0).int()
    targets = torch.tensor([0, 2, IGNORED, 1])
    return Batch(tokens, targets, documents, places, torch.arange(4), 3)


def encoder(dropout: float = 0.0) -> Encoder:
    config = EncoderConfig.model_validate({**SHAPE, "dropout": {"residual": dropout}})
    model = build_model(
        config,
        vocabulary_size=11,
        sequence_length=6,
        outputs=Outputs(3, pooled=True, task="classification"),
        seed=3,
        special=SpecialTokens(0, 1, 2),
    )
    assert isinstance(model, Encoder)
    return model.train()


def passes_over(model: nn.Module, transforms: EmbeddingTransforms, seed: int = 0, step: int = 1) -> Passes:
    passes = Passes(
        model=model,
        task=ClassificationTask(CrossEntropy(), 3, "classification"),
        precision=Precision(Fp32(), CPU),
        storage=lambda: None,  # type: ignore[arg-type, return-value]
        inverse={"target": torch.tensor(1 / 3), "sequence": torch.tensor(1 / 4)},
        is_part=lambda: False,
        device=CPU,
        seed=seed,
        transforms=transforms,
    )
    passes.at(step, 0)
    return passes


def test_mixup_is_the_loss_of_both_targets_at_the_mean_of_both_texts() -> None:
    """Recomputed without hooks: a text is as long as the longer of the two, and padding adds nothing."""
    model, batch = encoder().double(), texts()
    passes = passes_over(model, EmbeddingTransforms(mixup=Mixup(0.5)))
    found = passes.forward(batch)
    mixed = Mixup(0.5).draw(key(0, 1, 0, "augmentation"), 4, CPU)
    share, partners = mixed.share, mixed.partners_B.tolist()
    assert 0.0 < share < 1.0
    total = 0.0
    for row, partner in enumerate(partners):
        lengths = [int((batch.document_ids_BT[one] >= 0).sum()) for one in (row, partner)]
        own, other = (torch.zeros(1, 6, 8, dtype=torch.float64) for _ in range(2))
        own[0, : lengths[0]] = model.embedding.weight[batch.tokens_BT[row, : lengths[0]]].detach()
        other[0, : lengths[1]] = model.embedding.weight[batch.tokens_BT[partner, : lengths[1]]].detach()
        longest = max(lengths)
        value = (share * own + (1 - share) * other)[:, :longest]
        with changing(model.embedding, lambda x, number, value=value: value):  # type: ignore[misc]
            logits = model(batch.tokens_BT[row : row + 1, :longest]).logits
        for part, one in ((share, row), (1 - share, partner)):
            if int(batch.targets[one]) != IGNORED:
                total += part * float(F.cross_entropy(logits, batch.targets[one : one + 1]).detach()) / 3
    assert float(found.total.detach()) == pytest.approx(total, rel=1e-6)
    assert float(found.means["cross_entropy"]) == pytest.approx(total, rel=1e-6)


def test_shares_are_those_of_beta_and_partners_a_permutation() -> None:
    draws = [Mixup(0.4).draw(seed, 5, CPU) for seed in range(2000)]
    shares = torch.tensor([one.share for one in draws])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.06)
    assert all(sorted(one.partners_B.tolist()) == list(range(5)) for one in draws[:50])
    assert Mixup(0.4).draw(7, 5, CPU).share == draws[7].share


def test_what_is_drawn_belongs_to_the_step_and_leaves_dropout_alone() -> None:
    model, batch = encoder(0.3), texts()
    noise = EmbeddingTransforms(noise=EmbeddingNoise(3.0), cutout=Cutout(0.3, "token"))

    def loss(transforms: EmbeddingTransforms, step: int) -> Tensor:
        return passes_over(model, transforms, step=step).forward(batch).total.detach()

    assert torch.equal(loss(noise, 1), loss(noise, 1))
    assert not torch.equal(loss(noise, 1), loss(noise, 2))
    assert not torch.equal(loss(noise, 1), loss(EmbeddingTransforms(), 1))
    # Noise that is nearly nothing: the masks of dropout are those without it.
    faint = EmbeddingTransforms(noise=EmbeddingNoise(1e-6))
    torch.testing.assert_close(loss(faint, 1), loss(EmbeddingTransforms(), 1), rtol=1e-4, atol=1e-5)
    passes = passes_over(model, noise)
    first, second = passes.forward(batch).total, passes.forward(batch).total
    passes.again()
    assert torch.equal(passes.forward(batch).total, first)
    assert not torch.equal(first, second)
    assert not model.embedding._forward_hooks
    with torch.no_grad():
        given = model.eval()(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT).logits
    passes.forward(batch)
    with torch.no_grad():
        assert torch.equal(model(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT).logits, given)


def test_both_texts_of_a_pair_are_reached() -> None:
    config = EncoderDecoderConfig.model_validate(SHAPE)
    model = build_model(config, vocabulary_size=11, sequence_length=6, seed=3)
    assert isinstance(model, EncoderDecoder)
    batch = replace(texts(), second_BS=torch.ones(4, 5, dtype=torch.int64), targets=torch.ones(4, 5, dtype=torch.int64))
    inputs, seen = SequenceToSequenceTask(CrossEntropy()).inputs(batch), []
    with changing(embedding_of(model, "embedding"), lambda x, number: seen.append((number, tuple(x.shape))) or x):  # type: ignore[func-returns-value]
        model(**inputs)
    assert seen == [(0, (4, 6, 8)), (1, (4, 5, 8))]


def test_a_model_that_goes_around_its_embedding_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match=r"computed without its input embeddings \(Embedding\)"),
        changing(nn.Embedding(2, 2), lambda x, number: x),
    ):
        pass
