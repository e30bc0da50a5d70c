"""From a configuration to what training reads: documents, split, tokens, samples and their order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tokenizers

from trimtab.config import (
    AugmentationConfig,
    CausalLanguageModeling,
    DataConfig,
    MaskedLanguageModeling,
    RowTask,
    SequenceToSequence,
    StreamSource,
    TaskConfig,
)
from trimtab.data.augmentation import Augmentation
from trimtab.data.back_translation import identity_of
from trimtab.data.build_tokenizer import Progress, tokenizer_identity
from trimtab.data.cache import cached_folder, cached_json
from trimtab.data.corpora import open_corpus
from trimtab.data.labelled import open_rows, tokenize_rows, wanted_fields
from trimtab.data.loader import Loader
from trimtab.data.masking import hide_tokens
from trimtab.data.mixture import build_mixture
from trimtab.data.order import Order
from trimtab.data.packing import PackedSequences
from trimtab.data.samples import LabelledTexts
from trimtab.data.sequences import Sequences
from trimtab.data.stream import open_stream
from trimtab.data.streamed_rows import StreamedTexts, stream_rows
from trimtab.data.streaming import StreamedSequences, open_spool
from trimtab.data.text import tokenize_text
from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import DataError
from trimtab.signals import TargetFacts

_FORMAT: Final = 7
"""Part of the cache's key: raise it when other tokens would come from the same text."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """All that a run knows of its data."""

    tokenizer: Tokenizer
    vocabulary_size: int
    """Of the model: the tokenizer's, and one more where a token stands for a hidden one."""
    training: Sequences
    validation: Sequences
    order: Order
    """Of the training samples."""
    targets: TargetFacts
    facts: dict[str, Any]
    """JSON values: source, split, sizes, hashes, coverage of the vocabulary, leakage, targets."""
    fingerprint: str
    """SHA-256 over text, split, targets, tokenizer and lengths: equal where the samples are."""
    cache: Path
    """The folder that holds the tokens."""
    augment: Augmentation | None = None
    """What is changed in training samples whenever they are seen."""

    def loader(self, micro_batch_size: int, *, prefetch: int, pin_memory: bool, workers: int = 0) -> Loader:
        """Makes micro-batches of the training samples, in their order, in so many `workers` or a thread."""
        return Loader(
            self.training,
            self.order,
            micro_batch_size,
            prefetch=prefetch,
            pin_memory=pin_memory,
            augment=self.augment,
            workers=workers,
        )

    def cached_json(self, name: str, compute: Callable[[], Any]) -> Any:
        """A JSON value that depends on the tokens alone: from the cache, or computed and kept there."""
        return cached_json(self.cache, name, compute)


