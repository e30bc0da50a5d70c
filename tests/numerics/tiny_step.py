"""A tiny decoder and its step, built without a configuration file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from trimtab.config import DecoderConfig, Fp32
from trimtab.model import build_model
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy
from trimtab.optimizer import AdamW, Optimizer, clip_by_norm, parameter_groups, skip_non_finite
from trimtab.signals import IGNORED, Batch, PartsProbe, Ring
from trimtab.training import Precision, Step, columns_of_step

VOCABULARY, LENGTH = 23, 8


def make_batch(rows: int, seed: int, *, ignored: float = 0.0) -> Batch:
    """Random tokens; each target is left out with probability `ignored`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=generator)
    targets = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=generator)
    targets[torch.rand(rows, LENGTH, generator=generator) < ignored] = IGNORED
    zeros = torch.zeros(rows, LENGTH, dtype=torch.int32)
    return Batch(tokens, targets, zeros, zeros, torch.arange(rows), int((targets != IGNORED).sum()))


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows."""
    columns = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("tokens_BT", "targets", "document_ids_BT", "positions_BT", "sample_ids_B")
    }
    return Batch(**columns, count=sum(batch.count for batch in batches))


def make_step(
    *,
    dropout: float = 0.0,
    objective: CrossEntropy | None = None,
    precision: Any = None,
    parameters: torch.dtype = torch.float32,
    model: nn.Module | None = None,
    make_optimizer: Callable[[nn.Module], Optimizer] | None = None,
    parts_probe: PartsProbe | None = None,
) -> Step:
    """A step over a two-layer decoder with the same weights every time."""
    config = DecoderConfig.model_validate(
        {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": dropout, "embedding": dropout}}
    )
    model = model or build_model(config, vocabulary_size=VOCABULARY, sequence_length=LENGTH, seed=3)
    task = CausalLanguageModelingTask(objective or CrossEntropy())
    device = torch.device("cpu")
    numbers = Precision(precision or Fp32(), device, parameters)
    columns = columns_of_step(task.term_names, scaled=numbers.scaler is not None)
    ring = Ring([*columns, *(parts_probe.columns if parts_probe else ())], 10, device)
    step = Step(
        model=model.train(),
        task=task,
        optimizer=make_optimizer(model)
        if make_optimizer is not None
        else AdamW(parameter_groups(model, 0.1), compute_dtype=parameters),
        transforms=[clip_by_norm(), skip_non_finite()],
        probes=[parts_probe] if parts_probe else [],
        precision=numbers,
        ring=ring,
        device=device,
        seed=0,
        remembering=[parts_probe] if parts_probe else [],
        parts_probe=parts_probe,
    )
    step.set(learning_rate=1e-2, weight_decay=1.0, clip_threshold=1.0)
    return step
