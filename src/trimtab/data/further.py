"""Further sets to judge on, read with the tokenizer and the targets of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from trimtab.config import CausalLanguageModeling, DataConfig, MaskedLanguageModeling, PlainSource, TaskConfig
from trimtab.data.cache import cached_folder
from trimtab.data.corpora import open_corpus
from trimtab.data.labelled import open_rows, wanted_fields, with_targets
from trimtab.data.left_out import LeftOut
from trimtab.data.masking import hide_tokens
from trimtab.data.packing import PackedSequences
from trimtab.data.pieces import Piece
from trimtab.data.sequences import Sequences
from trimtab.data.stream import Stream, open_stream
from trimtab.data.targets import target_reader
from trimtab.data.text import batches
from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import DataError
from trimtab.signals import TargetFacts

_FORMAT: Final = 1
"""Part of the cache's key: raise it when other tokens would come from the same text."""
_SIDE: Final = "validation"


def prepare_sets(
    sources: Mapping[str, PlainSource],
    config: DataConfig,
    task: TaskConfig,
    *,
    tokenizer: Tokenizer,
    targets: TargetFacts,
    seed: int,
) -> dict[str, Sequences]:
    """Each set of `sources` by its name, whole, for a model that was trained on other text with `tokenizer`.

    Classes are numbered, and numbers standardized, as `targets` says; tokens are made once and cached by content.

    Raises:
        DataError: text or targets are missing or not readable; a class that is not among those of `targets`.
    """
    return {name: _prepare(name, source, config, task, tokenizer, targets, seed) for name, source in sources.items()}


def fingerprint_of_sets(sources: Mapping[str, PlainSource], task: TaskConfig) -> str:
    """SHA-256 over what is in each set of `sources`. Raises: DataError for one that is not there."""
    contents = {
        name: open_corpus(source, f"evaluation.sets.{name}", wanted_fields(task)).content_hash()
        for name, source in sources.items()
    }
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _prepare(
    name: str,
    source: PlainSource,
    config: DataConfig,
    task: TaskConfig,
    tokenizer: Tokenizer,
    targets: TargetFacts,
    seed: int,
) -> Sequences:
    where = f"evaluation.sets.{name}"
    is_text = isinstance(task, CausalLanguageModeling | MaskedLanguageModeling)
    corpus = open_corpus(source, where, wanted_fields(task))
    content = corpus.content_hash()
    identity: list[Any] = [_FORMAT, content, tokenizer.fingerprint, config.most_bad, targets.to_json()]
    if not is_text:
        identity.append(task.model_dump(exclude={"padding", "bucketing", "class_weights", "target_length"}))

    def build(folder: Path) -> None:
        skipped: LeftOut = LeftOut(config.most_bad)
        with Stream(folder, _SIDE, tokenizer) as stream:
            if is_text:
                pieces = (Piece(_SIDE, document.name, document.text) for document in corpus.documents(skipped))
                for part in batches(pieces):
                    texts = [piece.text for piece in part]
                    for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
                        stream.write(text, tokens)
            else:
                rows = with_targets(task, corpus.documents(skipped), skipped)
                reader = target_reader(task, {"training": [], _SIDE: rows}, folder, targets)
                np.save(folder / f"{_SIDE}.targets.npy", reader.write(rows, tokenizer, stream))
        stream.require_text(where, corpus.description(skipped))
        if content != corpus.content_hash():
            raise DataError(f"{where}: files changed while they were read", hint="start again when they are complete")
        (folder / "facts.json").write_text(json.dumps({_SIDE: stream.facts()}))

    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = cached_folder(f"set-{key[:36]}", build)
    facts = json.loads((folder / "facts.json").read_bytes())
    if not is_text:
        return open_rows(folder, _SIDE, facts, config, task, tokenizer)
    tokens, starts = open_stream(folder, _SIDE, facts[_SIDE]["dtype"])
    if len(tokens) < 2:
        raise DataError(f"{where}: too little text: {len(tokens)} token")
    packed = PackedSequences(
        tokens,
        starts,
        config.sequence_length,
        num_bytes=int(facts[_SIDE]["bytes"]),
        vocabulary_size=tokenizer.vocabulary_size,
        source=str(folder / f"{_SIDE}.tokens.bin"),
    )
    if not isinstance(task, MaskedLanguageModeling):
        return packed
    return hide_tokens(packed, task.mask_rate, tokenizer, seed)
