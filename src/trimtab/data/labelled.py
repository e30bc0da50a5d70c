"""Rows of text with what is asked about them: classes, labels, numbers, tags, or a second text.

A labelled set is read into memory: the texts, not their tokens, which are mapped from disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from trimtab.config import (
    Classification,
    Contrastive,
    DataConfig,
    Regression,
    RowTask,
    SequenceToSequence,
    TaskConfig,
    TokenClassification,
)
from trimtab.data.back_translation import back_translated
from trimtab.data.balance import target_health
from trimtab.data.build_tokenizer import Progress, build_tokenizer
from trimtab.data.corpora import Corpus, Document
from trimtab.data.duplicates import Survey, named
from trimtab.data.left_out import LeftOut
from trimtab.data.samples import LabelledTexts, Ragged
from trimtab.data.split import FEWEST_DOCUMENTS, choose_split
from trimtab.data.stream import Stream, open_stream, shared_facts
from trimtab.data.targets import missing_in, require_target, target_reader
from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import DataError

_SIDES: Final = ("training", "validation")


def wanted_fields(task: TaskConfig) -> dict[str, str]:
    """The fields of a row that `task` needs besides its text, by the setting that names them."""
    match task:
        case Classification():
            return {"task.label": task.label}
        case TokenClassification():
            return {"task.tags": task.tags}
        case Regression():
            return {"task.value": task.value}
        case SequenceToSequence():
            return {"task.target": task.target}
        case Contrastive():
            return {"task.second": task.second} if task.label is None else {"task.label": task.label}
        case _:
            return {}


def tokenize_rows(
    folder: Path, config: DataConfig, task: TaskConfig, corpus: Corpus, held_out: Corpus | None, report: Progress
) -> None:
    """Write tokens, targets, tokenizer and facts into `folder`.

    Raises:
        DataError: a row without what is asked, or with something else; too few rows to hold some out.
    """
    report("reading", 0.0)
    skipped: LeftOut = LeftOut(config.most_bad)
    skipped_held_out: LeftOut = LeftOut(config.most_bad)
    rows = with_targets(task, corpus.documents(skipped), skipped)
    if held_out is None:
        split = choose_split(rows, config.validation_fraction)
        if split.highest_held_out is None:
            raise DataError(
                f"data.source: {len(rows)} rows are too few to hold some out: at least {FEWEST_DOCUMENTS} are needed",
                hint="give more, or a data.validation_source",
            )
        by_side = {side: [row for row in rows if split.divide(row)[index]] for index, side in enumerate(_SIDES)}
        described = split.description
    else:
        by_side = {
            "training": rows,
            "validation": with_targets(task, held_out.documents(skipped_held_out), skipped_held_out),
        }
        described = "validation has a source of its own"
    added: dict[str, int] = {}
    with Survey(folder, config.duplicates) as survey:
        for side, part in by_side.items():
            for row in part:
                survey.add(side, _whole(row, task))
        found = survey.found()
    names = {side: dict(enumerate(row.name for row in part)) for side, part in by_side.items()}
    examples = named(found.examples(), names)
    if config.duplicates.drops:
        dropped = found.dropped(config.duplicates)
        by_side["training"] = [row for row, out in zip(by_side["training"], dropped, strict=True) if not out]
        skipped["duplicate"] += int(dropped.sum())
    if (paraphrase := config.augmentation.back_translation) is not None:
        report("translating back", 0.0)
        told = len(by_side["training"])
        by_side["training"] = back_translated(paraphrase, by_side["training"])
        added = {"back_translated": len(by_side["training"]) - told}
    reader = target_reader(task, by_side, folder)
    texts = [row.text for row in by_side["training"]]
    if has_second(task):
        texts += [row.fields[0] for row in by_side["training"]]
    tokenizer = build_tokenizer(config.tokenizer, texts, max(1, sum(len(text.encode()) for text in texts)), report)
    tokenizer.save(folder / "tokenizer.json")
    streams: dict[str, Stream] = {}
    digest, digests = hashlib.sha256(), dict[str, str]()
    for side, part in by_side.items():
        report("encoding", 0.0 if side == "training" else 0.9)
        with Stream(folder, side, tokenizer) as streams[side]:
            targets = reader.write(part, tokenizer, streams[side])
        np.save(folder / f"{side}.targets.npy", targets)
        digest.update(targets.tobytes())
        digests[side] = hashlib.sha256(targets.tobytes()).hexdigest()
        if side == "training":
            health = target_health(task, part, targets, reader.facts)
    report("encoding", 1.0)
    streams["training"].require_text("data.source", corpus.description(skipped))
    where, source, left_out = "data.source", corpus, skipped
    if held_out is not None:
        where, source, left_out = "data.validation_source", held_out, skipped_held_out
    streams["validation"].require_text(where, source.description(left_out))
    facts = {
        "split": described,
        "skipped": skipped.counts(),
        "validation_skipped": skipped_held_out.counts(),
        "unusable": skipped.named + skipped_held_out.named,
        "duplicates": found.facts() | {"dropped": skipped["duplicate"], "examples": examples},
        **shared_facts(config.tokenizer.name, tokenizer, streams["training"], streams["validation"]),
        "targets": reader.facts.to_json(),
        **health,
        **added,
        "target_sha256": digest.hexdigest(),
        "validation_target_sha256": digests["validation"],
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))


def open_rows(
    folder: Path, name: str, facts: Mapping[str, Any], config: DataConfig, task: TaskConfig, tokenizer: Tokenizer
) -> LabelledTexts:
    """What `tokenize_rows` wrote of one side."""
    pairs = has_second(task)
    second_length = config.sequence_length
    if isinstance(task, SequenceToSequence) and task.target_length is not None:
        second_length = task.target_length
    return LabelledTexts(
        _ragged(folder, name, facts[name]["dtype"]),
        None if isinstance(task, SequenceToSequence) else np.load(folder / f"{name}.targets.npy", mmap_mode="r"),
        end_of_text=tokenizer.end_of_text,
        sequence_length=config.sequence_length,
        full=isinstance(task, RowTask) and task.padding == "full",
        tags=isinstance(task, TokenClassification),
        second=_ragged(folder, f"{name}.second", facts[name]["dtype"]) if pairs else None,
        second_length=second_length,
        frame=tokenizer.frame,
        vocabulary_size=tokenizer.vocabulary_size,
        source=str(folder / f"{name}.tokens.bin"),
    )


def _whole(row: Document, task: TaskConfig) -> str:
    """What makes a row the same as another: its text, and a second text that answers it."""
    return f"{row.text}\n{row.fields[0]}" if has_second(task) else row.text


def has_second(task: TaskConfig) -> bool:
    """Whether a row holds two texts."""
    return isinstance(task, SequenceToSequence) or (isinstance(task, Contrastive) and task.has_pairs)


def _ragged(folder: Path, name: str, dtype: str) -> Ragged:
    tokens, starts = open_stream(folder, name, dtype)
    return Ragged(tokens, np.append(starts, len(tokens)))


def with_targets(task: TaskConfig, documents: Iterator[Document], skipped: LeftOut) -> list[Document]:
    """Rows whose target is there, and can be used; the others are counted."""
    rows = []
    for document in documents:
        if reason := missing_in(document, task):
            skipped[reason] += 1
            continue
        try:
            require_target(document, task)
        except DataError as error:
            skipped.pass_over(error)
        else:
            rows.append(document)
    return rows
