"""How good a model is, measured exactly, and what it writes."""

from trimtab.evaluation.generate import choose_token, generate
from trimtab.evaluation.language import (
    calculate_perplexity,
    evaluate,
    spread_indices,
)
from trimtab.evaluation.predict import predict
from trimtab.evaluation.round import Evaluation, write_text
from trimtab.evaluation.translate import translate, write_answer
from trimtab.evaluation.yardsticks import yardsticks

__all__ = [
    "Evaluation",
    "calculate_perplexity",
    "choose_token",
    "evaluate",
    "generate",
    "predict",
    "spread_indices",
    "translate",
    "write_answer",
    "write_text",
    "yardsticks",
]
