"""A run's model, written for other programs: `trimtab export RUN --to TARGET --out PATH`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from trimtab.errors import StorageError, UsageError
from trimtab.model import EncoderDecoder, HuggingFaceModel, evaluating
from trimtab.training.consolidated import read_consolidated, write_consolidated
from trimtab.training.hugging_face_folder import write_folder
from trimtab.training.trained import TrainedRun, open_trained


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    out: str
    target: str
    architecture: str
    """The class that loads it."""
    step: int
    weights: str
    largest_difference: float
    """Between the logits of the run's model and those of the one that was written and read again, on one text."""
    largest_logit: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def export(run: Path, target: str, out: Path, *, checkpoint: str = "best", weights: str | None = None) -> Exported:
    """Write the model of `run` at `out`, which must not be there yet, in the form that `target` names.

    `run`, `checkpoint` and `weights` are as `open_trained` takes them. What was written is read again, and must give
    the same logits. Raises: UsageError, ConfigError where the target has no such model, StorageError.
    """
    if target not in TARGETS:
        raise UsageError(f"--to: there is no such target. Received: {target!r}. Allowed: {', '.join(TARGETS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out: {out} is there already", hint="name a new folder")
    return TARGETS[target](open_trained(run, checkpoint, weights), out)


def _to_safetensors(trained: TrainedRun, out: Path) -> Exported:
    write_consolidated(trained, out)
    read = read_consolidated(out)
    expected, found = _answers(trained.model, trained), _answers(read.model, trained)
    if not torch.equal(found, expected):
        difference = float((found - expected).abs().max())
        raise StorageError(f"{out} does not read back as it was written: outputs differ by up to {difference:.2g}")
    size = out.stat().st_size if out.is_file() else sum(file.stat().st_size for file in out.iterdir())
    name, largest = type(trained.model).__name__, float(expected.abs().max())
    return Exported(str(out), "safetensors", name, trained.checkpoint.step, trained.weights, 0.0, largest, size)


def _answers(model: nn.Module, trained: TrainedRun) -> Tensor:
    """What the model says to one text, on the CPU."""
    length = min(16, trained.config.data.sequence_length)
    tokens_1T = ((torch.arange(length) * 7919 + 11) % trained.tokenizer.vocabulary_size)[None]
    model = model.cpu()
    if isinstance(model, HuggingFaceModel):
        module: Any = model.module
        second = {"decoder_input_ids": tokens_1T} if trained.config.task.name == "seq2seq" else {}
        with torch.no_grad():
            said: Tensor = module(input_ids=tokens_1T, **second).logits
        return said.float()
    with evaluating(model):
        output = model(tokens_1T, None, tokens_1T) if isinstance(model, EncoderDecoder) else model(tokens_1T)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits.float()


def _to_hugging_face(trained: TrainedRun, out: Path) -> Exported:
    one = write_folder(trained, out)
    step, weights = trained.checkpoint.step, trained.weights
    return Exported(
        str(out), "hugging-face", one.architecture, step, weights, one.largest_difference, one.largest_logit, one.bytes
    )


TARGETS: Final[dict[str, Callable[[TrainedRun, Path], Exported]]] = {
    "safetensors": _to_safetensors,
    "hugging-face": _to_hugging_face,
}