def prepare_data(
    config: DataConfig,
    task: TaskConfig | None = None,
    *,
    seed: int,
    micro_batch_size: int = 1,
    block: int | None = None,
    progress: Progress | None = None,
) -> PreparedData:
    """The data that `config` describes, for `task` (causal_lm if not given); tokens are made once and cached by
    content, `seed` orders them and hides some. Texts of similar length stand together in blocks of `block`,
    `micro_batch_size` if not given.

    Raises:
        DataError: text or targets are missing, not readable, or too few for `micro_batch_size` samples.
        ConfigError: the tokenizer lacks its end-of-text token, or an extra is not installed.
        StorageError: the cache cannot be written.
    """
    task = task or CausalLanguageModeling()
    if isinstance(config.source, StreamSource):
        return _streamed(config, config.source, task, seed, progress)
    is_text = isinstance(task, CausalLanguageModeling | MaskedLanguageModeling)
    wanted = wanted_fields(task)
    # Beside a stream there is nothing else to prepare.
    where = "data.validation_source" if config.source is config.validation_source else "data.source"
    corpus = open_corpus(config.source, where, wanted)
    held_out = None
    if config.validation_source is not None:
        held_out = open_corpus(config.validation_source, "data.validation_source", wanted)
    sources = [corpus] if held_out is None else [corpus, held_out]
    contents = [source.content_hash() for source in sources]
    fraction = config.validation_fraction if held_out is None else None
    identity = [_FORMAT, tokenizers.__version__, contents, fraction, tokenizer_identity(config.tokenizer)]
    identity.append(config.duplicates.model_dump())
    if (paraphrase := config.augmentation.back_translation) is not None:
        identity.append(identity_of(paraphrase))
    if config.most_bad:
        identity.append(["skip", config.max_bad])
    if not is_text:
        identity.append(
            task.model_dump(
                exclude={"padding", "bucketing", "class_weights", "target_length", "projection", "normalize"}
            )
        )

    def build(folder: Path) -> None:
        report = progress or (lambda stage, fraction: None)
        if is_text:
            tokenize_text(folder, config, corpus, held_out, report)
        else:
            tokenize_rows(folder, config, task, corpus, held_out, report)
        if contents != [source.content_hash() for source in sources]:
            raise DataError(
                "data.source: files changed while they were read", hint="start again when they are complete"
            )

    folder = cached_folder(_sha256(identity)[:40], build)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
    parts = [facts["training"]["sha256"], facts["validation"]["sha256"], tokenizer.fingerprint, config.sequence_length]
    targets, widths = TargetFacts(), None
    training: Sequences
    validation: Sequences
    if is_text:
        packed = [_open_packed(folder, name, facts, config.sequence_length) for name in ("training", "validation")]
        if where == "data.source":
            _require_to_train_on(packed[0], config, micro_batch_size)
        _require_to_validate_on(packed[1], config)
        plain: PackedSequences | LabelledTexts = packed[0]
        training, validation = packed
        if isinstance(task, MaskedLanguageModeling):
            training, validation = (hide_tokens(one, task.mask_rate, tokenizer, seed) for one in packed)
        facts["tokens_per_epoch"] = packed[0].num_tokens - 1
    else:
        targets = TargetFacts.from_json(facts["targets"])
        texts = [open_rows(folder, name, facts, config, task, tokenizer) for name in ("training", "validation")]
        _require_rows(texts[0], micro_batch_size)
        plain, validation = texts
        training = plain
        widths = texts[0].widths  # not lengths: these would sort what needs no padding, and a target may go with them
        facts["tokens_per_epoch"] = texts[0].num_tokens
        facts |= {"cut_texts": texts[0].num_cut, "longest_text": texts[0].longest}
        parts.append(facts["target_sha256"])
        if isinstance(task, SequenceToSequence):
            parts.append(texts[0].second_length)
    fingerprint = _sha256(parts)
    facts |= {
        "source": corpus.description(facts["skipped"]),
        "sequence_length": config.sequence_length,
        "sequences_per_epoch": len(training),
        "validation_sequences": len(validation),
        "fingerprint": fingerprint,
    }
    if held_out is not None:
        facts["validation_source"] = held_out.description(facts["validation_skipped"])
    mixture = build_mixture(config.source, plain, facts["training"], seed=seed, shuffle=config.shuffle)
    if mixture is not None:
        facts["mixture"] = mixture.facts()
    order = Order(
        len(training),
        seed=seed,
        shuffle=config.shuffle,
        lengths=widths,
        block=block or micro_batch_size,
        bucketing=task.bucketing if isinstance(task, RowTask) else 1,
        mixture=mixture,
    )
    return PreparedData(
        tokenizer,
        vocabulary_of(task, tokenizer, config.augmentation),
        training,
        validation,
        order,
        targets,
        facts,
        fingerprint,
        folder,
    )


