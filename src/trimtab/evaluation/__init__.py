"""How good a model is, measured exactly, and what it writes."""

from trimtab.evaluation.generate import choose_token, generate
from trimtab.evaluation.language import (
    Sequences,
    calculate_perplexity,
    evaluate,
    perplexity_of,
    spread_indices,
)
from trimtab.evaluation.round import Evaluation, write_text
from trimtab.evaluation.yardsticks import yardsticks

__all__ = [
    "Evaluation",
    "Sequences",
    "calculate_perplexity",
    "choose_token",
    "evaluate",
    "generate",
    "perplexity_of",
    "spread_indices",
    "write_text",
    "yardsticks",
]
