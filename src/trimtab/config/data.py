"""Where text comes from, how it becomes tokens, and in what order they are seen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trimtab.config.augmentation import AugmentationConfig
from trimtab.config.base import Count, Positive, Section, Texts
from trimtab.config.curriculum import CurriculumConfig, NoCurriculum
from trimtab.config.duplicates import DuplicatesConfig
from trimtab.config.stream import StreamSource


class EmbeddedSource(Section):
    """Python code and its English docstrings, in packages that torch itself installs (22 MB, BSD)."""

    name: Literal["embedded"] = "embedded"
    packages: Texts = Field(
        ("sympy", "networkx", "mpmath"),
        min_length=1,
        description="installed packages whose .py files are read",
    )


class TextSource(Section):
    """A text file, or a folder of them; a document is a file."""

    name: Literal["text"] = "text"
    path: str = Field(min_length=1, description="a file or a folder")
    pattern: str = Field("*", min_length=1, description="which files of a folder, searched at any depth")

    @model_validator(mode="after")
    def _is_plain_text(self) -> Self:
        for suffix, name in ((".jsonl", "jsonl"), (".parquet", "parquet"), (".csv", "csv")):
            if self.path.lower().endswith(suffix):
                raise ValueError(f"a {suffix} file is not read as plain text: use name={name} instead of name=text")
        return self


class JsonLinesSource(Section):
    """JSON Lines: a document is the text in one field of a line."""

    name: Literal["jsonl"] = "jsonl"
    path: str = Field(min_length=1, description="a .jsonl file, or a folder of them")
    field: str = Field("text", min_length=1, description="the key that holds the text")


class ParquetSource(Section):
    """Parquet: a document is the text in one column of a row (extra: parquet)."""

    name: Literal["parquet"] = "parquet"
    path: str = Field(min_length=1, description="a .parquet file, or a folder of them")
    column: str = Field("text", min_length=1, description="the column that holds the text")


class CsvSource(Section):
    """CSV with a header: a document is the text in one column of a row."""

    name: Literal["csv"] = "csv"
    path: str = Field(min_length=1, description="a .csv or .tsv file, or a folder of .csv files")
    column: str = Field("text", min_length=1, description="the column that holds the text")
    delimiter: str = Field(",", min_length=1, max_length=1, description="between columns; a tab for .tsv")


class FolderSource(Section):
    """Labelled text files: the folder at the top that a file lies in names its class; a document is a file."""

    name: Literal["folder"] = "folder"
    path: str = Field(min_length=1, description="a folder with a folder for each class")
    pattern: str = Field("*", min_length=1, description="which files, searched at any depth")


class DatasetSource(Section):
    """A data set that Hugging Face `datasets` saved to disk: a document is one column of a row (extra: data)."""

    name: Literal["dataset"] = "dataset"
    path: str = Field(min_length=1, description="the folder that save_to_disk wrote")
    split: str | None = Field(None, min_length=1, description="which one, where it has several")
    column: str = Field("text", min_length=1, description="the column that holds the text")


PlainSource = Annotated[
    EmbeddedSource | TextSource | JsonLinesSource | ParquetSource | CsvSource | DatasetSource | FolderSource,
    Field(discriminator="name"),
]


class MixtureSource(Section):
    """Several sources, of which each has its share of every epoch."""

    name: Literal["mixture"] = "mixture"
    sources: dict[str, PlainSource] = Field(min_length=2, description="by names of your own")
    weights: dict[str, Positive] = Field(
        default_factory=dict, description="how much is seen of each source; without, as much as it has"
    )
    temperature: float = Field(
        1.0,
        ge=1.0,
        le=100.0,
        description="weights, or sizes, count to the power 1/temperature: above 1 small sources are seen more often",
    )

    @model_validator(mode="after")
    def _weighs_all(self) -> Self:
        if self.weights and set(self.weights) != set(self.sources):
            raise ValueError(
                f"weights are of {', '.join(sorted(self.weights))}, and sources are {', '.join(sorted(self.sources))}: "
                "give one for each source, or none"
            )
        return self


SourceConfig = Annotated[
    EmbeddedSource
    | TextSource
    | JsonLinesSource
    | ParquetSource
    | CsvSource
    | DatasetSource
    | FolderSource
    | MixtureSource
    | StreamSource,
    Field(discriminator="name"),
]


class BpeTokenizer(Section):
    """Byte-level byte-pair encoding, trained on the training documents and cached by their content."""

    name: Literal["bpe"] = "bpe"
    vocabulary_size: int = Field(
        4096, ge=257, le=65_536, description="tokens, the 256 bytes and <|endoftext|> included"
    )
    training_bytes: int = Field(
        8_000_000,
        ge=1_000,
        description="at most so much text is read to learn the merges, spread over all documents",
    )


class UnigramTokenizer(Section):
    """A unigram model of word pieces (Kudo 2018), on bytes, trained on the training documents and cached."""

    name: Literal["unigram"] = "unigram"
    vocabulary_size: int = Field(
        4096, ge=300, le=65_536, description="tokens, the 256 bytes and <|endoftext|> included"
    )
    training_bytes: int = Field(
        8_000_000,
        ge=1_000,
        description="at most so much text is read to learn the pieces, spread over all documents",
    )


class TiktokenTokenizer(Section):
    """A `.tiktoken` file, read from disk; nothing is downloaded."""

    name: Literal["tiktoken"] = "tiktoken"
    path: str = Field(min_length=1, description="the file: a token in base64 and its rank on each line")
    pattern: Literal["gpt2", "cl100k", "o200k"] = Field(
        "cl100k", description="how it cuts a text into words, which is not in the file"
    )
    end_of_text: str = Field("<|endoftext|>", min_length=1, description="the token that ends a document, added to them")


class ByteTokenizer(Section):
    """One token a byte, and one for the end of a document: 257 tokens."""

    name: Literal["bytes"] = "bytes"


class FileTokenizer(Section):
    """A `tokenizer.json` of Hugging Face tokenizers, read from disk."""

    name: Literal["file"] = "file"
    path: str = Field(min_length=1, description="a tokenizer.json, or the folder that holds it")
    end_of_text: str = Field("<|endoftext|>", min_length=1, description="the token that ends a document")


class HuggingFaceTokenizer(Section):
    """The tokenizer of a Hugging Face model, with the special tokens that it puts around texts."""

    name: Literal["hugging_face"] = "hugging_face"
    path: str | None = Field(None, min_length=1, description="the folder that holds it; model.path if not given")

    @property
    def folder(self) -> str:
        """`path`, which a whole configuration always has."""
        assert self.path is not None
        return self.path


TokenizerConfig = Annotated[
    BpeTokenizer | UnigramTokenizer | ByteTokenizer | FileTokenizer | TiktokenTokenizer | HuggingFaceTokenizer,
    Field(discriminator="name"),
]


class DataConfig(Section):
    """Text, tokens, sequences and their order."""

    source: SourceConfig = Field(default_factory=EmbeddedSource)
    validation_source: PlainSource | None = Field(
        None, description="held-out text; without it, a part of the source's documents is held out"
    )
    validation_fraction: float = Field(
        0.05,
        gt=0.0,
        lt=0.5,
        description="part of the documents held out, chosen by hash; of fewer than 20 documents, the end of each",
    )
    tokenizer: TokenizerConfig = Field(default_factory=BpeTokenizer)
    sequence_length: int = Field(256, ge=2, le=131_072, description="tokens in a sequence")
    duplicates: DuplicatesConfig = Field(default_factory=DuplicatesConfig)
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    curriculum: CurriculumConfig = Field(default_factory=NoCurriculum)
    shuffle: bool = Field(True, description="a new order of sequences in every epoch, from the seed")
    prefetch: Count = Field(2, description="windows of batches prepared ahead, in a thread, or in data.workers")
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="processes that make batches; 0: a thread, which keeps up wherever little is done to a sample",
    )
    on_bad: Literal["stop", "skip"] = Field(
        "stop", description="what a record, or a file, means that is torn, undecodable, or lacks what is asked for"
    )
    max_bad: Count = Field(100, description="so many are passed over in a source; one more is an error")

    @property
    def plain_sources(self) -> dict[str, PlainSource | StreamSource]:
        """The sources, those of a mixture one by one, by the keys that they stand at."""
        mixed = {f"data.source.sources.{name}": one for name, one in getattr(self.source, "sources", {}).items()}
        found = mixed or {"data.source": self.source}
        return found | ({} if self.validation_source is None else {"data.validation_source": self.validation_source})

    @property
    def most_bad(self) -> int:
        """Records and files of a source that may be passed over."""
        return self.max_bad if self.on_bad == "skip" else 0
