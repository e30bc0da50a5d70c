"""How good a model is, measured exactly, and what it writes."""

from trimtab.evaluation.batch_norm import batch_norm_buffers, batch_norms, renew_batch_norm
from trimtab.evaluation.generate import choose_token, generate
from trimtab.evaluation.language import (
    calculate_perplexity,
    evaluate,
    spread_indices,
)
from trimtab.evaluation.predict import predict
from trimtab.evaluation.round import Evaluation, Weights, named, write_text
from trimtab.evaluation.translate import translate, write_answer
from trimtab.evaluation.yardsticks import yardsticks

__all__ = [
    "Evaluation",
    "Weights",
    "batch_norm_buffers",
    "batch_norms",
    "calculate_perplexity",
    "choose_token",
    "evaluate",
    "generate",
    "named",
    "predict",
    "renew_batch_norm",
    "spread_indices",
    "translate",
    "write_answer",
    "write_text",
    "yardsticks",
]
