"""The paths that a configuration names: whether something is there, and where it is whatever the current folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trimtab.config.base import Section
from trimtab.config.data import DataConfig, FileTokenizer
from trimtab.config.run import Config
from trimtab.errors import DataError


def with_absolute_paths(config: Config) -> Config:
    """`config`, in which every path means the same file from whatever folder it is read."""
    data = config.data
    changed: dict[str, Any] = {}
    for name in ("source", "validation_source", "tokenizer"):
        section: Section | None = getattr(data, name)
        if path := getattr(section, "path", None):
            assert section is not None
            whole = os.path.abspath(Path(path).expanduser())
            changed[name] = section.model_copy(update={"path": whole})
    return config.model_copy(update={"data": data.model_copy(update=changed)}) if changed else config


def require_paths(config: DataConfig) -> None:
    """Raises: DataError for text or a tokenizer that is not where `config` says."""
    for name in ("source", "validation_source"):
        if (path := getattr(getattr(config, name), "path", None)) is not None:
            require_text(path, f"data.{name}")
    if isinstance(config.tokenizer, FileTokenizer):
        tokenizer_file(config.tokenizer.path)


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
