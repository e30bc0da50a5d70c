"""Sources of text and tokenizers."""

from trimtab.config.registry import Spec

SOURCES: dict[str, Spec] = {
    "embedded": Spec(
        "trimtab.data.corpora:embedded_corpus",
        "code and docstrings of packages that torch installs",
        "sympy, networkx, mpmath: BSD",
    ),
    "text": Spec("trimtab.data.corpora:text_corpus", "text files, or a folder of them", "own"),
    "jsonl": Spec("trimtab.data.corpora:jsonl_corpus", "JSON Lines with a text field", "own"),
    "folder": Spec("trimtab.data.folders:folder_corpus", "text files in a folder for each class", "own"),
    "csv": Spec("trimtab.data.csv_rows:csv_corpus", "CSV with a header and a text column", "own"),
    "parquet": Spec(
        "trimtab.data.parquet_rows:parquet_corpus", "Parquet with a text column", "own", needs=("parquet",)
    ),
}

TOKENIZERS: dict[str, Spec] = {
    "bpe": Spec(
        "trimtab.data.tokenizer:train_bpe",
        "byte-level BPE trained on the run's text",
        "Sennrich et al. 2016, arXiv 1508.07909",
    ),
    "bytes": Spec("trimtab.data.tokenizer:byte_tokenizer", "one token a byte", "own"),
    "file": Spec("trimtab.data.tokenizer:load_tokenizer", "a tokenizer.json from disk", "Hugging Face tokenizers"),
    "hugging_face": Spec(
        "trimtab.data.hugging_face:load_hugging_face_tokenizer",
        "the tokenizer in a model's folder, with the special tokens that it puts around texts",
        "Hugging Face tokenizers",
    ),
}
