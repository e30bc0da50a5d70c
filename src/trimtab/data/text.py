"""Texts for language models: documents, split, tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from trimtab.config import DataConfig
from trimtab.data.build_tokenizer import Progress, build_tokenizer
from trimtab.data.corpora import Corpus
from trimtab.data.left_out import LeftOut
from trimtab.data.split import choose_split
from trimtab.data.stream import Stream, shared_facts

_ENCODED_AT_ONCE: Final = 1 << 22


class Piece(NamedTuple):
    """A document, or the part of it on one side."""

    side: str
    text: str
    source: str = ""


def tokenize_text(folder: Path, config: DataConfig, corpus: Corpus, held_out: Corpus | None, report: Progress) -> None:
    """Write tokens, document starts, tokenizer and facts into `folder`."""
    report("reading", 0.0)
    most = config.most_bad
    split = choose_split(corpus.documents(LeftOut(most)), config.validation_fraction)
    total = max(1, split.num_bytes)

    def parts(skipped: LeftOut, skipped_held_out: LeftOut) -> Iterator[Piece]:
        for document in corpus.documents(skipped):
            training, validation = (document.text, "") if held_out is not None else split.divide(document)
            if training:
                yield Piece("training", training, document.source)
            if validation:
                yield Piece("validation", validation, document.source)
        for document in held_out.documents(skipped_held_out) if held_out is not None else ():
            yield Piece("validation", document.text)

    texts = (piece.text for piece in parts(LeftOut(most), LeftOut(most)) if piece.side == "training")
    tokenizer = build_tokenizer(config.tokenizer, texts, total, report)
    tokenizer.save(folder / "tokenizer.json")
    skipped: LeftOut = LeftOut(most)
    skipped_held_out: LeftOut = LeftOut(most)
    with (
        Stream(folder, "training", tokenizer) as training,
        Stream(folder, "validation", tokenizer) as validation,
    ):
        streams = {"training": training, "validation": validation}
        for batch in batches(parts(skipped, skipped_held_out)):
            report("encoding", min(1.0, training.num_bytes / total))
            for piece, tokens in zip(batch, tokenizer.encode_batch([one.text for one in batch]), strict=True):
                streams[piece.side].write(piece.text, tokens, piece.source)
        report("encoding", 1.0)
    training.require_text("data.source", corpus.description(skipped))
    if held_out is None:
        validation.require_text("data.source", corpus.description(skipped))
    else:
        validation.require_text("data.validation_source", held_out.description(skipped_held_out))
    facts = {
        "split": split.description if held_out is None else "validation has a source of its own",
        "skipped": skipped.counts(),
        "validation_skipped": skipped_held_out.counts(),
        "unusable": skipped.named + skipped_held_out.named,
        **shared_facts(config.tokenizer.name, tokenizer, training, validation),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))


def batches(parts: Iterator[Piece]) -> Iterator[list[Piece]]:
    """`parts`, several megabytes of text at a time."""
    batch: list[Piece] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.text)
        if size >= _ENCODED_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
