"""What a batch asks of the model. Further tasks join this union."""

from __future__ import annotations

from typing import Literal

from trimtab.config.base import Section


class CausalLanguageModeling(Section):
    """Predict each next token of a text."""

    name: Literal["causal_lm"] = "causal_lm"


TaskConfig = CausalLanguageModeling
