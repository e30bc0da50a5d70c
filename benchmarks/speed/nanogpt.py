"""nanoGPT's train.py, untouched: `python benchmarks/speed/nanogpt.py 124m FOLDER [--option=value ...]`.

FOLDER is a clone of it. Its loop has no hook, so each step is counted where it empties the gradients.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gate import CASES, Gate


def main() -> None:
    """Runs train.py with the case's shape."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    case = CASES[name]
    work = Path(tempfile.mkdtemp()) / "nanogpt"
    shutil.copytree(folder, work)
    data = work / "data" / "random"
    data.mkdir(parents=True)
    tokens = np.random.default_rng(0).integers(0, case["vocabulary"], 2_000 * case["length"] + 1).astype(np.uint16)
    for split in ("train", "val"):
        tokens.tofile(data / f"{split}.bin")
    # Without data/meta.pkl it takes 50304 for GPT-2's vocabulary, as its authors advise.
    if case["vocabulary"] != 50257:
        import pickle

        (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": case["vocabulary"]}))
    gate = Gate(12)
    zero_grad = torch.optim.AdamW.zero_grad

    def counted(self: torch.optim.AdamW, *arguments: Any, **named: Any) -> None:
        zero_grad(self, *arguments, **named)
        gate.step()

    torch.optim.AdamW.zero_grad = counted  # type: ignore[method-assign]
    os.chdir(work)
    sys.path.insert(0, str(work))
    sys.argv = [
        "train.py",
        "--dataset=random",
        "--eval_interval=100000000",
        "--eval_iters=1",
        "--max_iters=100000000",
        "--gradient_accumulation_steps=1",
        "--always_save_checkpoint=False",
        f"--batch_size={case['batch']}",
        f"--block_size={case['length']}",
        f"--n_layer={case['layers']}",
        f"--n_head={case['heads']}",
        f"--n_embd={case['width']}",
        *sys.argv[3:],
    ]
    runpy.run_path("train.py", run_name="__main__")


if __name__ == "__main__":
    main()
