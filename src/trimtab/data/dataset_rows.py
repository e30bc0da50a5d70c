"""Documents from a data set that Hugging Face `datasets` saved to disk; read with pyarrow alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.config.paths import require_text
from trimtab.data.corpora import Corpus, Document, SourceFile, joined, names_of, require_column
from trimtab.data.left_out import LeftOut
from trimtab.errors import ConfigError, DataError


def dataset_corpus(
    path: str,
    column: str = "text",
    split: str | None = None,
    *,
    where: str = "data.source",
    wanted: Mapping[str, str] | None = None,
) -> Corpus:
    """What `Dataset.save_to_disk` wrote, or one `split` of what `DatasetDict.save_to_disk` wrote; a document is a row.

    Classes (`ClassLabel`) are read by their names. Raises: ConfigError where pyarrow is not installed; DataError for a
    folder that is no data set, or one of several splits where none is named.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"{where}: reading a data set needs pyarrow, which is not installed: pip install 'trimtab[data]'"
        )
    folder = _folder(require_text(path, where), split, where)
    state = _json(folder / "state.json")
    if state.get("_indices_files"):
        raise DataError(
            f"{folder}: its rows are chosen by an index beside it, which is not read",
            hint="save it anew: dataset.flatten_indices().save_to_disk(FOLDER)",
        )
    names = [str(file["filename"]) for file in state["_data_files"]]
    features = _json(folder / "dataset_info.json").get("features") or {}
    reading = {"name": "dataset", "column": column, "features": json.dumps(features, sort_keys=True)}
    files = tuple(SourceFile(name, folder / name) for name in names)
    described = f"data set {path}" + (f", split {split}" if split else "") + f", column {column!r}"
    return Corpus(described, reading, files, _ArrowReader(column, where, wanted or {}, features).read)


def _folder(root: Path, split: str | None, where: str) -> Path:
    """The folder that holds the rows."""
    splits: list[str] = []
    if (root / "dataset_dict.json").is_file():
        splits = [str(name) for name in _json(root / "dataset_dict.json")["splits"]]
        if split is None:
            raise DataError(
                f"{where}.split: the data set at {str(root)!r} has several. Received: null. Allowed: {names_of(splits)}"
            )
    if split is not None and split not in splits:
        raise DataError(
            f"{where}.split: the data set at {str(root)!r} has no such split. Received: {split!r}. "
            f"Allowed: {names_of(splits)}",
            hint=did_you_mean(nearest_names(split, splits)),
        )
    folder = root if split is None else root / split
    if not (folder / "state.json").is_file():
        raise DataError(
            f"{where}.path: no data set of Hugging Face `datasets` lies there: there is no state.json. "
            f"Received: {str(root)!r}",
            hint="write one by dataset.save_to_disk(FOLDER); Parquet and JSON Lines are other sources",
        )
    return folder


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


@final
@dataclass(frozen=True, slots=True)
class _ArrowReader:
    column: str
    where: str
    wanted: Mapping[str, str]
    features: Mapping[str, Any]

    def read(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        """What cannot be understood ends its file: what comes after it is left out, too."""
        try:
            yield from self._rows(file, skipped)
        except DataError as error:
            skipped.pass_over(error)

    def _rows(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        import pyarrow

        columns = [self.column, *self.wanted.values()]
        classes = [_classes_of(self.features.get(name)) for name in self.wanted.values()]
        number = 0
        try:
            with pyarrow.memory_map(str(file.path)) as source, pyarrow.ipc.open_stream(source) as table:
                for where, name in {f"{self.where}.column": self.column, **self.wanted}.items():
                    require_column(name, table.schema.names, where, file.path)
                for batch in table:
                    for value, *fields in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                        number += 1
                        text, words = joined(value, self.wanted)
                        if text is not None and not isinstance(text, str):
                            raise DataError(
                                f"{file.path}:{number}: column {self.column!r} must hold text. "
                                f"Received: {type(text).__name__}"
                            )
                        if text:
                            named = tuple(map(_named, fields, classes))
                            yield Document(f"{file.name}:{number}", text, text, named, words)
                        else:
                            skipped["empty"] += 1
        except pyarrow.ArrowException as error:
            raise DataError(f"{file.path}: cannot be read as Arrow: {error}") from error


def _classes_of(feature: Any) -> Sequence[str] | None:
    """The names of the classes of a column, or of what its lists hold."""
    if isinstance(feature, list):  # a list of one feature, as older versions write sequences
        return _classes_of(feature[0]) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature.get("names") or ()]
    return _classes_of(feature.get("feature"))


def _named(value: Any, classes: Sequence[str] | None) -> Any:
    """A class by its name; -1, which stands for none, is None."""
    if not classes:
        return value
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return classes[value] if 0 <= value < len(classes) else None
    return value
