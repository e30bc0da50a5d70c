from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trimtab.errors import ConfigError, NumericsError, UsageError
from trimtab.evaluation import choose_token, generate
from trimtab.model import Decoder, ForeignModel, init_weights

CPU = torch.device("cpu")


def decoder() -> Decoder:
    model = Decoder(vocabulary_size=13, max_positions=8, num_layers=1, hidden_size=8, num_heads=2, feed_forward_size=16)
    init_weights(model, standard_deviation=0.5, num_layers=1, seed=4)
    return model


MODEL = decoder()
write = partial(generate, MODEL, context_length=8, device=CPU)


def test_greedy_takes_the_most_probable_token_each_time() -> None:
    context = [3, 1]
    for token in write([3, 1], max_tokens=12, temperature=0.0, seed=0):
        with torch.no_grad():
            assert token == MODEL(torch.tensor([context[-8:]])).logits[0, -1].argmax()
        context.append(token)
    assert len(context) == 14
    assert write([3, 1], max_tokens=12, temperature=0.0, seed=1) == context[2:]
    assert write([3, 1], max_tokens=12, top_k=1, seed=2) == context[2:]
    assert write([3, 1], max_tokens=12, top_p=0.0, seed=3) == context[2:]


def test_the_seed_repeats_and_global_randomness_is_left_alone() -> None:
    MODEL.train()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = write([5], max_tokens=40, temperature=1.0, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert write([5], max_tokens=40, temperature=1.0, seed=7) == first
    assert write([5], max_tokens=40, temperature=1.0, seed=8) != first
    assert len(first) == 40
    assert MODEL.training


@settings(deadline=None, max_examples=30)
@given(
    temperature=st.floats(0.0, 5.0),
    top_k=st.integers(0, 30),
    top_p=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_only_tokens_of_the_vocabulary(temperature: float, top_k: int, top_p: float, seed: int) -> None:
    tokens = write([0], max_tokens=5, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    assert len(tokens) == 5
    assert all(0 <= token < 13 for token in tokens)


def test_padded_scores_of_a_foreign_model_are_never_chosen() -> None:
    table = nn.Embedding(5, 9)
    with torch.no_grad():
        table.weight[:, 5:] = 1e6
    tokens = generate(ForeignModel(table, 5), [0], max_tokens=50, temperature=3.0, seed=0, context_length=4, device=CPU)
    assert set(tokens) == set(range(5))


def test_ends_before_the_end_of_text() -> None:
    whole = write([5], max_tokens=40, temperature=1.0, seed=7)
    cut = write([5], max_tokens=40, temperature=1.0, seed=7, end_of_text=whole[10])
    assert cut == whole[: whole.index(whole[10])]


def test_an_empty_prompt_begins_after_the_end_of_text() -> None:
    assert write([], max_tokens=5, seed=0, end_of_text=12) == write([12], max_tokens=5, seed=0, end_of_text=12)
    with pytest.raises(UsageError, match="nothing to go on from"):
        write([], max_tokens=5, seed=0)
    assert write([1], max_tokens=0, seed=0) == []


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match=r"temperature -1\.0"):
        write([1], max_tokens=1, temperature=-1.0, seed=0)
    with pytest.raises(ConfigError, match=r"9 tokens.*8 positions"):
        generate(MODEL, [1] * 9, max_tokens=1, seed=0, context_length=9, device=CPU)


def shares(logits: list[float], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    choose = partial(choose_token, torch.tensor(logits), temperature=temperature, top_k=top_k, top_p=top_p)
    drawn = torch.tensor([choose(generator=generator) for _ in range(3000)])
    return torch.bincount(drawn, minlength=len(logits)) / len(drawn)


def test_shares_are_the_probabilities() -> None:
    logits = [1.0, 3.0, 2.0, -torch.inf]
    expected = (torch.tensor(logits) / 2.0).softmax(0)
    torch.testing.assert_close(shares(logits, temperature=2.0), expected, atol=0.03, rtol=0)
    expected = torch.tensor([-torch.inf, 3.0, 2.0, -torch.inf]).softmax(0)
    torch.testing.assert_close(shares(logits, top_k=2), expected, atol=0.03, rtol=0)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert (shares(logits, top_p=0.49) > 0).tolist() == [True, False, False, False]
    assert (shares(logits, top_p=0.79) > 0).tolist() == [True, True, False, False]
    assert (shares(logits, top_p=0.9) > 0).tolist() == [True, True, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite(value: float, temperature: float) -> None:
    logits_V = torch.tensor([0.0, value, 1.0])
    with pytest.raises(NumericsError, match="not finite"):
        choose_token(logits_V, temperature=temperature, top_k=0, top_p=1.0, generator=torch.Generator())
