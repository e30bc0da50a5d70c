"""What a model says of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.data import LabelledTexts, Ragged, Tokenizer, tokenized_words
from trimtab.errors import UsageError
from trimtab.model import evaluating
from trimtab.objective import MultiLabelTask, logits_of
from trimtab.signals import IGNORED, Batch, ModelOutput, Task

_SERVED: Final = ("classification", "regression", "token_classification", "contrastive")


def predict(
    model: nn.Module,
    task: Task,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    sequence_length: int,
    batch_size: int = 32,
    device: torch.device,
) -> list[Tensor]:
    """The answers of `task` for each text, on the CPU: a class, labels, a number, a vector, or a class for
    each of its words.

    Texts are cut to `sequence_length`; words beyond it have the class IGNORED. Eval mode, no gradients; modes are
    restored.

    Raises:
        UsageError: the task's answer is a text.
    """
    return answers_of(
        task.predictions,
        model,
        task,
        tokenizer,
        texts,
        sequence_length=sequence_length,
        batch_size=batch_size,
        device=device,
    )


def predict_probabilities(
    model: nn.Module,
    task: Task,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    sequence_length: int,
    temperature: float | Sequence[float] = 1.0,
    batch_size: int = 32,
    device: torch.device,
    mode: Callable[[nn.Module], AbstractContextManager[None]] = evaluating,
) -> list[Tensor]:
    """How probable each class of each text is, fp64 [V] on the CPU; of several labels how probable each is by itself.

    Logits are divided by `temperature`, one for all or one for each class. Texts are cut to `sequence_length`. The
    model is in `mode`, that of evaluation.

    Raises:
        UsageError: the task's answer is no class of a text.
    """
    if task.name != "classification":
        raise UsageError(f"task {task.name} has no probabilities of texts. They are there for classification")
    chances = torch.sigmoid if isinstance(task, MultiLabelTask) else partial(torch.softmax, dim=-1)
    divisor = torch.tensor(temperature, dtype=torch.float64, device=device)
    return answers_of(
        lambda output, batch: chances(logits_of(output).double() / divisor),
        model,
        task,
        tokenizer,
        texts,
        sequence_length=sequence_length,
        batch_size=batch_size,
        device=device,
        mode=mode,
    )


def answers_of(
    say: Callable[[ModelOutput | Tensor, Batch], Tensor],
    model: nn.Module,
    task: Task,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    sequence_length: int,
    batch_size: int,
    device: torch.device,
    mode: Callable[[nn.Module], AbstractContextManager[None]] = evaluating,
) -> list[Tensor]:
    """What `say` makes of the output for each text, or each of its words, with the model in `mode`, on the CPU.

    Raises:
        UsageError: the task's answer is a text.
    """
    if task.name not in _SERVED:
        raise UsageError(
            f"task {task.name} has no answer that could be predicted. It is there for {', '.join(_SERVED)}",
            hint="generate writes texts" if task.name in ("causal_lm", "seq2seq") else None,
        )
    of_words = task.name == "token_classification"
    firsts: list[NDArray[np.int64]] = []
    if of_words:
        rows = []
        for text in texts:
            tokens, first = tokenized_words(tokenizer, text.split())
            rows.append(np.append(tokens, tokenizer.end_of_text))
            firsts.append(first)
    else:
        rows = [np.append(tokens, tokenizer.end_of_text) for tokens in tokenizer.encode_batch(texts)]
    if not rows:
        return []
    starts = np.cumsum([0, *map(len, rows)])
    asked = LabelledTexts(
        Ragged(np.concatenate(rows), starts),
        np.zeros(len(rows), dtype=np.int64),
        end_of_text=tokenizer.end_of_text,
        sequence_length=sequence_length,
        frame=tokenizer.frame,
    )
    # Texts of similar length together, so that little is padded.
    order = np.argsort(asked.lengths, kind="stable")
    answers: dict[int, Tensor] = {}
    with mode(model):
        for begin in range(0, len(order), batch_size):
            indices = order[begin : begin + batch_size]
            batch = asked.batch(indices).to(device)
            found = say(model(**task.inputs(batch)), batch).cpu()
            answers.update(zip(indices.tolist(), found, strict=True))
    if not of_words:
        return [answers[index] for index in range(len(rows))]
    begin, end = len(tokenizer.frame.before), sequence_length - len(tokenizer.frame.after)
    return [_of_words(answers[index], first + begin, end) for index, first in enumerate(firsts)]


def _of_words(classes_T: Tensor, firsts: NDArray[np.int64], end: int) -> Tensor:
    """The classes at `firsts`, the first token of each word, below position `end`."""
    places = torch.from_numpy(firsts)
    inside = places < end
    return torch.where(inside, classes_T[torch.where(inside, places, 0)], IGNORED)
