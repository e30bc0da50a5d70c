"""The tokenizer of a Hugging Face model, from its folder: tokens, and the special ones around a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from trimtab.config.registry import require_module
from trimtab.data.frame import Frame
from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import ConfigError, DataError


def load_hugging_face_tokenizer(path: str) -> Tokenizer:
    """The tokenizer in the folder `path`, which puts around texts what it puts there itself, such as [CLS] and [SEP].

    Documents end with its `eos_token`, or `sep_token` where there is none. A tokenizer that puts nothing around a
    text lets it begin after the end of the one before. Raises: DataError for what cannot be read; ConfigError where
    no token ends a text.
    """
    folder = Path(path).expanduser()
    inner = _inner(folder)
    described = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
    config = _json(folder / "config.json")
    named = {key: _id(inner, described.get(key)) for key in ("eos_token", "sep_token", "mask_token", "pad_token")}
    candidates = (named["eos_token"], named["sep_token"], config.get("eos_token_id"))
    end = next((token for token in candidates if token is not None), None)
    if isinstance(end, list):  # several tokens may end what a model writes
        end = end[0]
    name = inner.id_to_token(end) if isinstance(end, int) else None
    if not isinstance(end, int) or name is None:
        raise ConfigError(
            f"data.tokenizer.path: neither an eos_token nor a sep_token ends a text. Received: {path!r}",
            hint="name one: data.tokenizer={name: file, path: FOLDER, end_of_text: TOKEN}",
        )
    before, after = _around(inner)
    second = config.get("decoder_start_token_id")
    frame = Frame(before if before or after else (end,), after, int(end if not isinstance(second, int) else second))
    padding = named["pad_token"] if named["pad_token"] is not None else config.get("pad_token_id")
    return Tokenizer(inner, name, frame=frame, mask=named["mask_token"], padding=padding)


def _inner(folder: Path) -> tokenizers.Tokenizer:
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # its errors have no class of their own
            raise DataError(f"{file}: is no tokenizer.json of Hugging Face tokenizers: {error}") from error
    require_module("transformers", "huggingface", "data.tokenizer.name=hugging_face without a tokenizer.json")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    except Exception as error:  # whatever is missing or broken in it
        raise DataError(f"data.tokenizer.path: no tokenizer in {str(folder)!r} can be read: {error}") from error


def _around(inner: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that the tokenizer's own template puts before and after a text."""
    inner.no_truncation()
    inner.no_padding()
    plain = inner.encode("a", add_special_tokens=False).ids
    whole = inner.encode("a", add_special_tokens=True).ids
    for begin in range(len(whole) - len(plain) + 1):
        if whole[begin : begin + len(plain)] == plain:
            return tuple(whole[:begin]), tuple(whole[begin + len(plain) :])
    return (), ()


def _id(inner: tokenizers.Tokenizer, token: Any) -> int | None:
    """The number of a token by name, or as older files have it, by a mapping with its `content`."""
    name = token.get("content") if isinstance(token, dict) else token
    identity: int | None = inner.token_to_id(name) if isinstance(name, str) else None
    return identity


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError:
        return {}
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}
