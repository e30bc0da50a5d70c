"""Labelled text as people keep it: a folder for each class, with text files in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from trimtab.data.corpora import Corpus, Document, SourceFile, TextReader, files_at
from trimtab.data.left_out import LeftOut
from trimtab.errors import DataError


def folder_corpus(path: str, pattern: str = "*", *, where: str = "data.source") -> Corpus:
    """The text files of a folder whose path matches `pattern`; hidden ones are left out.

    A document is a file, and its one field is its class: the name of the folder at the top in which it lies.

    Raises:
        DataError: there is no such folder, or fewer than two folders with files in it.
    """
    files, is_folder = files_at(path, pattern, where)
    if not is_folder:
        raise DataError(
            f"{where}.path: must be a folder with a folder for each class. Received: {path!r}",
            hint="rows in one file have sources of their own: name=csv, jsonl or parquet",
        )
    labelled = tuple(file for file in files if "/" in file.name)
    classes = sorted({_class_of(file) for file in labelled})
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "no folder with text files"
        raise DataError(
            f"{where}.path: a folder for each class is needed, and there is {found} in {path!r}",
            hint="put the texts of each class into a folder of their own, whose name is the class",
        )
    name = f"{path}, a folder for each of {len(classes)} classes"
    return Corpus(name, {"name": "folder"}, labelled, _LabelledReader(TextReader(skip_binary=True)).read, True)


@final
@dataclass(frozen=True, slots=True)
class _LabelledReader:
    reader: TextReader

    def read(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        for document in self.reader.read(file, skipped):
            # Equal texts on one side, as of rows: a copy under another name is no test.
            yield replace(document, identity=document.text, fields=(_class_of(file),))


def _class_of(file: SourceFile) -> str:
    return file.name.partition("/")[0]
