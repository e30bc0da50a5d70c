"""What an encoder and decoder write after reading a text: the most probable token each time, a beam of beginnings, or
tokens that are drawn.

Shape suffixes: B texts · T positions · S positions of the second text · V vocabulary · N beams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.data import Frame, LabelledTexts, Tokenizer
from trimtab.errors import NumericsError, UsageError
from trimtab.evaluation.generate import choose_token, require_sampling
from trimtab.evaluation.overlap import Overlap
from trimtab.events import ArtifactLogged
from trimtab.model import EncoderDecoder, Translator, evaluating, uncompiled
from trimtab.model.incremental import IncrementalReader

_SAMPLES = 4
"""Texts of the validation set whose answers are written at an evaluation."""


def translate(
    model: Translator,
    texts: Sequence[NDArray[np.integer[Any]]],
    *,
    end_of_text: int,
    max_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
    device: torch.device,
    frame: Frame | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """The tokens that `model` writes after reading each of `texts`: at most `max_tokens`, those before `end_of_text`.

    Texts stand in `frame`; without it both begin after an end of text.
    With a `temperature` tokens are drawn as `generate` draws them, from `seed` for each text anew. Without, with one
    beam, the most probable token is taken each time (greedy). With more, so many beginnings are kept, and the
    finished one with the highest mean log-probability wins: its sum, end included, divided by the number of its
    tokens to the power of `length_penalty`. Texts are read one by one, so that an answer does not depend on others.
    Eval mode, no gradients; modes are restored. Of our models keys and values are kept, of others each token is a whole
    pass of the decoder; each waits for the device.
    Source: beam search as in Sutskever et al. 2014, arXiv 1409.3215, section 3.2; length normalization as in Wu et
    al. 2016, arXiv 1609.08144, section 7, with plain lengths.

    Raises:
        UsageError: fewer than one beam or token; a temperature beside several beams, or out of range.
        NumericsError: the model's logits are not finite.
    """
    if beams < 1 or max_tokens < 1:
        raise UsageError(f"beams and max_tokens must be at least 1. Received: beams {beams}, max_tokens {max_tokens}")
    if temperature > 0.0 and beams > 1:
        raise UsageError(
            f"tokens are drawn, or the best beam is looked for. Received: temperature {temperature}, beams {beams}"
        )
    require_sampling(temperature, top_k, top_p)
    frame = frame or Frame.beginning(end_of_text)
    most = max_tokens if model.most_written is None else min(max_tokens, model.most_written)
    with evaluating(model), uncompiled():
        readers = (_Reader(model, text, frame, device) for text in texts)
        if temperature > 0.0:
            drawn = partial(choose_token, temperature=temperature, top_k=top_k, top_p=top_p)
            return [_draw(reader, end_of_text, most, drawn, seed) for reader in readers]
        return [_search(reader, end_of_text, most, beams, length_penalty) for reader in readers]


@final
class _Reader:
    """The decoder of a model over beginnings of an answer to one text, [N, S], that grow by a token each time."""

    def __init__(self, model: Translator, text: NDArray[np.integer[Any]], frame: Frame, device: torch.device) -> None:
        if model.most_read is not None:
            text = text[: model.most_read - frame.size]
        read = np.concatenate((frame.before, text, frame.after)).astype(np.int64)
        self._model = model
        self._memory_1TD, _ = model.encode(torch.from_numpy(read)[None].to(device), None)
        self._kept, self._head = None, None
        if isinstance(model, EncoderDecoder):
            self._kept, self._head = IncrementalReader(model.decoder, self._memory_1TD), model.head
        self.written_NS = torch.tensor([[frame.second]], device=device)

    def logits(self) -> Tensor:
        """Of the next token after each beginning, fp64 [N, V]. Raises: NumericsError."""
        if self._kept is not None and self._head is not None:
            features_ND = self._kept.read(self.written_NS[:, self._kept.length :])[:, -1]
            logits_NV: Tensor = self._head(features_ND).double()
        else:
            output = self._model.decode(self.written_NS, self._memory_1TD.expand(len(self.written_NS), -1, -1), None)
            logits_NV = output.head(output.features[:, -1]).double()
        if not logits_NV.max().isfinite():
            raise NumericsError("cannot choose a token: the model's logits are not finite")
        return logits_NV

    def go_on(self, rows_N: Tensor, tokens_N: Tensor) -> None:
        """Put tokens after beginnings `rows_N`, which are those from now on."""
        self.written_NS = torch.cat((self.written_NS[rows_N], tokens_N[:, None]), dim=1)
        if self._kept is not None:
            self._kept.choose(rows_N)


def _draw(reader: _Reader, end_of_text: int, max_tokens: int, choose: Callable[..., int], seed: int) -> list[int]:
    generator, written = torch.Generator().manual_seed(seed), list[int]()
    only = torch.zeros(1, dtype=torch.int64, device=reader.written_NS.device)
    while len(written) < max_tokens:
        token = choose(reader.logits()[0], generator=generator)
        if token == end_of_text:
            break
        written.append(token)
        reader.go_on(only, only + token)
    return written


def _search(reader: _Reader, end_of_text: int, max_tokens: int, beams: int, length_penalty: float) -> list[int]:
    device = reader.written_NS.device
    scores_N = torch.zeros(1, dtype=torch.float64, device=device)
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, max_tokens + 1):
        totals_NV = scores_N[:, None] + reader.logits().log_softmax(-1)
        vocabulary_size = totals_NV.shape[1]
        # Each beginning may end here, so that twice as many are looked at: as many as `beams` then go on.
        best, at = totals_NV.flatten().topk(min(2 * beams, totals_NV.numel()))
        going_on: list[int] = []
        for rank, (score, index) in enumerate(zip(best.tolist(), at.tolist(), strict=True)):
            beginning, token = divmod(index, vocabulary_size)
            if token != end_of_text:
                going_on.append(rank)
            elif rank < beams:
                finished.append((score / length**length_penalty, reader.written_NS[beginning, 1:].tolist()))
            if len(going_on) == beams:
                break
        if len(finished) >= beams or not going_on:
            break
        kept = torch.tensor(going_on, device=device)
        scores_N, at = best[kept], at[kept]
        reader.go_on(at // vocabulary_size, at % vocabulary_size)
    if not finished:
        finished = [
            (score / max_tokens**length_penalty, row[1:])
            for score, row in zip(scores_N.tolist(), reader.written_NS.tolist(), strict=True)
        ]
    return max(finished, key=lambda one: one[0])[1]


def overlap_of(
    model: Translator,
    pairs: LabelledTexts,
    tokenizer: Tokenizer,
    *,
    num_texts: int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> dict[str, float]:
    """ROUGE, BLEU and chrF of what the model writes (greedy) after `num_texts` texts at even distances.

    Raises:
        NumericsError: the model's logits are not finite.
    """
    overlap, taken = Overlap(), min(num_texts, len(pairs))
    for number, index in enumerate((np.arange(taken) * len(pairs) // max(1, taken)).tolist()):
        if progress is not None:
            progress(number / taken)
        (answer,) = translate(
            model,
            [pairs.row(index)[: pairs.sequence_length - tokenizer.frame.size]],
            end_of_text=tokenizer.end_of_text,
            max_tokens=pairs.second_length,
            device=device,
            frame=tokenizer.frame,
        )
        overlap.add(tokenizer.decode(answer), tokenizer.decode(pairs.second_row(index).tolist()))
    return overlap.metrics()


def write_answers(
    model: Translator,
    pairs: LabelledTexts,
    tokenizer: Tokenizer,
    step: int,
    *,
    max_tokens: int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> list[ArtifactLogged]:
    """The first texts of a set, what the model writes after them (greedy), and what was wanted.

    `progress` is told the part that is begun.
    """
    written = []
    num_texts = min(_SAMPLES, len(pairs)) if max_tokens else 0
    for index in range(num_texts):
        if progress is not None:
            progress(index / num_texts)
        read = pairs.row(index)[: pairs.sequence_length - tokenizer.frame.size]
        most, end = min(max_tokens, pairs.second_length), tokenizer.end_of_text
        try:
            (answer,) = translate(model, [read], end_of_text=end, max_tokens=most, device=device, frame=tokenizer.frame)
            told = tokenizer.decode(answer)
        except NumericsError as error:
            # A run that diverged still has to say so, and to end by its own rules.
            told = f"({error.message})"
        wanted = tokenizer.decode(pairs.second_row(index).tolist())
        text = f"{tokenizer.decode(read.tolist())}\n→ {told}\n(wanted: {wanted})"
        written.append(ArtifactLogged(step, "sample", f"sample-{index}", text))
    return written
