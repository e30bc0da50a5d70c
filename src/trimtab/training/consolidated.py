"""A run's weights in one safetensors file, with all that builds the model around them again.

The file's metadata holds the configuration, what the model was taught to say, and where the weights come from, as JSON.
Its names are those of the module; a tied parameter is there once, under its first name. A model of transformers that
was read from a folder is built from that folder again, and refused where its frozen weights stayed there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trimtab.config import Config, dump_config, load_config
from trimtab.data import Tokenizer
from trimtab.errors import CheckpointError, ConfigError, DataError, StorageError, UsageError
from trimtab.model import HuggingFaceModel
from trimtab.runs.calibration import temperature_in
from trimtab.runs.files import SCHEMA, json_value, sync_folder, write_text
from trimtab.signals import TargetFacts
from trimtab.training.checkpoint import load_model
from trimtab.training.checkpoint.model_state import model_tensors
from trimtab.training.trained import TrainedRun, model_of

WEIGHTS: Final = "model.safetensors"
_TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json")
_ABOUT: Final = "trimtab"


@dataclass(frozen=True, slots=True)
class Consolidated:
    """What an export holds: a model in eval mode on the CPU, and where it comes from."""

    config: Config
    model: nn.Module
    tokenizer: Tokenizer
    targets: TargetFacts
    """Names of its classes, or mean and deviation of what it was taught to say."""
    step: int
    weights: str
    """`plain`, or the kind of an average."""
    metrics: Mapping[str, float]
    """Of the evaluation at that step, if there was one."""
    temperature: float | tuple[float, ...] | None = None
    """By which logits are divided so that answers are as sure as they are right, where one was fitted; of several
    labels one for each."""


def write_consolidated(trained: TrainedRun, out: Path) -> None:
    """Write `trained` to the file `out`, where that ends in .safetensors, else to a new folder of that name.

    A folder has the weights as model.safetensors, config.yaml, and the tokenizer's files; a file has the tokenizer in
    its metadata. Whole or not there. Raises: StorageError; UsageError for a model that is in part in another folder.
    """
    if isinstance(trained.model, HuggingFaceModel) and trained.model.left_out:
        number = len(trained.model.left_out)
        raise UsageError(
            f"--to safetensors: {number} parameters that this run did not train are in model.path, and not in its "
            "checkpoints, so that the file would hold a part of the model",
            hint="--to hugging-face writes all of it, low-rank updates merged",
        )
    as_file = out.suffix == ".safetensors"
    aside = out.with_name(f".tmp-{out.name}-{os.getpid()}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model_tensors(trained.model).items()}
    about = {
        "schema": SCHEMA,
        "config": dump_config(trained.config),
        "step": trained.checkpoint.step,
        "weights": trained.weights,
        "targets": trained.targets.to_json(),
        "metrics": dict(trained.checkpoint.metrics),
        "temperature": trained.temperature,
        "data.fingerprint": trained.fingerprint,
        "sha256": {name: _hash(tensor) for name, tensor in tensors.items()},
    }
    try:
        aside.mkdir(parents=True)
        trained.tokenizer.save(aside / "tokenizer.json")
        if as_file:
            about["tokenizer"] = {name: (aside / name).read_text(encoding="utf-8") for name in _TOKENIZER}
        else:
            write_text(aside / "config.yaml", str(about["config"]))
        metadata = {"format": "pt", _ABOUT: json.dumps(json_value(about), allow_nan=False)}
        safetensors.torch.save_file(tensors, aside / WEIGHTS, metadata)
        for file in aside.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(aside)
        if as_file:
            os.replace(aside / WEIGHTS, out)
        else:
            if out.is_dir():
                out.rmdir()
            aside.rename(out)
        sync_folder(out.parent)
    except (OSError, safetensors.SafetensorError) as error:
        raise StorageError(f"{out}: cannot be written: {error}", hint="is the disk full?") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_consolidated(path: Path) -> Consolidated:
    """The model in a file or folder that `write_consolidated` made; nothing in it is run.

    Raises: CheckpointError where it is something else, damaged, or of a model that this version does not know.
    """
    file = path / WEIGHTS if path.is_dir() else path
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            about = json.loads((opened.metadata() or {})[_ABOUT])
            tensors: dict[str, Tensor] = {f"model/{name}": opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if about["schema"] != SCHEMA:
            found = about["schema"]
            raise CheckpointError(f"{path}: this version of trimtab reads schema {SCHEMA}. Received: {found!r}")
        if altered := [name for name, digest in about["sha256"].items() if _hash(tensors[f"model/{name}"]) != digest]:
            raise CheckpointError(f"{path} is damaged: {', '.join(altered[:3])} is not as it was written")
        targets = TargetFacts.from_json(about["targets"])
        step, weights = int(about["step"]), str(about["weights"])
        temperature = None if about.get("temperature") is None else temperature_in(about)
        metrics = {str(name): float(value) for name, value in about["metrics"].items()}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.yaml").write_text(about["config"], encoding="utf-8")
            config = load_config(Path(folder) / "config.yaml", environment={})
            source = path if path.is_dir() else Path(folder)
            for name, text in about.get("tokenizer", {}).items():
                if name in _TOKENIZER:
                    (source / name).write_text(text, encoding="utf-8")
            tokenizer = Tokenizer.load(source / "tokenizer.json")
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"{path}: {error.message}", hint=error.hint) from error
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no export of trimtab, or is damaged: {error!r}") from error
    model = model_of(config, tokenizer, targets).to(torch.device("cpu")).eval()
    load_model(model, tensors)
    return Consolidated(config, model, tokenizer, targets, step, weights, metrics, temperature)


def _hash(tensor: Tensor) -> str:
    data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data).hexdigest()
