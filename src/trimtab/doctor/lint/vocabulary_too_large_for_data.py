"""vocabulary-too-large-for-data: most tokens of the vocabulary are too rare to be learnt.

Looks for: fewer than 100 tokens of training data for each token of the vocabulary, of a model that predicts tokens.
Why: a token's embedding is learnt from its occurrences alone. Rare tokens keep nearly their random vector, and
    their rows cost memory and compute in every step.
Evidence: the facts `tokenizer` and `tokens_per_epoch`; without the second nothing is said. Without the first the
    vocabulary is what `data.tokenizer` asks for.
Remedy: a smaller vocabulary, or bytes; or more text.
False alarms: a tokenizer that belongs to a pretrained model; with `model.path` nothing is said. The paper asks for 100
    occurrences of 95 % of all tokens; the average of 100 used here is a weaker demand, so it speaks later. It is about
    texts that are written: of tasks that only read tokens nothing is said. Sorting a thousand short texts of 17,000
    tokens into three classes, 2,048 tokens came to a loss of 0.17 and 0.18 (two seeds), 512 to 0.21 and 0.23.
Source: Gowda and May 2020, arXiv 2004.02334, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import BpeTokenizer, Config, HuggingFaceConfig, UnigramTokenizer
from trimtab.doctor.lint.finding import LintFinding

_ENOUGH = 100


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of fewer than a hundred occurrences a token on average."""
    tokenizer, tokens = config.data.tokenizer, facts.get("tokens_per_epoch", 0)
    asked = tokenizer.vocabulary_size if isinstance(tokenizer, BpeTokenizer | UnigramTokenizer) else 0
    size = facts.get("tokenizer", {}).get("vocabulary_size", asked)
    is_pretrained = isinstance(config.model, HuggingFaceConfig) and config.model.path is not None
    writes = config.task.name in ("causal_lm", "masked_lm", "seq2seq")
    if 0 < tokens < _ENOUGH * size and writes and not is_pretrained:
        fitting = max(257, tokens // _ENOUGH)
        yield LintFinding(
            "vocabulary-too-large-for-data",
            "warning",
            "data.tokenizer.vocabulary_size" if asked else "data.tokenizer",
            f"{size:,} tokens in the vocabulary, {tokens:,} in the data: {tokens / size:.0f} occurrences each",
            "rare tokens keep nearly their random vectors, and their rows cost compute in every step",
            f"data.tokenizer.vocabulary_size={fitting}" if asked and fitting < size else None,
            "Gowda and May 2020, arXiv 2004.02334, section 5",
        )
