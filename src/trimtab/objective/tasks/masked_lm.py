"""Predict the tokens that were hidden in a text."""

from __future__ import annotations

from typing import final

from trimtab.objective.tasks.parts import TokenTask


@final
class MaskedLanguageModelingTask(TokenTask):
    """The model sees a text with holes, which `data/masking.py` makes, and is asked for what was there.

    Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1.
    """

    name = "masked_lm"
