"""Texts changed a little: what is drawn is a pure function of the seed and the place in the stream.

Shape suffixes: B sequences · T positions · V vocabulary · K neighbours.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.config import AugmentationConfig, Config, RowTask, SynonymsConfig
from trimtab.data.frame import Frame
from trimtab.data.neighbours import neighbours_of, read_embeddings
from trimtab.signals import IGNORED, Batch, key

if TYPE_CHECKING:
    from trimtab.data.prepare import PreparedData

_LANES: Final = 7
"""Numbers drawn for each position, whatever is asked for: so that one technique does not change another's."""


@final
class Augmentation:
    """Changes the tokens of a micro-batch: near neighbours, replacement, spans behind a mask, and dropout, in turn.

    Of pairs both texts are changed. What stands around a text, its end, and padding stay. Targets stay with their
    tokens: those of words are left out with them, those of next tokens stay true. At least one token of a text is left.
    Source: Wei and Zou 2019, arXiv 1901.11196 (replacement, deletion); Joshi et al. 2020, arXiv 1907.10529, section 3.1
    (spans of geometric length; here begun at chance, not one by one); Wang and Yang 2015, doi 10.18653/v1/D15-1306
    (neighbours by embeddings).
    """

    def __init__(
        self,
        config: AugmentationConfig,
        *,
        seed: int,
        end_of_text: int,
        vocabulary_size: int,
        mask_token: int,
        frame: Frame | None = None,
        neighbours_VK: NDArray[np.int32] | None = None,
    ) -> None:
        """Replacing tokens are below `vocabulary_size`; `frame` is what stands around texts that are rows, and None in
        packed ones. `neighbours_VK` are tokens, -1 where there is none."""
        self._config, self._seed = config, key(seed, 0, 0, "augmentation")
        self._seed_of_partners = key(seed, 0, 1, "augmentation")
        self._end_of_text, self._vocabulary_size, self._mask_token = end_of_text, vocabulary_size, mask_token
        self._frame, self._neighbours_VK = frame, neighbours_VK

    def __call__(self, batch: Batch, positions: NDArray[np.int64]) -> Batch:
        """`batch`, whose rows stand at `positions` of the stream, changed."""
        tokens_BT = batch.tokens_BT.numpy().copy()
        targets = batch.targets.numpy().copy()
        ids_BT, places_BT = batch.document_ids_BT.numpy().copy(), batch.positions_BT.numpy().copy()
        of_words = self._frame is not None and targets.shape == tokens_BT.shape and batch.second_BS is None
        for row, position in enumerate(positions.tolist()):
            length = int((ids_BT[row] >= 0).sum())
            begin, end = self._inside(length)
            if end <= begin:
                continue
            draws = _uniform(self._seed, position, tokens_BT.shape[1])[:, begin:end]
            tokens_BT[row, begin:end] = self._changed(tokens_BT[row, begin:end], draws)
            if self._config.token_dropout:
                order = self._kept(draws, begin, length)
                shorter = len(order)
                tokens_BT[row, :shorter] = tokens_BT[row, order]
                tokens_BT[row, shorter:length], ids_BT[row, shorter:length] = 0, -1
                places_BT[row, shorter:length] = 0
                if of_words:
                    targets[row, :shorter] = targets[row, order]
                    targets[row, shorter:length] = IGNORED
        return replace(
            batch,
            tokens_BT=torch.from_numpy(tokens_BT),
            targets=torch.from_numpy(targets),
            second_BS=self._partners(batch, positions),
            document_ids_BT=torch.from_numpy(ids_BT),
            positions_BT=torch.from_numpy(places_BT),
            count=int((targets != IGNORED).sum()) if of_words else batch.count,
        )

    def _partners(self, batch: Batch, positions: NDArray[np.int64]) -> Tensor | None:
        """Second texts, changed as the first ones, by draws of their own; what a decoder reads stays."""
        if batch.second_BS is None or batch.targets.shape == batch.second_BS.shape:
            return batch.second_BS
        second_BS = batch.second_BS.numpy().copy()
        for row, position in enumerate(positions.tolist()):
            length = int((second_BS[row] >= 0).sum())
            begin, end = self._inside(length)
            if end <= begin:
                continue
            draws = _uniform(self._seed_of_partners, position, second_BS.shape[1])[:, begin:end]
            second_BS[row, begin:end] = self._changed(second_BS[row, begin:end], draws)
            if self._config.token_dropout:
                order = self._kept(draws, begin, length)
                second_BS[row, : len(order)] = second_BS[row, order]
                second_BS[row, len(order) : length] = -1
        return torch.from_numpy(second_BS)

    def _kept(self, draws: NDArray[np.float64], begin: int, length: int) -> NDArray[np.int64]:
        """The places of a row of `length` tokens that token dropout leaves; its text begins at `begin`."""
        kept = draws[6] >= self._config.token_dropout
        kept[draws[6].argmax()] = True
        end = begin + len(kept)
        return np.concatenate([np.arange(begin), begin + np.flatnonzero(kept), np.arange(end, length)])

    def _inside(self, length: int) -> tuple[int, int]:
        """Where the text begins and ends in a row of `length` tokens."""
        if self._frame is None:
            return 0, length
        return len(self._frame.before), length - len(self._frame.after)

    def _changed(self, tokens: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """`tokens` of one text, some of which are others now."""
        config, before = self._config, tokens
        if config.synonyms is not None and self._neighbours_VK is not None:
            near_TK = self._neighbours_VK[np.minimum(tokens, len(self._neighbours_VK) - 1)]
            number = (near_TK >= 0).sum(axis=1)
            chosen = near_TK[np.arange(len(tokens)), (draws[0] * number).astype(np.int64)]
            swapped = (draws[1] < config.synonyms.rate) & (number > 0)
            tokens = np.where(swapped, chosen, tokens)
        if config.replacement:
            other = (draws[2] * self._vocabulary_size).astype(np.int64)
            usable = (draws[3] < config.replacement) & (other != self._end_of_text)
            tokens = np.where(usable, other, tokens)
        if config.span_masking is not None:
            hidden = spans(draws[4], draws[5], config.span_masking.rate, config.span_masking.mean_length)
            tokens = np.where(hidden, self._mask_token, tokens)
        return np.where(before == self._end_of_text, before, tokens)


def build_augmentation(config: Config, data: PreparedData) -> PreparedData:
    """`data` with what `config` draws for its training samples, if anything; `facts` tell of neighbours.

    Raises: DataError, ConfigError for embeddings that cannot be had.
    """
    chosen = config.data.augmentation
    if not any(chosen.drawn.values()):
        return data
    tokenizer, facts = data.tokenizer, data.facts
    neighbours_VK = None
    if chosen.synonyms is not None:
        neighbours_VK = _kept_neighbours(chosen.synonyms, data)
        has_some = (neighbours_VK >= 0).any(axis=1)
        facts = facts | {
            "synonyms": {
                "tokens": int(has_some.sum()),
                "sha256": hashlib.sha256(neighbours_VK.astype("<i4").tobytes()).hexdigest(),
            }
        }
    augment = Augmentation(
        chosen,
        seed=config.seed,
        end_of_text=tokenizer.end_of_text,
        vocabulary_size=tokenizer.vocabulary_size,
        mask_token=tokenizer.vocabulary_size if tokenizer.mask is None else tokenizer.mask,
        frame=tokenizer.frame if isinstance(config.task, RowTask) else None,
        neighbours_VK=neighbours_VK,
    )
    return replace(data, augment=augment, facts=facts)


def _kept_neighbours(config: SynonymsConfig, data: PreparedData) -> NDArray[np.int32]:
    """The neighbours, from the cache if they are there."""
    table_VD = read_embeddings(config, data.tokenizer.vocabulary_size)
    decides = hashlib.sha256(table_VD.tobytes() + repr((config.neighbours, config.similarity)).encode())
    kept = data.cache / "derived" / f"neighbours-{decides.hexdigest()[:24]}.npy"
    if kept.exists():
        found: NDArray[np.int32] = np.load(kept)
        return found
    special = [data.tokenizer.end_of_text, data.tokenizer.mask, data.tokenizer.padding]
    never = tuple(token for token in special if token is not None)
    found = neighbours_of(table_VD, config.neighbours, config.similarity, never)
    kept.parent.mkdir(exist_ok=True)
    aside = kept.with_name(f".{os.getpid()}-{kept.name}")
    np.save(aside, found)
    aside.replace(kept)
    return found


def spans(
    starts: NDArray[np.float64], lengths: NDArray[np.float64], rate: float, mean_length: float
) -> NDArray[np.bool_]:
    """Which positions lie in a span, about `rate` of them: `starts` and `lengths` are uniform in [0, 1).

    A span begins where `starts` is small; its length is geometric with `mean_length`.
    """
    begins = np.flatnonzero(starts < 1.0 - (1.0 - rate) ** (1.0 / mean_length))
    inside = np.zeros(len(starts) + 1, dtype=np.int64)
    stay = 1.0 - 1.0 / mean_length
    for begin in begins.tolist():
        more = math.floor(math.log1p(-lengths[begin]) / math.log(stay)) if stay > 0.0 else 0
        inside[begin] += 1
        inside[min(len(starts), begin + 1 + more)] -= 1
    return np.cumsum(inside[:-1]) > 0


def _uniform(stream: int, position: int, length: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) for each of `length` places of the sequence at `position`: [_LANES, length]."""
    # Raw words: NumPy may change what its distributions give, but not Philox's words.
    words = np.random.Philox(key=np.array([stream, position], dtype=np.uint64)).random_raw(_LANES * length)
    uniform: NDArray[Any] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform.reshape(length, _LANES).T
