"""What a pretrained model brings with it: a folder of Hugging Face has its tokenizer, too."""

from __future__ import annotations

from typing import Any

from trimtab.config.data import HuggingFaceTokenizer, TokenizerConfig
from trimtab.config.model import HuggingFaceConfig, ModelConfig


def with_tokenizer_of_model(values: Any) -> Any:
    """Values of a whole configuration, in which a model's folder is also that of the tokenizer, unless they say."""
    if not isinstance(values, dict):
        return values
    path, data = _folder(values.get("model")), values.get("data", {})
    if path is None or not isinstance(data, dict):
        return values
    tokenizer = data.get("tokenizer", {"name": "hugging_face"})
    if isinstance(tokenizer, dict) and tokenizer.get("name") == "hugging_face" and tokenizer.get("path") is None:
        return values | {"data": data | {"tokenizer": tokenizer | {"path": path}}}
    return values


def tokenizer_unlike(model: ModelConfig, tokenizer: TokenizerConfig) -> str:
    """Why `model` cannot read what `tokenizer` gives; "" where it can, as far as is known before they are read."""
    if isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.path is None:
        return "data.tokenizer.path is not set, and there is no model.path whose tokenizer it could be"
    if isinstance(model, HuggingFaceConfig) and model.path is not None and tokenizer.name in ("bpe", "bytes"):
        return (
            f"data.tokenizer.name {tokenizer.name} makes other tokens than the weights in model.path were trained on. "
            "Fitting: hugging_face, the tokenizer of that folder; file"
        )
    return ""


def _folder(model: Any) -> str | None:
    if isinstance(model, HuggingFaceConfig):
        return model.path
    if isinstance(model, dict) and model.get("name") == "hugging_face" and isinstance(model.get("path"), str):
        return str(model["path"])
    return None
