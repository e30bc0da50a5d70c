"""What is known before step 1 of a run of another trainer, in the words of facts.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from trimtab.model.mode import largest_dropout
from trimtab.model.size import parameter_counts

_CLASSIFIERS: Final = tuple(f"For{kind}Classification" for kind in ("Sequence", "Image", "Audio", "Video"))
_LANGUAGE_MODELS: Final = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration")


def facts_of_model(model: nn.Module) -> dict[str, Any]:
    """Parameters, and the size of the vocabulary or the number of classes where the model's configuration tells."""
    facts: dict[str, Any] = {"parameters": parameter_counts(model), "model": type(model).__name__}
    facts |= largest_dropout(model)
    config = getattr(model, "config", None)
    size = getattr(config, "vocab_size", None)
    if isinstance(size, int) and type(model).__name__.endswith(_LANGUAGE_MODELS):
        facts["tokenizer"] = {"vocabulary_size": size}
    return facts | classes_of_model(model)


def classes_of_model(model: nn.Module) -> dict[str, Any]:
    """`num_classes`, of which one is said; nothing of another model, or where each label is asked by itself."""
    config = getattr(model, "config", None)
    labels = getattr(config, "num_labels", None)
    one_of_them = getattr(config, "problem_type", None) in (None, "single_label_classification")
    if isinstance(labels, int) and labels > 1 and one_of_them and type(model).__name__.endswith(_CLASSIFIERS):
        return {"num_classes": labels}
    return {}


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under our names, as the doctor looks for them; those that are None are not known."""
    return {f"config.{name}": value for name, value in settings.items() if value is not None}
