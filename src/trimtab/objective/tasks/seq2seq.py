"""Write a second text after reading a first."""

from __future__ import annotations

from typing import final

from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.objective.tasks.parts import TokenTask
from trimtab.signals import Batch


@final
class SequenceToSequenceTask(TokenTask):
    """Teacher forcing: the decoder reads the right second text up to a token, and is asked for that token.

    Source: Sutskever et al. 2014, arXiv 1409.3215; teacher forcing: Williams and Zipser 1989.
    """

    name = "seq2seq"

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """tokens_BT and document_ids_BT of the first text; second_BS, what the decoder reads."""
        if batch.second_BS is None:
            raise ConfigError("task: seq2seq needs pairs of texts, and the batch has no second one")
        return {
            "tokens_BT": batch.tokens_BT,
            "document_ids_BT": batch.document_ids_BT,
            "second_BS": batch.second_BS,
        }
