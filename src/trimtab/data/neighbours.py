"""Tokens that stand near each other in the embeddings of a model.

Shape suffixes: V tokens · D size · K neighbours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import SynonymsConfig
from trimtab.errors import ConfigError, DataError

_AT_ONCE: Final = 512


def neighbours_of(
    embeddings_VD: NDArray[np.float32], number: int, similarity: float, never: tuple[int, ...] = ()
) -> NDArray[np.int32]:
    """The `number` tokens nearest to each by the cosine, nearest first, [V, K]; -1 where it is below `similarity`.

    Those that are `never` a neighbour have none either.
    """
    size = len(embeddings_VD)
    norms = np.linalg.norm(embeddings_VD, axis=1, keepdims=True)
    unit_VD = embeddings_VD / np.where(norms == 0.0, 1.0, norms)
    found = np.full((size, min(number, size - 1)), -1, dtype=np.int32)
    outside = [token for token in never if token < size]
    for begin in range(0, size, _AT_ONCE):
        cosines = unit_VD[begin : begin + _AT_ONCE] @ unit_VD.T
        rows = np.arange(len(cosines))
        cosines[rows, begin + rows] = -np.inf
        cosines[:, outside] = -np.inf
        near = np.argsort(-cosines, axis=1, kind="stable")[:, : found.shape[1]]
        found[begin : begin + len(cosines)] = np.where(np.take_along_axis(cosines, near, 1) >= similarity, near, -1)
    found[outside] = -1
    return found


def read_embeddings(config: SynonymsConfig, vocabulary_size: int) -> NDArray[np.float32]:
    """The table that `config` names: [vocabulary_size, D].

    Raises: DataError for what is not there, or cannot be read; ConfigError where none, or several, could be meant.
    """
    path = Path(config.embeddings).expanduser()
    where = "data.augmentation.synonyms.embeddings"
    if path.suffix == ".npy" and path.is_file():
        tables: dict[str, NDArray[Any]] = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}
    else:
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise DataError(
                f"{where}: neither a .npy or .safetensors file nor a folder that holds one. "
                f"Received: {config.embeddings!r}"
            )
        tables = _tables(files, vocabulary_size)
    fitting = {name: table for name, table in tables.items() if table.ndim == 2 and len(table) >= vocabulary_size}
    if config.tensor is not None:
        fitting = {name: table for name, table in fitting.items() if name == config.tensor}
    elif len(fitting) > 1:
        likely = {name: table for name, table in fitting.items() if "embed" in name or "wte" in name}
        fitting = {name: likely[name] for name in sorted(likely, key=lambda one: not one.startswith("model/"))[:1]}
    if len(fitting) != 1:
        raise ConfigError(
            f"data.augmentation.synonyms.tensor: no table of at least {vocabulary_size} tokens goes by it. "
            f"Received: {config.tensor!r}. Tables there: {', '.join(list(tables)[:12]) or 'none'}"
        )
    (table,) = fitting.values()
    return np.asarray(table[:vocabulary_size], dtype=np.float32)


def _tables(files: list[Path], vocabulary_size: int) -> dict[str, NDArray[Any]]:
    """The tensors of two dimensions that are high enough, by name."""
    import torch
    from safetensors import SafetensorError, safe_open

    tables: dict[str, NDArray[Any]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
                    shape = tensors.get_slice(name).get_shape()
                    if len(shape) == 2 and shape[0] >= vocabulary_size:
                        tables[name] = tensors.get_tensor(name).to(torch.float32).numpy()
        except (OSError, SafetensorError) as error:
            raise DataError(f"{file}: cannot be read as safetensors: {error}") from error
    return tables
