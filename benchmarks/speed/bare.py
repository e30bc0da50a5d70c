"""The step alone, captured and compiled, on one batch that stays: no loop, data, record or layers around it.

python benchmarks/speed/bare.py 10m
"""

from __future__ import annotations

import sys

import torch
from gate import CASES, Gate

from trimtab.config import Bf16, DecoderConfig
from trimtab.model import build_model
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy
from trimtab.optimizer import AdamW, clip_by_norm, parameter_groups
from trimtab.signals import Batch, Ring
from trimtab.training import Precision, Step, columns_of_step
from trimtab.training.capture import capture


def main() -> None:
    """Replays until the driver ends it."""
    case, device = CASES[sys.argv[1]], torch.device("cuda")
    gate = Gate(12)
    config = DecoderConfig.model_validate(
        {
            "num_layers": case["layers"],
            "hidden_size": case["width"],
            "num_heads": case["heads"],
            "activation": "gelu",
            "positions": {"name": "learned"},
        }
    )
    model = build_model(config, vocabulary_size=case["vocabulary"], sequence_length=case["length"], seed=0)
    model.to(device).train()
    task = CausalLanguageModelingTask(CrossEntropy().to(device))
    step = Step(
        model=model,
        task=task,
        optimizer=AdamW(parameter_groups(model, 0.1), compute_dtype=torch.bfloat16),
        transforms=[clip_by_norm()],
        probes=[],
        precision=Precision(Bf16(), device, torch.bfloat16),
        ring=Ring(columns_of_step(task.term_names, scaled=False), 1, device),
        device=device,
        seed=0,
    )
    tokens = torch.randint(0, case["vocabulary"], (case["batch"], case["length"]))
    zeros = torch.zeros(tokens.shape, dtype=torch.int32)
    batch = Batch(tokens, tokens.roll(-1, 1), zeros, zeros, torch.arange(len(tokens)), tokens.numel())
    count = 1.0 / tokens.numel()
    step.set(learning_rate=1e-4, weight_decay=1.0, clip_threshold=1.0, inverse_targets=count)
    model.compile(dynamic=False)
    graphs = capture(step, batch, in_parts=False)
    resident = batch.to(device)
    while True:
        step.begin()
        graphs.accumulate(resident)
        graphs.update(ends_window=True)
        step.ring.cursor.zero_()
        gate.step()


if __name__ == "__main__":
    main()
