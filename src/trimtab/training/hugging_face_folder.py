"""A run's model as a folder that transformers loads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from trimtab.config import DecoderConfig, NoQuantization, TransformerShape
from trimtab.config.registry import require_module
from trimtab.errors import StorageError, UsageError
from trimtab.model import Decoder, HuggingFaceModel, evaluating
from trimtab.model.correspondence import architecture_of, converted, described
from trimtab.training.trained import TrainedRun

_TOLERANCE: Final = 1e-4
"""Of the largest logit: what rounding in another order of the same products may make."""


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
            elif isinstance(model, Decoder) and isinstance(trained.config.model, DecoderConfig) and not model.pooled:
                module = _corresponding(trained, model, trained.config.model)
            else:
                module = _refused(trained)
            expected, found_by = _logits(model, trained), type(module)
            _save(module, folder, trained.temperature)
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
    if any("lora_" in name for name, _ in model.module.named_parameters()):
        from trimtab.model.lora import merged

        return merged(model.module)
    return model.module


def _corresponding(trained: TrainedRun, model: Decoder, config: DecoderConfig) -> nn.Module:
    import transformers

    theirs = described(
        config,
        vocabulary_size=model.vocabulary_size,
        max_positions=model.max_positions,
        end_of_text=trained.tokenizer.end_of_text,
        padding=trained.tokenizer.padding,
    )
    positions = model.position_embedding
    table = positions.weight if isinstance(positions, nn.Embedding) else getattr(positions, "table", None)
    tensors: Mapping[str, Tensor] = {name: p.detach().cpu() for name, p in model.named_parameters()}
    auto: Any = transformers.AutoModelForCausalLM
    module: nn.Module = auto.from_config(transformers.AutoConfig.for_model(**theirs), dtype=torch.float32)
    module.load_state_dict(converted(config, tensors, None if table is None else table.detach().cpu()), strict=True)
    return module.eval()


def _refused(trained: TrainedRun) -> nn.Module:
    if isinstance(trained.model, Decoder) and trained.model.pooled:
        raise UsageError(
            f"--to hugging-face: a decoder with a head for whole texts is not converted. Received: task "
            f"{trained.config.task.name}",
            hint="trimtab predict RUN answers for texts; task causal_lm is converted",
        )
    if isinstance(trained.config.model, TransformerShape):
        architecture_of(trained.config.model)
    raise UsageError("--to hugging-face: a custom model has no architecture of transformers")


def _save(module: nn.Module, folder: Path, temperature: float | tuple[float, ...] | None) -> None:
    """As transformers writes it; its configuration says the temperature, which transformers itself does not apply."""
    library: Any = module
    if temperature is not None:
        library.config.calibration_temperature = temperature
    before = library.config.use_cache if hasattr(library.config, "use_cache") else None
    if before is not None:
        library.config.use_cache = True  # who generates wants it
    library.save_pretrained(str(folder))
    if before is not None:
        library.config.use_cache = before


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


def _text(trained: TrainedRun) -> Tensor:
    """Sixteen tokens, all of which the tokenizer has."""
    length = min(16, trained.config.data.sequence_length)
    size = trained.tokenizer.vocabulary_size
    return ((torch.arange(length) * 7919 + 11) % size)[None]


def _logits(model: nn.Module, trained: TrainedRun) -> Tensor:
    """On the CPU, in fp32."""
    device, tokens_1T = next(model.parameters()).device, _text(trained)
    with evaluating(model):
        if isinstance(model, HuggingFaceModel):
            return _theirs(model.module, trained)
        return model(tokens_1T.to(device)).logits.float().cpu()  # type: ignore[no-any-return]


def _theirs(module: Any, trained: TrainedRun) -> Tensor:
    tokens_1T = _text(trained).to(next(module.parameters()).device)
    second = {"decoder_input_ids": tokens_1T} if trained.config.task.name == "seq2seq" else {}
    with torch.no_grad():
        logits: Tensor = module(input_ids=tokens_1T, **second).logits.float().cpu()
    return logits
