"""Texts for language models: documents, split, tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trimtab.config import DataConfig
from trimtab.data.build_tokenizer import Progress, build_tokenizer
from trimtab.data.corpora import Corpus
from trimtab.data.duplicates import Duplicates, Survey, named, names_of
from trimtab.data.left_out import LeftOut
from trimtab.data.pieces import Piece, Pieces
from trimtab.data.split import choose_split
from trimtab.data.stream import Stream, shared_facts

_ENCODED_AT_ONCE: Final = 1 << 22


def tokenize_text(folder: Path, config: DataConfig, corpus: Corpus, held_out: Corpus | None, report: Progress) -> None:
    """Write tokens, document starts, tokenizer and facts into `folder`."""
    report("reading", 0.0)
    most = config.most_bad
    split = choose_split(corpus.documents(LeftOut(most)), config.validation_fraction)
    total = max(1, split.num_bytes)
    pieces = Pieces(corpus, held_out, split, most)
    found: Duplicates | None = None
    if config.duplicates.drops:
        report("looking for duplicates", 0.0)
        with Survey(folder, config.duplicates) as survey:
            for piece in pieces.read():
                survey.add(piece.side, piece.text)
            found = survey.found()
        examples = examples_of(found, pieces)
        pieces.dropped = found.dropped(config.duplicates)
    tokenizer = build_tokenizer(config.tokenizer, pieces.training_texts(), total, report)
    tokenizer.save(folder / "tokenizer.json")
    skipped: LeftOut = LeftOut(most)
    skipped_held_out: LeftOut = LeftOut(most)
    with (
        Stream(folder, "training", tokenizer) as training,
        Stream(folder, "validation", tokenizer) as validation,
        Survey(folder, config.duplicates) as survey,
    ):
        streams = {"training": training, "validation": validation}
        for batch in batches(pieces.read(skipped, skipped_held_out)):
            report("encoding", min(1.0, training.num_bytes / total))
            for piece, tokens in zip(batch, tokenizer.encode_batch([one.text for one in batch]), strict=True):
                streams[piece.side].write(piece.text, tokens, piece.source)
                if not config.duplicates.drops:
                    survey.add(piece.side, piece.text)
        report("encoding", 1.0)
        if found is None:
            found = survey.found()
            examples = examples_of(found, pieces)
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
        "duplicates": found.facts() | {"dropped": int(pieces.dropped.sum()), "examples": examples},
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


def examples_of(found: Duplicates, pieces: Pieces) -> list[list[str]]:
    """Some pairs of documents that repeat each other, by name."""
    examples = found.examples()
    return named(examples, names_of(examples, ((piece.side, piece.name) for piece in pieces.read())))
