"""How surprised a language model is by texts, whoever made model and tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.data import PackedSequences, Tokenizer
from trimtab.errors import DataError, UsageError
from trimtab.evaluation.device import device_of
from trimtab.model import Network, Outside, Transformer, as_output, evaluating
from trimtab.objective import perplexity_of
from trimtab.signals import IGNORED, Batch, ModelOutput


class Encodes(Protocol):
    """A tokenizer of transformers, as far as it is needed."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of a text."""
        ...


def calculate_perplexity(
    model: nn.Module,
    data: Iterable[str] | Iterable[Batch | tuple[Tensor, Tensor] | Mapping[str, Tensor]],
    tokenizer: Tokenizer | Encodes | torch.device | str | None = None,
    *,
    device: torch.device | str | None = None,
    sequence_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> float:
    """exp of the negative log-likelihood per counted token.

    `data` are texts, with their `tokenizer`, ours or one of transformers; or batches. Texts follow each other, with an
    end of text before each and after the last, in sequences of `sequence_length`. With `stride` these overlap: each
    begins `stride` tokens after the one before, and of each but the first the last `stride` targets are counted, so
    that a token has at least `sequence_length - stride` before it; half the length costs twice as much. Batches are
    trimtab's, for a model of trimtab; or pairs of tokens_BT and targets_BT (already shifted; -100 is not counted), for
    any module that turns tokens into logits_BTV; or what loaders of transformers give a causal model of theirs:
    input_ids, what else it takes, and labels, not yet shifted. Where there are none, input_ids are the labels, as far
    as attention_mask goes. `device` may name where the model is, in third place, too; it is not moved. Sums are in
    float64; nothing waits for the device before the end. Eval mode, no gradients; modes are restored.
    Source: the strided form as in Baevski and Auli 2019, arXiv 1809.10853, section 4.3.

    Raises:
        DataError: no target is counted.
        UsageError: texts without a tokenizer or `sequence_length`; a `stride` that is longer; a tokenizer without an
            end of text; batches of another kind; a model that is not on `device`.
    """
    if isinstance(tokenizer, torch.device | str):
        if device is not None:
            raise UsageError(f"device is given twice. Received: {tokenizer}, {device}")
        tokenizer, device = None, tokenizer
    device = device_of(model, device)
    items = iter(data)
    begun = next(items, None)
    if isinstance(begun, str):
        rest: Iterator[Any] = items
        packed = _packed([begun, *rest], tokenizer, sequence_length, stride)
        batches: Iterable[Any] = _batches(
            packed, batch_size, plain=not isinstance(model, Transformer | Network | Outside)
        )
    else:
        batches = [] if begun is None else chain([begun], items)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    with evaluating(model):
        for item in batches:
            if isinstance(item, Batch):
                batch = item.to(device)
                targets_BT = batch.targets
                result = model(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT)
            elif isinstance(item, Mapping):
                named, targets_BT = _of_transformers(model, item, device)
                result = model(**named)
            elif isinstance(item, tuple | list) and len(item) == 2:
                targets_BT = item[1].to(device)
                result = model(item[0].to(device))
            else:
                raise UsageError(
                    "a batch is a trimtab.signals.Batch, a pair of tokens and targets that are already shifted, or a "
                    f"mapping with input_ids. Received: {type(item).__name__}"
                )
            output = as_output(result)
            logits_BTV = output.logits if isinstance(output, ModelOutput) else output
            loss_N = F.cross_entropy(
                logits_BTV.float().flatten(0, -2),
                targets_BT.flatten(),
                ignore_index=IGNORED,
                reduction="none",
            )
            sums[0] += loss_N.sum(dtype=torch.float64)
            sums[1] += (targets_BT != IGNORED).sum()
    total_nats, num_tokens = sums.tolist()
    if num_tokens == 0:
        raise DataError("there is nothing to evaluate on: no target is counted")
    return perplexity_of(total_nats / num_tokens)


def _of_transformers(
    model: nn.Module, item: Mapping[str, Tensor], device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """What a causal model of transformers is given of a batch, and the token that follows each, or IGNORED."""
    if "input_ids" not in item or isinstance(model, Transformer | Network | Outside):
        raise UsageError(
            "a mapping is for a causal model of transformers, and has input_ids. "
            f"Received: {type(model).__name__}, {', '.join(item) or 'nothing'}",
            hint="models of trimtab take pairs of tokens and targets that are already shifted",
        )
    named = {name: tensor.to(device) for name, tensor in item.items() if name != "labels"}
    labels_BT = item["labels"].to(device) if "labels" in item else named["input_ids"]
    if "labels" not in item and "attention_mask" in named:
        labels_BT = labels_BT.masked_fill(named["attention_mask"] == 0, IGNORED)
    return named, F.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)


def _packed(
    texts: Sequence[str], tokenizer: Tokenizer | Encodes | None, sequence_length: int | None, stride: int | None
) -> PackedSequences:
    """The texts as one stream, which begins with an end of text."""
    if tokenizer is None or sequence_length is None or sequence_length < 1:
        raise UsageError(
            "texts need their tokenizer, and a sequence_length of at least 1. "
            f"Received: tokenizer {type(tokenizer).__name__}, sequence_length {sequence_length}"
        )
    if stride is not None and not 1 <= stride <= sequence_length:
        raise UsageError(f"stride must be from 1 to sequence_length {sequence_length}. Received: {stride}")
    if isinstance(tokenizer, Tokenizer):
        end: int | None = tokenizer.end_of_text
        encoded: list[Any] = [tokenizer.encode(text) for text in texts]
    else:
        end, encoded = tokenizer.eos_token_id, [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    if end is None:
        raise UsageError("the tokenizer has no token that ends a text (eos_token)")
    pieces = [np.array([end], dtype=np.int64), *(np.array([*tokens, end], dtype=np.int64) for tokens in encoded)]
    starts = np.cumsum([0, *map(len, pieces)])[:-1]
    packed = PackedSequences(np.concatenate(pieces), starts, sequence_length, num_bytes=0)
    return packed if stride is None else packed.sliding(stride)


def _batches(packed: PackedSequences, size: int, *, plain: bool) -> Iterator[Batch | tuple[Tensor, Tensor]]:
    for first in range(0, len(packed), size):
        batch = packed.batch(np.arange(first, min(first + size, len(packed))))
        yield (batch.tokens_BT, batch.targets) if plain else batch
