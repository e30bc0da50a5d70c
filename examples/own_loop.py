"""A loop of your own, and trimtab beside it: `python examples/own_loop.py [--short]`

A small network learns to continue text, character by character, in plain PyTorch. `bare` logs with a TrainingLogger;
`like_wandb` has the two lines that users of Weights & Biases know. Both write a run that `trimtab show`, `doctor`
and `report` read.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rows import files
from torch import Tensor, nn
from torch.nn import functional

import trimtab

CONTEXT = 16


def text_as_numbers() -> tuple[Tensor, Tensor]:
    """Bytes of real source text [N]: some to train on, some files later ones to be judged by."""
    texts = [file.read_bytes() for file in files("networkx.algorithms")[:40]]
    whole = b"".join(texts[:30]), b"".join(texts[30:])
    training, validation = (torch.frombuffer(bytearray(text), dtype=torch.uint8).long() for text in whole)
    return training, validation


def batches(text: Tensor, size: int, num: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`num` batches of contexts [B, 16] and the byte after each [B]."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num):
        starts = torch.randint(0, len(text) - CONTEXT, (size,), generator=generator)
        windows = text[starts[:, None] + torch.arange(CONTEXT + 1)]
        yield windows[:, :-1], windows[:, -1]


def network() -> nn.Module:
    """Embeds 16 bytes and gives logits of the next."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(256, 16), nn.Flatten(), nn.Linear(16 * CONTEXT, 128), nn.GELU(), nn.Linear(128, 256)
    )


@torch.no_grad()
def judged(model: nn.Module, validation: Tensor) -> float:
    """The mean loss on fixed batches."""
    pairs = list(batches(validation, 256, 4, seed=1))
    return sum(functional.cross_entropy(model(inputs), targets).item() for inputs, targets in pairs) / len(pairs)


def bare(run_dir: Path, steps: int) -> trimtab.TrainingLogger:
    """A loop with a logger: what is logged may stay a tensor on its device, and nothing waits for it."""
    settings = {"lr": 3e-3, "batch_size": 64, "max_steps": steps, "optimizer": "AdamW", "max_grad_norm": 1.0}
    training, validation = text_as_numbers()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"])
    with trimtab.TrainingLogger(run_dir, settings) as logger:
        for step, (inputs, targets) in enumerate(logger.timed(batches(training, 64, steps, seed=0)), start=1):
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()
            if step % 10 == 0:
                logger.log_layers(model, step=step)
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings["max_grad_norm"])
            optimizer.step()
            optimizer.zero_grad()
            logger.log({"loss": loss, "grad_norm": norm, "lr": settings["lr"]}, step=step)
            if step % (steps // 5) == 0:
                logger.log_scalar("val_loss", judged(model, validation), step=step)
                logger.log_histogram("output weights", model[-1].weight, step=step)
                logger.log_image("embedding", model[0].weight.T.sigmoid(), step=step)
        logger.save_metrics(run_dir / "metrics.csv")
    return logger


def like_wandb(folder: Path, steps: int, lr: float = 3e-3) -> trimtab.TrainingLogger:
    """The same loop in the shape of Weights & Biases: `import trimtab as wandb` would do."""
    run = trimtab.init(project="next-byte", dir=folder, config={"lr": lr, "max_steps": steps})
    training, validation = text_as_numbers()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.config.lr)
    for step, (inputs, targets) in enumerate(batches(training, 64, steps, seed=0), start=1):
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trimtab.log({"train": {"loss": loss}}, step=step)
        if step % (steps // 5) == 0:
            trimtab.log({"val": {"loss": judged(model, validation)}}, step=step)
    run.summary["bits per byte"] = run.summary["val/loss"] / math.log(2)
    trimtab.finish()
    return run


def main(*, short: bool = False) -> list[Path]:
    """Train twice, and give where the runs are."""
    folder = Path(tempfile.mkdtemp(prefix="own-loop-")) if short else Path("runs")
    steps = 200 if short else 2000
    runs = [bare(folder / "own-loop", steps), like_wandb(folder, steps)]
    return [Path(run.dir) for run in runs]


if __name__ == "__main__":
    for path in main(short="--short" in sys.argv):
        print(f"trimtab report {path}")
