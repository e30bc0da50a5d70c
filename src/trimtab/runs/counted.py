"""What a run counts as its targets, in a word: tokens, whole texts, or labels.

The metric is called `tokens` in every task; what people read says what they are. A speed is of the tokens that are
read, in every task: `tokens_per_second` is `tokens_read` over seconds, or `tokens` where each of them is a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_OF_TEXTS: Final = ("classification", "regression", "contrastive")
"""Tasks with one answer to a text."""
_OF_SOME_TOKENS: Final = ("masked_lm", "seq2seq", "token_classification")


def counted_in(facts: Mapping[str, Any]) -> str:
    """`tokens`, `texts`, or `labels` where a text has several; tokens where the task is not known."""
    if facts.get("task") not in _OF_TEXTS:
        return "tokens"
    identity = facts.get("identity")
    several = isinstance(identity, Mapping) and identity.get("config.task.multi_label") is True
    return "labels" if several else "texts"


def counts_every_token(facts: Mapping[str, Any]) -> bool:
    """Whether each token of a text is a target, so that targets can be held against the tokens of an epoch."""
    return facts.get("task") not in (*_OF_TEXTS, *_OF_SOME_TOKENS)
