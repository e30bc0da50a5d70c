"""Text that comes as it is asked for, and may never end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trimtab.config.base import Custom, Section

if TYPE_CHECKING:
    from trimtab.config.run import Config


class StreamSource(Custom):
    """What a function gives, document by document: a streaming data set, or any iterable; kept on disk as tokens."""

    name: Literal["stream"] = "stream"
    column: str = Field("text", min_length=1, description="the field of the text, where documents are mappings")
    window: int = Field(
        1024, ge=1, le=1_000_000, description="sequences that are shuffled among each other, with data.shuffle"
    )
    resume: Literal["state", "replay"] = Field(
        "state",
        description="how it goes on later: by its state_dict, or by going through all that was read, where it has none",
    )


def beside_stream(config: Config) -> str:
    """Why `config` cannot read a stream; "" where it can."""
    data = config.data
    if not isinstance(data.source, StreamSource):
        return ""
    others = {
        "needs a data.validation_source: nothing is held out of what is not known yet": data.validation_source is None,
        f"does not go with data.tokenizer.name {data.tokenizer.name}, which learns from all text. Fitting: bytes, "
        "file, tiktoken, hugging_face": data.tokenizer.name in ("bpe", "unigram"),
        f"does not go with data.curriculum.name {data.curriculum.name}: what will come is not known": (
            data.curriculum.name != "none"
        ),
        "does not go with data.duplicates that drop: what will come is not known": data.duplicates.drops,
    }
    others |= {
        f"does not go with {key} {span!r}: where an epoch ends is not known": True
        for key, span in _spans(config)
        if re.fullmatch(r"\d\S* epochs", span)
    }
    return next((f"data.source.name stream {other}" for other, is_so in others.items() if is_so), "")


def _spans(section: Section, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text in `section`, and in what it holds, by its key."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        inner = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, tuple) else {}
        for key, one in ({name: value} | {f"{name}.{key}": one for key, one in inner.items()}).items():
            if isinstance(one, Section):
                yield from _spans(one, f"{prefix}{key}.")
            elif isinstance(one, str):
                yield f"{prefix}{key}", one
