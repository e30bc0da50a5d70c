"""What a model says of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.data import LabelledTexts, Ragged, Tokenizer
from trimtab.model import evaluating
from trimtab.signals import Task


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
    """The answers of `task` for each text, on the CPU: a class, labels, or a number.

    Texts are cut to `sequence_length`. Eval mode, no gradients; modes are restored.
    """
    rows = [np.append(tokens, tokenizer.end_of_text) for tokens in tokenizer.encode_batch(texts)]
    if not rows:
        return []
    starts = np.cumsum([0, *map(len, rows)])
    asked = LabelledTexts(
        Ragged(np.concatenate(rows), starts),
        np.zeros(len(rows), dtype=np.int64),
        end_of_text=tokenizer.end_of_text,
        sequence_length=sequence_length,
    )
    # Texts of similar length together, so that little is padded.
    order = np.argsort(asked.lengths, kind="stable")
    answers: dict[int, Tensor] = {}
    with evaluating(model):
        for begin in range(0, len(order), batch_size):
            indices = order[begin : begin + batch_size]
            batch = asked.batch(indices).to(device)
            found = task.predictions(model(**task.inputs(batch)), batch).cpu()
            answers.update(zip(indices.tolist(), found, strict=True))
    return [answers[index] for index in range(len(rows))]
