"""From a configuration to a model of Hugging Face transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn

from trimtab.config import HuggingFaceConfig
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.config.paths import model_folder
from trimtab.config.registry import require_module
from trimtab.errors import ConfigError, DataError
from trimtab.model.hugging_face import HuggingFaceModel
from trimtab.model.lora import add_lora
from trimtab.signals import Outputs, SpecialTokens, seeded

CLASSES: Final = {
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "contrastive": "AutoModel",
}
"""Task to transformers' class of models."""


_LOCAL: Final[dict[str, bool]] = {"local_files_only": True, "trust_remote_code": False}
"""Without the second, transformers asks at the terminal whether code in the folder may run."""
_POSITIONS_FROM_PADDING: Final = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "xmod", "data2vec-text", "mpnet"}
)
"""They count positions from the number of the padding token on, and need one that is small."""


def build_pretrained(
    config: HuggingFaceConfig,
    outputs: Outputs,
    *,
    vocabulary_size: int,
    longest_sequence: int,
    special: SpecialTokens,
    seed: int,
) -> HuggingFaceModel:
    """The model that `config` describes, with a head for `outputs`, on the CPU, in fp32.

    Weights that its folder does not have begin at random, from `seed`; torch's generator is left as it was. What is
    not said of the vocabulary and of special tokens in a configuration without a folder follows the tokenizer.

    Raises: ConfigError for what does not go together, or an extra that is missing; DataError for a folder that cannot
    be read.
    """
    require_module("transformers", "huggingface", "model.name=hugging_face")
    if config.lora is not None:
        require_module("peft", "peft", "model.lora")
    with seeded(seed), quietly():
        described = _described(config, outputs, vocabulary_size, special)
        module, new = _build(config, described, outputs)
        model = wrap_pretrained(
            module, outputs, vocabulary_size=vocabulary_size, longest_sequence=longest_sequence, special=special
        )
        if config.document_mask and (why_not := model.set_apart(longest_sequence)) is not None:
            raise ConfigError(
                f"model.document_mask: {model.kind} cannot keep packed documents apart: {why_not}. Received: true",
                hint="leave it out: documents packed in a sequence then see each other",
            )
        model.new = (*new, *(name for name, _ in model.named_parameters() if name.startswith("vectors.")))
        if config.lora is not None:
            add_lora(model, config.lora)
    return model


def build_hollow(
    config: HuggingFaceConfig, outputs: Outputs, vocabulary_size: int, special: SpecialTokens
) -> nn.Module:
    """The module of transformers that `build_pretrained` would take, of whose folder the configuration alone is read.

    Within a `FakeTensorMode` it has shapes and no weights. Raises: as `build_pretrained`.
    """
    require_module("transformers", "huggingface", "model.name=hugging_face")
    with quietly():
        described = _described(config, outputs, vocabulary_size, special)
        if getattr(described, "pad_token_id", None) is None:
            described.pad_token_id = special.padding
        module, _ = _build(config.model_copy(update={"path": None}), described, outputs)
    return module


def _described(config: HuggingFaceConfig, outputs: Outputs, vocabulary_size: int, special: SpecialTokens) -> Any:
    """The configuration of transformers, with what `config` says beside its folder, and what the task asks for."""
    from transformers import AutoConfig

    settings: dict[Any, Any] = dict(config.config)
    name = settings.pop("model_type", None)
    base: Any
    try:
        if config.path is None:
            base = AutoConfig.for_model(name)
        else:
            base = AutoConfig.from_pretrained(str(model_folder(config.path)), **_LOCAL)
    except DataError:
        raise
    except Exception as error:  # transformers raises errors of many kinds
        where = "model.config.model_type" if config.path is None else "model.path"
        raise ConfigError(
            f"{where}: transformers has no such model: {_first_line(error)}. Received: {name or config.path!r}"
        ) from error
    known = {*base.to_dict(), *base.attribute_map}
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"model.config.{key}: the configuration of {base.model_type} has no such key",
                hint=did_you_mean(nearest_names(key, sorted(known))),
            )
    if config.path is None:
        defaults: dict[str, Any] = {
            "vocab_size": vocabulary_size,
            "bos_token_id": special.end_of_text,
            "eos_token_id": special.end_of_text,
            # None, so that no embedding is left untrained: padding may be a token that texts have, too.
            "pad_token_id": base.pad_token_id if base.model_type in _POSITIONS_FROM_PADDING else None,
            "decoder_start_token_id": special.second,
        }
        settings = {
            key: value for key, value in defaults.items() if key in known or key.endswith("token_id")
        } | settings
    if outputs.task in ("classification", "regression", "token_classification"):
        # The folder of a fine-tuned model says its own classes, which must be as many.
        names = outputs.classes or tuple(f"LABEL_{index}" for index in range(outputs.size))
        settings |= {
            "id2label": dict(enumerate(names)),
            "label2id": {label: index for index, label in enumerate(names)},
        }
    if config.path is None:
        try:
            base = type(base)(**settings)
        except Exception as error:  # whatever its constructor raises
            raise ConfigError(f"model.config: {base.model_type} cannot be built so: {_first_line(error)}") from error
    else:
        for key, value in settings.items():
            setattr(base, key, value)
    base.use_cache = False  # of keys and values, which training never reads again
    return base


