"""Lightning around nanoGPT's model, compiled: `python benchmarks/speed/pytorch_lightning.py 124m FOLDER`."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import lightning
import torch
from gate import CASES, Gate


class Module(lightning.LightningModule):
    """The model, and AdamW in its fused form."""

    def __init__(self, case: dict[str, int]) -> None:
        super().__init__()
        from model import GPT, GPTConfig  # type: ignore[import-not-found, unused-ignore]

        padded = -(-case["vocabulary"] // 64) * 64 if case["vocabulary"] > 1000 else case["vocabulary"]
        config = GPTConfig(
            block_size=case["length"],
            vocab_size=padded,
            n_layer=case["layers"],
            n_head=case["heads"],
            n_embd=case["width"],
            dropout=0.0,
            bias=False,
        )
        self.plain = GPT(config)
        self.model = torch.compile(self.plain)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> Any:
        """The model's own loss."""
        return self.model(*batch)[1]

    def configure_optimizers(self) -> Any:
        """nanoGPT's."""
        return self.plain.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cuda")

    def configure_gradient_clipping(self, optimizer: Any, *arguments: Any, **named: Any) -> None:
        """Lightning refuses its own clipping with a fused AdamW."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)


class Counts(lightning.Callback):
    """Tells the gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_train_batch_end(self, *arguments: Any, **named: Any) -> None:
        """After each update."""
        self.gate.step()


def main() -> None:
    """Trains until the driver ends it."""
    case = CASES[sys.argv[1]]
    sys.path.insert(0, sys.argv[2])
    warnings.filterwarnings("ignore")
    gate = Gate(12)
    torch.set_float32_matmul_precision("high")
    tokens = torch.randint(0, case["vocabulary"], (2_000, case["length"] + 1))
    data = torch.utils.data.TensorDataset(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    loader = torch.utils.data.DataLoader(
        data, case["batch"], shuffle=True, num_workers=4, pin_memory=True, persistent_workers=True, drop_last=True
    )
    trainer = lightning.Trainer(
        max_steps=10_000_000,
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Counts(gate)],
    )
    trainer.fit(Module(case), loader)


if __name__ == "__main__":
    main()
