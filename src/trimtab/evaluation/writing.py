"""A text that a trained model writes: the beginning it was given and what follows, or its answer to a text."""

from __future__ import annotations

from typing import Final, TypedDict

import numpy as np
from torch import nn

from trimtab.data import Tokenizer
from trimtab.errors import UsageError
from trimtab.evaluation.generate import generate
from trimtab.evaluation.translate import translate
from trimtab.model import translates

_LANGUAGE_MODEL, _ANSWERS = 0.8, 0.0
"""Temperatures where none is given."""

WRITERS: Final = ("causal_lm", "seq2seq")
"""Tasks whose models write."""


class Sampling(TypedDict, total=False):
    """How `write_text` chooses tokens."""

    temperature: float | None
    top_k: int
    top_p: float
    beams: int


def write_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    task_name: str,
    max_tokens: int,
    temperature: float | None = None,
    top_k: int = 50,
    top_p: float = 1.0,
    beams: int = 1,
    context_length: int,
    seed: int,
) -> str:
    """`prompt` and its continuation by a language model, whose empty prompt begins a document; of a model that answers
    to a text (task seq2seq) the answer alone.

    Tokens are drawn as `generate` and `translate` do; without a `temperature` at 0.8, and answers at 0, where the most
    probable one is taken, or with several `beams` the best beam.

    Raises:
        UsageError: the task's models write nothing; no text to answer to; beams of a language model; something out of
            range, or without effect beside the rest.
        NumericsError: the model's logits are not finite.
    """
    if task_name not in WRITERS:
        raise UsageError(f"the model writes nothing: its task is {task_name}. Those of {' and '.join(WRITERS)} do")
    answers = translates(model)
    if temperature is None:
        temperature = _ANSWERS if answers else _LANGUAGE_MODEL
    if top_p < 1.0 and temperature == 0.0:
        raise UsageError(
            f"top_p chooses among tokens that are drawn, and at temperature 0 none are. Received: top_p {top_p}",
            hint="give a temperature, such as 0.8",
        )
    device = next(model.parameters()).device
    if translates(model):
        if not prompt:
            raise UsageError("the model writes after reading a text, and there is none", hint="give one as the prompt")
        (answer,) = translate(
            model,
            [np.array(tokenizer.encode(prompt), dtype=np.int64)],
            end_of_text=tokenizer.end_of_text,
            max_tokens=max_tokens,
            beams=beams,
            device=device,
            frame=tokenizer.frame,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        return tokenizer.decode(answer)
    if beams != 1:
        raise UsageError(
            f"beams look for the best answer to a text (task seq2seq). Received: beams {beams}, task {task_name}",
            hint="a language model writes its most probable tokens at temperature 0",
        )
    written = generate(
        model,
        tokenizer.encode(prompt),
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        end_of_text=tokenizer.end_of_text,
        context_length=context_length,
        device=device,
    )
    return prompt + tokenizer.decode(written)
