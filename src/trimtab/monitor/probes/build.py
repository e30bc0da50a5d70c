"""What a run measures: the probes inside its steps, and the examinations between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.config import ClipConfig, Config, LoggingConfig
from trimtab.config.privacy import Disclosure
from trimtab.config.registry import load_target
from trimtab.config.registry.examinations import EXAMINATIONS
from trimtab.data import PreparedData
from trimtab.model import Transformer
from trimtab.monitor.probes.cosine import GradientCosine
from trimtab.monitor.probes.examiner import NEWEST, Examiner
from trimtab.monitor.probes.layers import ActivationScale, ClippedNorms, GradientNorms, WeightNorms
from trimtab.monitor.probes.noise_scale import GradientNoiseScale
from trimtab.runs.privacy import disclosed
from trimtab.signals import Examination, InlineProbe, RememberingProbe, Task

MOST_SEQUENCES: Final = 8


def build_probes(
    config: LoggingConfig,
    clip: ClipConfig,
    model: nn.Module,
    gradients: Mapping[str, Tensor],
    device: torch.device,
    seed: int,
) -> tuple[list[InlineProbe], list[RememberingProbe], GradientNoiseScale | None]:
    """The inline probes for the parameters that have `gradients`; those of them that remember; that of the noise
    scale, which is one of these."""
    probes: list[InlineProbe] = []
    names = list(gradients)
    if config.layers:
        probes = [GradientNorms(names), WeightNorms(names)]
        if clip.name != "none":
            apart = clip.name in ("value", "parameter", "agc") or (clip.name == "norm" and bool(clip.groups))
            probes.append(ClippedNorms(names, apart=apart))
        if isinstance(model, Transformer):
            model.measure_activations = True
            probes.append(ActivationScale(model.signal_names))
    remembering: list[RememberingProbe] = []
    noise_scale = None
    if config.grad_cosine:
        remembering.append(GradientCosine(gradients, seed))
    if config.noise_scale.every:
        noise_scale = GradientNoiseScale(config.noise_scale.every, config.noise_scale.memory, device)
        remembering.append(noise_scale)
    return [*probes, *remembering], remembering, noise_scale


def build_examiner(
    config: Config,
    data: PreparedData,
    *,
    model: nn.Module,
    task: Task,
    device: torch.device,
    weights: Callable[[], Mapping[str, Tensor]],
    autocast: Callable[[], AbstractContextManager[Any]],
    scale: Callable[[], Tensor | None],
    is_due: Callable[[int], bool],
    left: Callable[[], Tensor | None],
) -> Examiner | None:
    """What examines `model` as `config.logging.examine` says; None where nothing is examined in so many steps."""
    asked = config.logging.examine
    if not any(map(is_due, range(1, config.training.steps + 1))):
        return None
    examinations: list[Examination] = [
        load_target(EXAMINATIONS[name].path, f"logging.examine.which={name}")(config.seed) for name in asked.names
    ]
    count = len(data.training)
    most = min(MOST_SEQUENCES, config.evaluation_batch_size)
    num_sequences = min(asked.sequences or most, count)
    batch = data.training.batch(np.arange(num_sequences) * count // num_sequences)
    # What fits into an evaluation fits here: no gradients are recorded.
    at_once = max(num_sequences, min(NEWEST * num_sequences, config.evaluation_batch_size))
    return Examiner(
        examinations,
        model=model,
        task=task,
        batch=batch.to(device),
        weights=weights,
        autocast=autocast,
        scale=scale,
        is_due=is_due,
        batch_of=lambda samples: data.training.batch(np.array(samples, dtype=np.int64), at_once),
        text=_text_of(data.tokenizer.decode, config.privacy.samples),
        seed=config.seed,
        newest_at_once=at_once,
        left=left,
    )


def _text_of(decode: Callable[[Sequence[int]], str], samples: Disclosure) -> Callable[[Sequence[int]], str]:
    """What reads a text for examinations, which may cut it: half a secret, or half an address, is found no more.

    What is hashed, or not told at all, is so when it is told.
    """
    if samples in ("hashed", "off"):
        return decode
    return lambda tokens: disclosed(decode(tokens), samples)
