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
    "dataset": Spec(
        "trimtab.data.dataset_rows:dataset_corpus",
        "what Hugging Face `datasets` saved to disk",
        "Lhoest et al. 2021, arXiv 2109.02846",
        needs=("data",),
    ),
    "stream": Spec(
        "trimtab.data.spool:Spool",
        "what a function gives, document by document, kept on disk as tokens",
        "own",
    ),
    "mixture": Spec(
        "trimtab.data.mixed:mixed_corpus",
        "several sources, each with its share of every epoch",
        "Raffel et al. 2020, arXiv 1910.10683, section 3.5.2",
    ),
}

TOKENIZERS: dict[str, Spec] = {
    "bpe": Spec(
        "trimtab.data.tokenizer:train_bpe",
        "byte-level BPE trained on the run's text",
        "Sennrich et al. 2016, arXiv 1508.07909",
    ),
    "unigram": Spec(
        "trimtab.data.tokenizer:train_unigram",
        "unigram pieces of words, on bytes, trained on the run's text",
        "Kudo 2018, arXiv 1804.10959",
    ),
    "tiktoken": Spec("trimtab.data.tiktoken_file:load_tiktoken", "a .tiktoken file from disk", "tiktoken"),
    "bytes": Spec("trimtab.data.tokenizer:byte_tokenizer", "one token a byte", "own"),
    "file": Spec("trimtab.data.tokenizer:load_tokenizer", "a tokenizer.json from disk", "Hugging Face tokenizers"),
    "hugging_face": Spec(
        "trimtab.data.hugging_face:load_hugging_face_tokenizer",
        "the tokenizer in a model's folder, with the special tokens that it puts around texts",
        "Hugging Face tokenizers",
    ),
}
