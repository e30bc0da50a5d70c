"""A run's model as a folder that transformers loads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tokenizers
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from trimtab.config import (
    Classification,
    DecoderConfig,
    EncoderConfig,
    NoQuantization,
    Regression,
    RowTask,
    TransformerShape,
)
from trimtab.config.registry import require_module
from trimtab.errors import StorageError, UsageError
from trimtab.model import Decoder, Encoder, HuggingFaceModel, evaluating
from trimtab.model.correspondence import architecture_of, converted, described
from trimtab.signals import Outputs, outputs_of
from trimtab.training.trained import TrainedRun

_TOLERANCE: Final = 1e-4
"""Of the largest logit: what rounding in another order of the same products may make."""
_MASK: Final = "<|mask|>"
"""Stands for a hidden token where the tokenizer has none for it: the last of the model's vocabulary."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and how it compares."""

    architecture: str
    """The class that loads it."""
    largest_difference: float
    """Between the logits of the run's model and those of the one that was read again, on one text."""
    largest_logit: float
    bytes: int


def write_folder(trained: TrainedRun, out: Path) -> Written:
    """Write the model of `trained` as a folder of transformers, which is read again and compared before it is `out`.

    Raises: ConfigError where transformers has no such model; UsageError, StorageError.
    """
    require_module("transformers", "huggingface", "--to hugging-face")
    if not isinstance(trained.config.training.quantize, NoQuantization):
        raise UsageError(
            "--to hugging-face: the model was trained for quantization, and rounds as transformers does not",
            hint="its quantized/ has the rounded weights",
        )
    from trimtab.model.pretrained import quietly

    model = trained.model
    folder = out.with_name(f".tmp-{out.name}-{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        with quietly():
            if isinstance(model, HuggingFaceModel):
                module = _plain(model)
            elif isinstance(model, Decoder | Encoder) and isinstance(
                trained.config.model, DecoderConfig | EncoderConfig
            ):
                module = _corresponding(trained, model, trained.config.model)
            else:
                module = _refused(trained)
            expected, found_by = _logits(model, trained), type(module)
            _save(module, folder, trained)
            _save_tokenizer(trained, folder)
            read: Any = found_by
            again = read.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
            found = _theirs(again.eval(), trained)
        difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
        if not difference <= _TOLERANCE * largest:
            raise UsageError(
                f"--to hugging-face: {found_by.__name__} gives other logits, by up to {difference:.2g} of "
                f"{largest:.2g}",
                hint="this is a fault of trimtab: please report it with the run's config.yaml",
            )
        if out.is_dir():
            out.rmdir()
        folder.rename(out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    size = sum(file.stat().st_size for file in out.iterdir())
    return Written(found_by.__name__, difference, largest, size)


def _plain(model: HuggingFaceModel) -> nn.Module:
    """The module itself, updates of low rank merged into its weights."""
    if model.vectors is not None and model.vectors.projection is not None:
        raise UsageError(
            "--to hugging-face: the matrix of task.projection is in no class of transformers",
            hint="`--to safetensors` writes all weights; without task.projection vectors are means of its features",
        )
    if any("lora_" in name for name, _ in model.module.named_parameters()):
        from trimtab.model.lora import merged

        return merged(model.module)
    return model.module


def _corresponding(trained: TrainedRun, model: Decoder | Encoder, config: DecoderConfig | EncoderConfig) -> nn.Module:
    import transformers

    from trimtab.model.pretrained import CLASSES

    outputs = outputs_of(trained.config.task, trained.targets, model.vocabulary_size)
    if outputs.vectors is not None:
        raise UsageError(
            f"--to hugging-face: a head for vectors is in no class of transformers. Received: task {outputs.task}",
            hint="`trimtab.open_predictor` gives vectors of texts; train a model of transformers where one is to leave",
        )
    theirs = described(
        config,
        vocabulary_size=model.vocabulary_size,
        max_positions=model.max_positions,
        end_of_text=trained.tokenizer.end_of_text,
        padding=_padding(trained, model, outputs),
    )
    if not outputs.of_tokens:
        names = outputs.classes or ("LABEL_0",)
        theirs |= {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    positions = model.position_embedding
    table = positions.weight if isinstance(positions, nn.Embedding) else getattr(positions, "table", None)
    tensors: Mapping[str, Tensor] = {name: p.detach().cpu() for name, p in model.named_parameters()}
    weights = converted(config, tensors, None if table is None else table.detach().cpu(), outputs)
    auto: Any = getattr(transformers, CLASSES[outputs.task])
    module: nn.Module = auto.from_config(transformers.AutoConfig.for_model(**theirs), dtype=torch.float32)
    module.load_state_dict(weights, strict=True)
    return module.eval()


def _padding(trained: TrainedRun, model: Decoder | Encoder, outputs: Outputs) -> int | None:
    """The token by which transformers finds the end of a text, where it looks for one."""
    tokenizer = trained.tokenizer
    if not (outputs.pooled and isinstance(model, Decoder)):
        return tokenizer.padding
    padding, after = tokenizer.special.padding, tokenizer.frame.after
    if padding in after[-1:]:
        raise UsageError(
            "--to hugging-face: texts end with the token for padding, which transformers passes over to find the last",
            hint="a tokenizer with a pad_token of its own",
        )
    return padding


def _refused(trained: TrainedRun) -> nn.Module:
    if isinstance(trained.config.model, TransformerShape):
        architecture_of(trained.config.model)
    raise UsageError(
        f"--to hugging-face: model.name {trained.config.model.name} is no architecture of transformers",
        hint="`--to safetensors` writes the weights of any model",
    )


def _save(module: nn.Module, folder: Path, trained: TrainedRun) -> None:
    """As transformers writes it. Its configuration also says what answers mean that transformers does not apply: the
    temperature, and mean and deviation of numbers."""
    library: Any = module
    task, config = trained.config.task, library.config
    if trained.temperature is not None:
        config.calibration_temperature = trained.temperature
    if isinstance(task, Classification):
        config.problem_type = ("multi" if task.multi_label else "single") + "_label_classification"
    elif isinstance(task, Regression):
        config.problem_type = "regression"
        config.target_mean, config.target_deviation = trained.targets.mean, trained.targets.deviation
    before = config.use_cache if hasattr(config, "use_cache") else None
    if before is not None:
        config.use_cache = True  # who generates wants it
    library.save_pretrained(str(folder))
    if before is not None:
        config.use_cache = before


def _save_tokenizer(trained: TrainedRun, folder: Path) -> None:
    """That of the model's folder as transformers writes it, or ours as transformers reads it."""
    tokenizer = trained.config.data.tokenizer
    if tokenizer.name == "hugging_face" and Path(tokenizer.folder).is_dir():
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(tokenizer.folder, local_files_only=True, trust_remote_code=False).save_pretrained(
            str(folder)
        )
    else:
        trained.tokenizer.save(folder / "tokenizer.json")
        _complete(trained, folder)


def _complete(trained: TrainedRun, folder: Path) -> None:
    """Let transformers read a text as trimtab does: in its frame, with tokens for padding and for what is hidden."""
    tokenizer, task = trained.tokenizer, trained.config.task
    file, described = folder / "tokenizer.json", folder / "tokenizer_config.json"
    inner, words = tokenizers.Tokenizer.from_file(str(file)), json.loads(described.read_text(encoding="utf-8"))
    end = inner.id_to_token(tokenizer.end_of_text)
    if isinstance(task, RowTask):
        frame = tokenizer.frame
        named = {number: inner.id_to_token(number) for number in (*frame.before, *frame.after)}
        template = [*(named[one] for one in frame.before), "$A", *(named[one] for one in frame.after)]
        inner.post_processor = TemplateProcessing(
            single=template, special_tokens=[(name, number) for number, name in named.items()]
        )
        words.setdefault("pad_token", end)
    elif task.name == "masked_lm" and tokenizer.mask is None:
        if inner.add_special_tokens([_MASK]) and inner.token_to_id(_MASK) == tokenizer.vocabulary_size:
            words["mask_token"] = _MASK
        words.setdefault("pad_token", end)
    else:
        return
    inner.save(str(file))
    described.write_text(json.dumps(words), encoding="utf-8")


def _texts(trained: TrainedRun) -> tuple[Tensor, Tensor | None]:
    """Tokens that the tokenizer has: one text of sixteen; of tasks whose rows are texts two, the second shorter, and
    -1 where it is padded."""
    length = min(16, trained.config.data.sequence_length)
    tokenizer, task = trained.tokenizer, trained.config.task
    size, padding = tokenizer.vocabulary_size, tokenizer.special.padding
    if not isinstance(task, RowTask) or task.name == "seq2seq" or length < 2:
        return ((torch.arange(length) * 7919 + 11) % size)[None], None
    tokens_BT = ((torch.arange(2 * length) * 7919 + 11) % size).view(2, length)
    tokens_BT = torch.where(tokens_BT == padding, (padding + 1) % size, tokens_BT)
    documents_BT = torch.zeros_like(tokens_BT)
    tokens_BT[1, length // 2 :], documents_BT[1, length // 2 :] = padding, -1
    return tokens_BT, documents_BT


def _logits(model: nn.Module, trained: TrainedRun) -> Tensor:
    """On the CPU, in fp32."""
    device, (tokens_BT, documents_BT) = next(model.parameters()).device, _texts(trained)
    with evaluating(model):
        if isinstance(model, HuggingFaceModel):
            return _theirs(model.module, trained)
        documents = None if documents_BT is None else documents_BT.to(device)
        logits: Tensor = model(tokens_BT.to(device), None, documents).logits.float().cpu()
    return _real(logits, documents_BT)


def _theirs(module: Any, trained: TrainedRun) -> Tensor:
    device, (tokens_BT, documents_BT) = next(module.parameters()).device, _texts(trained)
    inputs = {"input_ids": tokens_BT.to(device)}
    if documents_BT is not None:
        inputs["attention_mask"] = (documents_BT >= 0).long().to(device)
    if trained.config.task.name == "seq2seq":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        said = module(**inputs)
    logits: Tensor = (said.logits if "logits" in said else said[0]).float().cpu()  # a model without a head has features
    return _real(logits, documents_BT)


def _real(logits: Tensor, documents_BT: Tensor | None) -> Tensor:
    """Those of whole texts, or of positions that are no padding."""
    return logits if documents_BT is None or logits.ndim == 2 else logits[documents_BT >= 0]
