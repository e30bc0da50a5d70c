"""How good a model is, measured exactly, and what it writes."""

from trimtab.evaluation.generate import choose_token, generate
from trimtab.evaluation.language import (
    calculate_perplexity,
    evaluate,
    spread_indices,
)
from trimtab.evaluation.round import Evaluation, write_text
from trimtab.evaluation.yardsticks import yardsticks

__all__ = [
    "Evaluation",
    "calculate_perplexity",
    "choose_token",
    "evaluate",
    "generate",
    "spread_indices",
    "write_text",
    "yardsticks",
]