def _streamed(
    config: DataConfig, source: StreamSource, task: TaskConfig, seed: int, progress: Progress | None
) -> PreparedData:
    """Training on a stream; the validation set is prepared as ever."""
    quiet = config.duplicates.model_copy(update={"near": "off"})
    held_out = config.model_copy(update={"source": config.validation_source, "duplicates": quiet})
    base = prepare_data(held_out, task, seed=seed, progress=progress)
    if progress is not None:
        progress("reading the beginning of the stream", 0.0)
    streamed: StreamedSequences | StreamedTexts
    if isinstance(task, RowTask):
        streamed = stream_rows(config, source, task, base.targets, base.tokenizer)
    else:
        streamed = StreamedSequences(
            open_spool(source, base.tokenizer, config.most_bad),
            config.sequence_length,
            base.tokenizer.end_of_text,
            base.tokenizer.vocabulary_size,
        )
    order = Order(len(streamed), seed=seed, shuffle=config.shuffle, window=source.window)
    fingerprint = _sha256([base.fingerprint, streamed.head_hash])
    unknown = (
        *("training", "duplicates", "leakage", "vocabulary_coverage", "tokens_per_epoch", "sequences_per_epoch"),
        *("balance", "order", "contradictions", "cut_texts", "longest_text"),
    )
    facts = {name: value for name, value in base.facts.items() if name not in unknown}
    facts |= {
        "source": f"a stream: {source.target}",
        "split": "validation has a source of its own",
        "fingerprint": fingerprint,
        "stream": {"tokens_at_first": streamed.num_tokens, "window": source.window, "resume": source.resume},
    }
    training: Sequences = streamed
    if isinstance(streamed, StreamedTexts):
        facts |= {"cut_texts": streamed.num_cut, "longest_text": streamed.longest}
    elif isinstance(task, MaskedLanguageModeling):
        training = hide_tokens(streamed, task.mask_rate, base.tokenizer, seed)
    return replace(base, training=training, order=order, facts=facts, fingerprint=fingerprint)


def vocabulary_of(task: TaskConfig, tokenizer: Tokenizer, augmentation: AugmentationConfig | None = None) -> int:
    """Tokens that the model knows: the tokenizer's, and one more for hidden tokens where it has none that stands for
    them."""
    hides = isinstance(task, MaskedLanguageModeling) or (
        augmentation is not None and augmentation.span_masking is not None
    )
    return tokenizer.vocabulary_size + (hides and tokenizer.mask is None)


def _open_packed(folder: Path, name: str, facts: dict[str, Any], sequence_length: int) -> PackedSequences:
    tokens, starts = open_stream(folder, name, facts[name]["dtype"])
    return PackedSequences(
        tokens,
        starts,
        sequence_length,
        num_bytes=int(facts[name]["bytes"]),
        vocabulary_size=int(facts["tokenizer"]["vocabulary_size"]),
        source=str(folder / f"{name}.tokens.bin"),
    )


def _require_rows(training: LabelledTexts, micro_batch_size: int) -> None:
    if len(training) < micro_batch_size:
        raise DataError(
            f"data.source: too few texts: {len(training)} to train on, and a micro-batch has {micro_batch_size}",
            hint="give more texts, or lower training.micro_batch_size",
        )


_LOWER: Final = "lower data.sequence_length (now {now}) to at most {most}"


def _require_to_train_on(training: PackedSequences, config: DataConfig, micro_batch_size: int) -> None:
    length = config.sequence_length
    if training.num_tokens - 1 < micro_batch_size * length:
        most = (training.num_tokens - 1) // micro_batch_size
        raise DataError(
            f"data.source: too little text: {training.num_tokens} tokens to train on, and a micro-batch of "
            f"{micro_batch_size} sequences of {length} needs {micro_batch_size * length + 1}",
            hint=(_LOWER.format(now=length, most=most) + ", or " if most >= 2 else "")
            + ("lower training.micro_batch_size, or " if micro_batch_size > 1 else "")
            + "give more text",
        )


def _require_to_validate_on(validation: PackedSequences, config: DataConfig) -> None:
    length = config.sequence_length
    if validation.num_tokens - 1 < length:
        most = validation.num_tokens - 1
        where = "data.source" if config.validation_source is None else "data.validation_source"
        raise DataError(
            f"{where}: too little text to validate on: {validation.num_tokens} tokens, and one sequence of "
            f"{length} needs {length + 1}",
            hint=(_LOWER.format(now=length, most=most) + ", or " if most >= 2 else "")
            + ("raise data.validation_fraction, or " if config.validation_source is None else "")
            + "give more text",
        )


def _sha256(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
