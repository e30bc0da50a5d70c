"""More training rows that say the same in other words, from a function of the user's."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trimtab.config import Custom
from trimtab.config.registry import load_target
from trimtab.data.corpora import Document
from trimtab.errors import ConfigError, DataError

_WHERE = "data.augmentation.back_translation"


def back_translated(config: Custom, rows: Sequence[Document]) -> list[Document]:
    """`rows`, each followed by what the function of `config` makes of its text, with the same fields.

    It is called once, with all texts, and gives for each a text or several; what is empty, or the text itself, adds
    nothing. Source: Sennrich et al. 2016, arXiv 1511.06709; Xie et al. 2020, arXiv 1904.12848, section 2.2.

    Raises: ConfigError where there is no such function; DataError for what it does not do.
    """
    function = load_target(config.target, f"{_WHERE}.target")
    if not callable(function):
        raise ConfigError(f"{_WHERE}.target: must be a function. Received: {config.target!r}")
    try:
        given = list(function([row.text for row in rows], **config.arguments))
    except Exception as error:
        raise DataError(f"{_WHERE}: {config.target} failed: {type(error).__name__}: {error}") from error
    if len(given) != len(rows):
        raise DataError(
            f"{_WHERE}: {config.target} must give one answer for each of {len(rows)} texts. Received: {len(given)}"
        )
    found: list[Document] = []
    for row, answer in zip(rows, given, strict=True):
        found.append(row)
        texts = [answer] if isinstance(answer, str) else list(answer)
        for number, text in enumerate(texts, start=1):
            if not isinstance(text, str):
                raise DataError(
                    f"{_WHERE}: {config.target} must give texts. Received: {type(text).__name__} for {row.name}"
                )
            if text and text != row.text:
                found.append(replace(row, name=f"{row.name}~{number}", text=text, words=None))
    return found


def identity_of(config: Custom) -> dict[str, Any]:
    """What decides what it gives: the function's name and arguments, and its source where that can be read."""
    function = load_target(config.target, f"{_WHERE}.target")
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = ""
    return config.model_dump() | {"source": hashlib.sha256(source.encode()).hexdigest()}
