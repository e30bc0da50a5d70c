from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from trimtab.config import EncoderDecoderConfig
from trimtab.errors import NumericsError, UsageError
from trimtab.evaluation import translate
from trimtab.model import EncoderDecoder, build_model

CPU, END, MOST = torch.device("cpu"), 0, 4


def model_of(seed: int) -> EncoderDecoder:
    config = EncoderDecoderConfig.model_validate(
        {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "initialization": {"standard_deviation": 0.7}}
    )
    model = build_model(config, vocabulary_size=5, sequence_length=8, seed=seed)
    assert isinstance(model, EncoderDecoder)
    return model


def score(model: EncoderDecoder, text: np.ndarray, answer: list[int], *, ends: bool) -> float:
    """Mean log-probability of `answer`, its end included when it has one."""
    asked = [*answer, END] if ends else answer
    read = torch.tensor([[END, *text.tolist()]])
    with torch.no_grad():
        logits = model.eval()(read, None, torch.tensor([[END, *asked[:-1]]])).logits[0].double()
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(asked)[:, None]).mean())


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_that_keeps_everything_finds_the_best(seed: int) -> None:
    model, text = model_of(seed), np.array([1, 4, 2])
    (found,) = translate(model, [text], end_of_text=END, max_tokens=MOST, beams=5**MOST, device=CPU)
    ended = {
        words: score(model, text, list(words), ends=True)
        for length in range(MOST)
        for words in itertools.product(range(1, 5), repeat=length)
    }
    assert tuple(found) == max(ended, key=lambda words: ended[words])


@pytest.mark.parametrize("seed", range(8))
def test_greedy_takes_the_most_probable_each_time(seed: int) -> None:
    model, text = model_of(seed), np.array([3, 3])
    (found,) = translate(model, [text], end_of_text=END, max_tokens=MOST, device=CPU)
    expected: list[int] = []
    while len(expected) < MOST:
        with torch.no_grad():
            logits = model.eval()(torch.tensor([[END, 3, 3]]), None, torch.tensor([[END, *expected]])).logits[0, -1]
        if (token := int(logits.argmax())) == END:
            break
        expected.append(token)
    assert found == expected


def test_texts_do_not_depend_on_each_other_and_modes_come_back() -> None:
    model = model_of(1).train()
    texts = [np.array([1, 2, 3]), np.array([4]), np.array([], dtype=np.int64)]
    together = translate(model, texts, end_of_text=END, max_tokens=MOST, beams=3, device=CPU)
    apart = [translate(model, [text], end_of_text=END, max_tokens=MOST, beams=3, device=CPU)[0] for text in texts]
    assert together == apart
    assert model.training
    with pytest.raises(UsageError, match="at least 1"):
        translate(model, texts, end_of_text=END, max_tokens=MOST, beams=0, device=CPU)
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(NumericsError):
        translate(model, texts, end_of_text=END, max_tokens=MOST, device=CPU)


def test_drawn_answers_repeat_with_their_seed_and_follow_the_chances() -> None:
    model, text = model_of(2), np.array([1, 4])
    draw = partial(translate, model, [text], end_of_text=END, max_tokens=1, device=CPU)
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[END, 1, 4]]), None, torch.tensor([[END]])).logits[0, -1].double()
    temperature = 1.5
    chances = (logits / temperature).softmax(-1)
    found = torch.zeros(5)
    for seed in range(600):
        (answer,) = draw(temperature=temperature, seed=seed)
        found[answer[0] if answer else END] += 1
    # Deviations of a multinomial: below 0.02 each.
    torch.testing.assert_close(found.double() / 600, chances, rtol=0, atol=0.08)
    assert draw(temperature=1.0, seed=3) == draw(temperature=1.0, seed=3)
    assert draw(temperature=5.0, top_k=1, seed=3) == draw() == draw(temperature=5.0, top_p=0.0, seed=4)


def test_a_beam_draws_nothing() -> None:
    with pytest.raises(UsageError, match=r"temperature 0\.5, beams 2"):
        translate(model_of(1), [np.array([1])], end_of_text=END, max_tokens=2, beams=2, temperature=0.5, device=CPU)
    with pytest.raises(UsageError, match="top_p 2"):
        translate(model_of(1), [np.array([1])], end_of_text=END, max_tokens=2, top_p=2.0, device=CPU)
