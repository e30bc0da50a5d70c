"""From a configuration to a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from trimtab.config import (
    BpeTokenizer,
    ByteTokenizer,
    FileTokenizer,
    HuggingFaceTokenizer,
    TiktokenTokenizer,
    TokenizerConfig,
    UnigramTokenizer,
)
from trimtab.data.hugging_face import load_hugging_face_tokenizer
from trimtab.data.tiktoken_file import load_tiktoken
from trimtab.data.tokenizer import (
    Tokenizer,
    byte_tokenizer,
    load_tokenizer,
    spread_sample,
    train_bpe,
    train_unigram,
)

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of it is (0 to 1)."""


def build_tokenizer(config: TokenizerConfig, texts: Iterable[str], num_bytes: int, report: Progress) -> Tokenizer:
    """The tokenizer that `config` describes; one that learns does so from `texts`, which are `num_bytes` long."""
    match config:
        case BpeTokenizer():
            report("learning the tokenizer", 0.0)
            return train_bpe(spread_sample(texts, num_bytes, config.training_bytes), config.vocabulary_size)
        case UnigramTokenizer():
            report("learning the tokenizer", 0.0)
            return train_unigram(spread_sample(texts, num_bytes, config.training_bytes), config.vocabulary_size)
        case ByteTokenizer():
            return byte_tokenizer()
        case TiktokenTokenizer():
            return load_tiktoken(config.path, config.pattern, config.end_of_text)
        case FileTokenizer():
            return load_tokenizer(config.path, config.end_of_text)
        case HuggingFaceTokenizer():
            return load_hugging_face_tokenizer(config.folder)


def tokenizer_identity(config: TokenizerConfig) -> dict[str, Any]:
    """What decides which tokenizer it is: of a file its content, not where it lies."""
    if isinstance(config, FileTokenizer):
        return {
            "name": config.name,
            "fingerprint": load_tokenizer(config.path, config.end_of_text).fingerprint,
        }
    if isinstance(config, TiktokenTokenizer):
        fingerprint = load_tiktoken(config.path, config.pattern, config.end_of_text).fingerprint
        return {"name": config.name, "fingerprint": fingerprint}
    if isinstance(config, HuggingFaceTokenizer):
        return {"name": config.name, "fingerprint": load_hugging_face_tokenizer(config.folder).fingerprint}
    return config.model_dump()