def _build(config: HuggingFaceConfig, described: Any, outputs: Outputs) -> tuple[nn.Module, list[str]]:
    """The module, and the names of the parameters that its folder did not have."""
    import transformers

    auto: Any = getattr(transformers, CLASSES[outputs.task])
    if type(described) not in auto._model_mapping:
        raise ConfigError(
            f"model: transformers has no {described.model_type} for task {outputs.task}",
            hint=f"one that {CLASSES[outputs.task]} knows",
        )
    try:
        if config.path is None:
            return auto.from_config(described, dtype=torch.float32), []
        module, told = auto.from_pretrained(
            str(model_folder(config.path)),
            config=described,
            dtype=torch.float32,
            output_loading_info=True,
            **_LOCAL,
        )
    except Exception as error:  # transformers raises errors of many kinds
        where = "model.config" if config.path is None else "model.path"
        raise ConfigError(
            f"{where}: {described.model_type} cannot be built for task {outputs.task}: {_first_line(error)}",
            hint="a head for other classes is in the folder: save the model without it"
            if "size mismatch" in str(error) or "mismatch" in str(error)
            else None,
        ) from error
    new = sorted(told["missing_keys"])
    if outputs.of_tokens and new:
        raise ConfigError(
            f"model.path: the folder has no weights for {', '.join(new[:5])}, and task {outputs.task} needs them. "
            f"Received: {config.path!r}",
            hint="a model of that task, or model.config without a path",
        )
    return module, new


def wrap_pretrained(
    module: nn.Module, outputs: Outputs, *, vocabulary_size: int, longest_sequence: int, special: SpecialTokens
) -> HuggingFaceModel:
    """`module`, a model of transformers, for `outputs`. Raises: ConfigError for one that gives others."""
    described: Any = module.config
    size = int(described.get_text_config().vocab_size)
    if size < vocabulary_size:
        raise ConfigError(
            f"model: {type(module).__name__} knows {size:,} tokens, and the data has {vocabulary_size:,}",
            hint="data.tokenizer={name: hugging_face} is the tokenizer of model.path; without a path leave out "
            "model.config.vocab_size"
            + ("" if outputs.task != "masked_lm" else "; a tokenizer without a mask token needs one token more"),
        )
    if getattr(described, "pad_token_id", None) is None:
        described.pad_token_id = special.padding  # those that find the last token of a text ask for it
    try:
        model = HuggingFaceModel(module, outputs.task, padding=int(described.pad_token_id), vectors=outputs.vectors)
    except Exception as error:  # a model that cannot be called so says it in its own way
        raise ConfigError(
            f"model: {type(module).__name__} does not take two texts of six tokens for task {outputs.task}: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error
    wanted: tuple[int | str, ...] = (outputs.size,) if outputs.pooled else ("tokens", outputs.size)
    shape = model.shape_given
    if outputs.vectors is not None:
        wanted = shape[1:]
    fits = len(shape) == len(wanted) + 1 and (outputs.of_tokens or shape[-1] == (outputs.size or shape[-1]))
    if not fits:
        raise ConfigError(
            f"model: {model.kind} does not fit task {outputs.task}, which asks for scores of shape "
            f"{('texts', *wanted)}. Received: {shape}",
            hint=f"a model that {CLASSES[outputs.task]} gives, with num_labels={outputs.size} for classes",
        )
    most = model.most_read
    if most is not None and longest_sequence > most:
        raise ConfigError(
            f"data.sequence_length: {model.kind} has {most:,} positions. Received: {longest_sequence:,}",
            hint=f"data.sequence_length={most}",
        )
    return model


def fingerprint_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def quietly() -> Iterator[None]:
    """Within it transformers tells neither progress nor which weights are new: trimtab does."""
    from transformers.utils import logging as library

    logging: Any = library
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
