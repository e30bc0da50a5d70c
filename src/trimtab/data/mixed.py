"""Several corpora as one, whose documents know where they are from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import final

from trimtab.data.corpora import Corpus, Document, SourceFile
from trimtab.data.left_out import LeftOut


def mixed_corpus(parts: Mapping[str, Corpus]) -> Corpus:
    """The documents of all `parts`, one part after the other; files are named after their part."""
    files: list[SourceFile] = []
    owners: dict[SourceFile, tuple[str, Corpus]] = {}
    for name, corpus in parts.items():
        for file in corpus.files:
            here = SourceFile(f"{name}/{file.name}", file.path)
            files.append(here)
            owners[here] = (name, corpus)
    reading = {"name": "mixture"} | {
        f"{name}.{key}": value for name, corpus in parts.items() for key, value in corpus.reading.items()
    }
    described = "; ".join(f"{name}: {corpus.name}" for name, corpus in parts.items())
    return Corpus(described, reading, tuple(files), _MixedReader(owners).read)


@final
@dataclass(frozen=True, slots=True)
class _MixedReader:
    owners: Mapping[SourceFile, tuple[str, Corpus]]

    def read(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        name, corpus = self.owners[file]
        for document in corpus.read(file, skipped):
            yield replace(document, source=name)
