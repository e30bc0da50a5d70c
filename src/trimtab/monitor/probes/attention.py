"""What each head attends to, in four numbers.

Shape suffixes: H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Final, final

import torch
from torch import nn

from trimtab.model.attention_maps import AttentionCall, HeadMeasures, attention_read, measure_heads
from trimtab.monitor.probes.positions import Positions
from trimtab.signals import Examined, Readings

_METRICS: Final = {
    "entropy": "attention_entropy",
    "relative_entropy": "attention_relative_entropy",
    "first": "attention_on_first",
    "largest_logit": "largest_attention_logit",
}


@final
class AttentionExamination:
    """Entropy, weight on the first key, and largest logit of each head, computed from queries and keys in fp32.

    Padding is left out, and so are queries that see one key alone. Heads whose entropy falls to nothing while their
    largest logit grows go before many divergences; a weight near 1 on the first key is a head at rest.
    """

    name = "attention"

    def __init__(self, seed: int) -> None:
        self._measures: dict[str, HeadMeasures] = {}

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        """Reads wherever a module attends."""
        self._measures = {}
        with Positions.of_pass(model) as positions:

            def keep(call: AttentionCall) -> None:
                mask_BT = positions.counted(call.name)
                fits = mask_BT is not None and mask_BT.shape == (call.num_sequences, call.num_queries)
                self._measures[call.name] = measure_heads(call, mask_BT if fits else None)

            with attention_read(model, keep):
                yield

    def read(self, examined: Examined) -> Readings:
        """Four values a head, and three of the whole: nothing of a model that does not attend."""
        readings = Readings()
        if not self._measures:
            return readings
        for name, measures in self._measures.items():
            for field in fields(measures):
                values_H = getattr(measures, field.name)
                for head, value in enumerate(values_H.unbind()):
                    readings.layers[f"layer/{name}.head_{head}/{_METRICS[field.name]}"] = value
        every = self._measures.values()
        readings.metrics |= {
            "probe/attention_relative_entropy": torch.cat([one.relative_entropy for one in every]).nanmean(),
            "probe/attention_on_first": torch.cat([one.first for one in every]).nanmean(),
            "probe/largest_attention_logit": torch.cat([one.largest_logit for one in every]).amax(),
        }
        self._measures = {}
        return readings
