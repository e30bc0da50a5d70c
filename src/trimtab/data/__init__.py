"""From text to micro-batches: where documents come from, how they become tokens, in what order they come."""

from trimtab.data.cache import cache_folder
from trimtab.data.corpora import Corpus, Document, open_corpus
from trimtab.data.frame import Frame
from trimtab.data.further import fingerprint_of_sets, prepare_sets
from trimtab.data.loader import Loader, Window
from trimtab.data.masking import MaskedSequences
from trimtab.data.order import DataPlan, Order
from trimtab.data.packing import PackedSequences
from trimtab.data.prepare import PreparedData, prepare_data, vocabulary_of
from trimtab.data.samples import LabelledTexts, Ragged
from trimtab.data.sequences import Sequences
from trimtab.data.targets import tokenized_words
from trimtab.data.tiktoken_file import load_tiktoken
from trimtab.data.tokenizer import END_OF_TEXT, Tokenizer, byte_tokenizer, load_tokenizer, train_bpe, train_unigram

__all__ = [
    "END_OF_TEXT",
    "Corpus",
    "DataPlan",
    "Document",
    "Frame",
    "LabelledTexts",
    "Loader",
    "MaskedSequences",
    "Order",
    "PackedSequences",
    "PreparedData",
    "Ragged",
    "Sequences",
    "Tokenizer",
    "Window",
    "byte_tokenizer",
    "cache_folder",
    "fingerprint_of_sets",
    "load_tiktoken",
    "load_tokenizer",
    "open_corpus",
    "prepare_data",
    "prepare_sets",
    "tokenized_words",
    "train_bpe",
    "train_unigram",
    "vocabulary_of",
]
