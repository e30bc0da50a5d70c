"""The paths that a configuration names: whether something is there, and where it is whatever the current folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from trimtab.config.base import Section
from trimtab.config.curriculum import LossCurriculum
from trimtab.config.data import FileTokenizer, HuggingFaceTokenizer, MixtureSource, TiktokenTokenizer
from trimtab.config.evaluation import EvaluationConfig, RunBaseline
from trimtab.config.model import HuggingFaceConfig
from trimtab.config.objective import CrossEntropyConfig
from trimtab.config.run import Config
from trimtab.errors import DataError

_WEIGHTS: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files of weights that transformers reads: the last two through torch's weights_only, which runs no code."""


def with_absolute_paths(config: Config) -> Config:
    """`config`, in which every path means the same file from whatever folder it is read."""
    data = config.data
    changed: dict[str, Any] = {}
    for name in ("source", "validation_source", "tokenizer"):
        section: Section | None = getattr(data, name)
        if isinstance(section, MixtureSource):
            parts = {part: _absolute(one) for part, one in section.sources.items()}
            changed[name] = section.model_copy(update={"sources": parts})
        elif getattr(section, "path", None) is not None:
            assert section is not None
            changed[name] = _absolute(section)
    if isinstance(data.curriculum, LossCurriculum):
        whole = os.path.abspath(Path(data.curriculum.run).expanduser())
        changed["curriculum"] = data.curriculum.model_copy(update={"run": whole})
    if (synonyms := data.augmentation.synonyms) is not None:
        whole = os.path.abspath(Path(synonyms.embeddings).expanduser())
        near = synonyms.model_copy(update={"embeddings": whole})
        changed["augmentation"] = data.augmentation.model_copy(update={"synonyms": near})
    sections: dict[str, Any] = {"data": data.model_copy(update=changed)} if changed else {}
    if judged := _of_evaluation(config.evaluation):
        sections["evaluation"] = config.evaluation.model_copy(update=judged)
    objective = config.objective
    if isinstance(objective, CrossEntropyConfig) and (chosen := objective.distillation) is not None:
        teacher = chosen.model_copy(update={"teacher": os.path.abspath(Path(chosen.teacher).expanduser())})
        sections["objective"] = objective.model_copy(update={"distillation": teacher})
    if isinstance(config.model, HuggingFaceConfig) and config.model.path is not None:
        whole = os.path.abspath(Path(config.model.path).expanduser())
        sections["model"] = config.model.model_copy(update={"path": whole})
    return config.model_copy(update=sections) if sections else config


def _of_evaluation(config: EvaluationConfig) -> dict[str, Any]:
    """The sections of `config` that name paths, with absolute ones."""
    changed: dict[str, Any] = {}
    if isinstance(config.baseline, RunBaseline):
        whole = os.path.abspath(Path(config.baseline.path).expanduser())
        changed["baseline"] = config.baseline.model_copy(update={"path": whole})
    sets = {name: _absolute(source) for name, source in config.sets.items()}
    return changed | ({"sets": sets} if sets else {})


def _absolute(section: Section) -> Section:
    """`section` with a path that is absolute, if it has one."""
    path = getattr(section, "path", None)
    return section if path is None else section.model_copy(update={"path": os.path.abspath(Path(path).expanduser())})


def require_paths(config: Config) -> None:
    """Raises: DataError for text, a tokenizer or a model that is not where `config` says."""
    data = config.data
    sets = {f"evaluation.sets.{name}": source for name, source in config.evaluation.sets.items()}
    for key, source in {**data.plain_sources, **sets}.items():
        if (path := getattr(source, "path", None)) is not None:
            require_text(path, key)
    if isinstance(data.curriculum, LossCurriculum) and not Path(data.curriculum.run).expanduser().is_dir():
        raise DataError(f"data.curriculum.run: there is no run at {data.curriculum.run!r}")
    if (teacher := getattr(config.objective, "distillation", None)) and not Path(teacher.teacher).expanduser().is_dir():
        raise DataError(f"objective.distillation.teacher: there is no run or folder at {teacher.teacher!r}")
    if isinstance(data.tokenizer, FileTokenizer):
        tokenizer_file(data.tokenizer.path)
    if isinstance(data.tokenizer, TiktokenTokenizer) and not Path(data.tokenizer.path).expanduser().is_file():
        raise DataError(f"data.tokenizer.path: there is no file {data.tokenizer.path!r}")
    if isinstance(config.model, HuggingFaceConfig) and config.model.path is not None:
        model_folder(config.model.path)
    if isinstance(data.tokenizer, HuggingFaceTokenizer) and not Path(data.tokenizer.folder).expanduser().is_dir():
        raise DataError(f"data.tokenizer.path: there is no folder {data.tokenizer.path!r}")


def model_folder(path: str) -> Path:
    """The folder of a Hugging Face model at `path`. Raises: DataError unless it holds a configuration and weights."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"model.path: there is no folder {path!r}",
            hint="models are read from local folders; one of the Hub is brought by "
            "`hf download NAME --local-dir FOLDER`",
        )
    if not (folder / "config.json").is_file():
        raise DataError(f"model.path: the folder holds no config.json. Received: {path!r}")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise DataError(f"model.path: the folder holds none of {', '.join(_WEIGHTS)}. Received: {path!r}")
    return folder


def require_text(path: str, where: str) -> Path:
    """The file or folder at `path`, which the setting `where` names. Raises: DataError."""
    root = Path(path).expanduser()
    if not root.exists():
        parent = next((str(folder) for folder in root.absolute().parents if folder.is_dir()), "/")
        raise DataError(
            f"{where}.path: there is nothing at {path!r}",
            hint=f"name a file or folder: {where}.path=PATH; this one exists as far as {parent}",
        )
    if not root.is_file() and not root.is_dir():
        raise DataError(f"{where}.path: must be a file or a folder. Received: {path!r}")
    return root


def tokenizer_file(path: str) -> Path:
    """The `tokenizer.json` at `path`, or in the folder there. Raises: DataError."""
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "tokenizer.json"
    if not file.is_file():
        raise DataError(
            f"data.tokenizer.path: there is no file {str(file)!r}. Received: {path!r}",
            hint="give a tokenizer.json, or the folder that holds it",
        )
    return file
