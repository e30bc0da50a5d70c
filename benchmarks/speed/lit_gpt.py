"""LitGPT's pretraining on a model of GPT-2's shape: `python benchmarks/speed/lit_gpt.py 124m [PRECISION]`.

`pip install litgpt`. Its own loop, model, loss, compiling and logging, as `litgpt pretrain` has them; the model has
rotary positions, as it knows no others. PRECISION is bf16-mixed, or bf16-true: weights and moments in bf16, with no
masters.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from gate import CASES, Gate

MOST_TOKENS = 10**11


def main() -> None:
    """Trains until the driver ends it."""
    case = CASES[sys.argv[1]]
    precision = sys.argv[2] if len(sys.argv) > 2 else "bf16-mixed"
    warnings.filterwarnings("ignore")
    gate = Gate(12)
    from litgpt import pretrain  # type: ignore[import-not-found, unused-ignore]
    from litgpt.args import EvalArgs, TrainArgs  # type: ignore[import-not-found, unused-ignore]
    from litgpt.config import Config  # type: ignore[import-not-found, unused-ignore]
    from litgpt.data import DataModule  # type: ignore[import-not-found, unused-ignore]

    class Random(DataModule):  # type: ignore[misc, unused-ignore]
        """Sequences of random tokens, one longer than they are trained on."""

        def connect(self, *arguments: Any, **named: Any) -> None:
            """Nothing to connect to."""

        def train_dataloader(self) -> Any:
            """As its own data modules load."""
            tokens = torch.randint(0, case["vocabulary"], (2_000, case["length"] + 1))
            workers = min(4, (os.cpu_count() or 1) - 1)
            return torch.utils.data.DataLoader(
                tokens, case["batch"], shuffle=True, num_workers=workers, pin_memory=True, drop_last=True  # type: ignore[arg-type]
            )  # fmt: skip

        def val_dataloader(self) -> Any:
            """The same."""
            return self.train_dataloader()

    make = pretrain.instantiate_torch_optimizer

    def counted(*arguments: Any, **named: Any) -> Any:
        optimizer = make(*arguments, **named)
        optimizer.register_step_post_hook(lambda *_: gate.step())
        return optimizer

    pretrain.instantiate_torch_optimizer = counted
    config = Config(
        name="gpt2-shape",
        block_size=case["length"],
        vocab_size=case["vocabulary"],
        padding_multiple=64 if case["vocabulary"] > 1000 else 1,
        n_layer=case["layers"],
        n_head=case["heads"],
        n_embd=case["width"],
        bias=False,
        parallel_residual=False,
        intermediate_size=4 * case["width"],
    )
    pretrain.setup(
        config.name,
        config,
        Path(tempfile.mkdtemp()),
        precision=precision,
        data=Random(),
        train=TrainArgs(
            save_interval=None,
            log_interval=1,
            global_batch_size=case["batch"],
            micro_batch_size=case["batch"],
            max_tokens=MOST_TOKENS,
            max_norm=1.0,
            min_lr=4e-5,
            lr_warmup_steps=2_000,
            tie_embeddings=True,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1),
        devices=1,
        logger_name="csv",
    )


if __name__ == "__main__":
    main()
