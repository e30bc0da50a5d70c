"""What one part of a configuration says for another: a model's folder for the tokenizer, a task for what is best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trimtab.config.base import Section
from trimtab.config.data import HuggingFaceTokenizer, TokenizerConfig
from trimtab.config.fit import FITS, kind_of
from trimtab.config.model import HuggingFaceConfig, ModelConfig

_PLAIN: Final[dict[str, dict[str, Any]]] = {"checkpoint": {}, "stopping": {"name": "patience"}}
"""Sections of which nothing is written."""


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


def with_metrics_of_task(values: Any) -> Any:
    """Values of a whole configuration, in which what tells the best checkpoint is that of the task, or of `stopping`,
    unless they say; and patience waits for the loss of the same weights."""
    checkpoint, stopping = (_said(values, name) for name in ("checkpoint", "stopping"))
    if not isinstance(values, dict) or ("metric" in checkpoint and "metric" in stopping):
        return values
    averaging, fit = _said(values, "averaging"), FITS.get(kind_of(_said(values, "task")))
    is_average = averaging.get("name", "none") != "none" and averaging.get("evaluate") == "average"
    at = f"@{averaging['name']}" if is_average else ""
    chosen = checkpoint.get("metric") or stopping.get("metric")
    chosen = chosen or f"validation/{fit.metrics[0] if fit is not None else 'loss'}{at}"
    changed = {"checkpoint": {"metric": chosen}} if "metric" not in checkpoint else {}
    if "metric" not in stopping and stopping.get("name", "patience") == "patience":
        _, at, variant = str(chosen).partition("@")
        changed["stopping"] = {"metric": f"validation/loss{at}{variant}"}
    # What is no section is left, to be told of.
    sections = {name: _with(values.get(name, _PLAIN[name]), changed[name]) for name in changed}
    return values | sections


def _with(section: Any, changed: dict[str, Any]) -> Any:
    if isinstance(section, Section):
        return section.model_copy(update=changed)
    return section | changed if isinstance(section, dict) else section


def _said(values: Any, name: str) -> Mapping[str, Any]:
    """What is written of a section, in Python, too; nothing where it is no section."""
    section = values.get(name, {}) if isinstance(values, dict) else {}
    if isinstance(section, Section):
        # Which kind it is need not be written in Python: the class says it.
        kind = getattr(section, "name", None)
        return section.model_dump(exclude_unset=True) | ({} if kind is None else {"name": kind})
    return section if isinstance(section, Mapping) else {}


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
