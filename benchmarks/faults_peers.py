"""Other trainers put through the same faults as trimtab: kills, truncation, deletion, bit flips, a full disk.

    python benchmarks/faults_peers.py [--nanogpt FOLDER] [--kills 20] [--flips 40] [--only ours huggingface …]

transformers' Trainer, Lightning, trimtab, and nanoGPT's train.py, untouched, where FOLDER is a clone of it. Each trains
a small GPT with dropout 0.1 on shuffled data for 60 steps, in fp32 on the CPU, saves every 15 steps as its own
documentation says, and is told to go on from its newest checkpoint. After each fault the same command is given again,
and the weights at the end are compared, byte by byte, with those of a run that nobody disturbed:

    same       the same bits; after damage also those that going on from the undamaged checkpoint gives
    refused    it ended with an error, and said so
    other      exit code 0, and other weights: nobody was told

Every training is a process, forked from one that has imported torch and the library, so that a try takes a second.
The full disk is a tmpfs, which needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import lightning
import numpy as np
import torch
import transformers
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers.trainer_utils import get_last_checkpoint

import trimtab
import trimtab.cli
import trimtab.trainer

STEPS, SAVE_EVERY, VOCABULARY, LENGTH, ROWS = 60, 15, 128, 32, 4
SEED = 7


def digest(named: Mapping[str, Any]) -> str:
    """The hash of all weights, by name."""
    whole = hashlib.sha256()
    for name in sorted(named):
        whole.update(name.encode() + named[name].detach().contiguous().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def rows() -> torch.Tensor:
    """Sequences [64, 32] of random tokens."""
    return torch.randint(VOCABULARY, (64, LENGTH), generator=torch.Generator().manual_seed(0))


def gpt() -> Any:
    """The model of transformers and Lightning: its dropout is 0.1."""
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )


def huggingface(folder: Path) -> None:
    """`resume_from_checkpoint` with the newest folder that the library finds."""
    transformers.set_seed(SEED)
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=ROWS,
        save_steps=SAVE_EVERY,
        save_total_limit=2,
        logging_steps=STEPS,
        report_to=[],
        use_cpu=True,
        seed=SEED,
        disable_tqdm=True,
        dataloader_num_workers=0,
    )
    data = [{"input_ids": row, "labels": row} for row in rows()]
    trainer = transformers.Trainer(gpt(), arguments, train_dataset=data)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    write_digest(folder, trainer.model.state_dict())


class Module(lightning.LightningModule):
    """The same model for Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.model = gpt()

    def training_step(self, batch: torch.Tensor, index: int) -> Any:
        return self.model(batch, labels=batch).loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), 5e-5)


def pytorch_lightning(folder: Path) -> None:
    """`ckpt_path="last"`, which takes what `save_last` wrote."""
    lightning.seed_everything(SEED, verbose=False)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder / "kept", every_n_train_steps=SAVE_EVERY, save_top_k=-1, save_last=True)],
    )
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(rows(), ROWS, shuffle=True), ckpt_path="last")  # type: ignore[arg-type]
    write_digest(folder, module.state_dict())


def nanogpt(folder: Path, clone: Path) -> None:
    """Its train.py: one file, `out/ckpt.pt`, and `init_from=resume` where that is there."""
    work = folder / "nanogpt"
    if not work.exists():
        aside = folder / f"clone-{os.getpid()}"
        shutil.copytree(clone, aside, ignore=shutil.ignore_patterns(".git", "assets", "*.ipynb"))
        data = aside / "data/random"
        data.mkdir()
        for split in ("train", "val"):
            rows().numpy().astype(np.uint16).tofile(data / f"{split}.bin")
        aside.rename(work)
    os.chdir(work)
    sys.path.insert(0, str(work))
    begins = "resume" if (work / "out/ckpt.pt").exists() else "scratch"
    options = {
        "init_from": begins,
        "dataset": "random",
        "device": "cpu",
        "compile": False,
        "dtype": "float32",
        "eval_interval": SAVE_EVERY,
        "eval_iters": 1,
        "max_iters": STEPS,
        "lr_decay_iters": STEPS,
        "warmup_iters": 2,
        "gradient_accumulation_steps": 1,
        "batch_size": ROWS,
        "block_size": LENGTH,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "dropout": 0.1,
    }
    sys.argv = ["train.py", *(f"--{name}={value}" for name, value in options.items())]
    write_digest(folder, runpy.run_path("train.py", run_name="__main__")["model"].state_dict())


CONFIG = """
seed: 7
data: {{source: {{name: text, path: {text}}}, tokenizer: {{name: bytes}}, sequence_length: 32}}
model: {{name: decoder, num_layers: 2, hidden_size: 32, num_heads: 2, dropout: {{residual: 0.1, embedding: 0.1}}}}
training: {{steps: 60, micro_batch_size: 4, threads: 1, device: cpu, compile: "off"}}
evaluation: {{every: 60, max_tokens: 512, yardsticks: false, samples: {{max_tokens: 0}}}}
checkpoint: {{every: 15}}
stopping: {{name: none}}
"""


def ours(folder: Path) -> None:
    """`trimtab train CONFIG --run DIR`, the same command each time."""
    text = Path(tempfile.gettempdir()) / f"faults-peers-{os.getuid()}.txt"
    aside = text.with_suffix(f".{os.getpid()}")
    aside.write_text(Path(os.__file__).with_name("heapq.py").read_text()[:8000])
    aside.rename(text)
    config = folder / "config.yaml"
    if not config.exists():
        config.write_text(CONFIG.format(text=text))
    os.environ["TRIMTAB_CACHE"] = str(folder / "cache")
    sys.argv = ["trimtab", "train", str(config), "--run", str(folder / "run")]
    try:
        trimtab.cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
    newest = max((folder / "run/checkpoints").glob("step-*"))
    with trimtab.trainer.torch.no_grad():
        from safetensors.torch import load_file

        tensors = load_file(newest / "tensors.safetensors")
    write_digest(folder, {name: tensor for name, tensor in tensors.items() if name.startswith("model/")})


def write_digest(folder: Path, named: Mapping[str, Any]) -> None:
    """What the judge compares."""
    (folder / "weights.sha256").write_text(digest(named))


@dataclass(frozen=True)
class Trainer:
    """One that is put to the test."""

    title: str
    train: Callable[[Path], None]
    newest: Callable[[Path], list[Path]]
    """The files of the newest checkpoint, which hold what resuming needs."""


def _newest_folder(pattern: str) -> Callable[[Path], list[Path]]:
    def files(folder: Path) -> list[Path]:
        found = sorted(folder.glob(pattern), key=lambda path: int(path.name.rpartition("-")[2]))
        return sorted(path for path in found[-1].iterdir() if path.is_file())

    return files


def trainers(clone: Path | None) -> dict[str, Trainer]:
    found = {
        "ours": Trainer("trimtab", ours, _newest_folder("run/checkpoints/step-*")),
        "huggingface": Trainer(
            f"transformers {transformers.__version__}, `Trainer`", huggingface, _newest_folder("checkpoint-*")
        ),
        "lightning": Trainer(
            f"Lightning {lightning.__version__}", pytorch_lightning, lambda folder: [folder / "kept/last.ckpt"]
        ),
    }
    if clone is not None:
        found["nanogpt"] = Trainer(
            "nanoGPT, `train.py`",
            lambda folder: nanogpt(folder, clone),
            lambda folder: [folder / "nanogpt/out/ckpt.pt"],
        )
    return found


class Bench:
    """Runs one trainer again and again."""

    def __init__(self, trainer: Trainer, folder: Path, order: random.Random) -> None:
        self.trainer, self.folder, self.order = trainer, folder, order
        folder.mkdir(parents=True)
        self._num = 0
        whole = self.path()
        begun = time.monotonic()
        if (code := self.end(self.start(whole))) != 0:
            raise RuntimeError(f"{trainer.title} fails undisturbed ({code}): {(whole / 'log').read_text()[-1500:]}")
        self.seconds = time.monotonic() - begun
        self.whole = (whole / "weights.sha256").read_text()
        self.right = {self.whole}
        self.after_first_save = self._seconds_after_first_save()
        while True:  # until the kill did not meet a save
            self.left, resumed = self._left_by_a_kill(), self.path()
            shutil.copytree(self.left, resumed, dirs_exist_ok=True, symlinks=True)
            if self.again(resumed) != "refused":
                self.right.add((resumed / "weights.sha256").read_text())
                break

    def path(self) -> Path:
        self._num += 1
        path = self.folder / f"{self._num:04d}"
        path.mkdir()
        return path

    def start(self, folder: Path) -> int:
        """The pid of a process that trains in `folder`."""
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            log = os.open(folder.parent / f"log-{folder.name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
            self.trainer.train(folder)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def end(self, pid: int, seconds: float = 120.0) -> int | None:
        """Its exit code, or minus a signal; None when it does not end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None

    def again(self, folder: Path) -> str:
        """Give the command again, and judge what comes of it."""
        (folder / "weights.sha256").unlink(missing_ok=True)
        if self.end(self.start(folder)) != 0:
            return "refused"
        return "same" if (folder / "weights.sha256").read_text() in self.right else "other"

    def _seconds_after_first_save(self) -> float:
        folder = self.path()
        pid = self.start(folder)
        while not self._has_saved(folder, SAVE_EVERY):
            time.sleep(0.001)
        begun = time.monotonic()
        self.end(pid)
        return time.monotonic() - begun

    def _left_by_a_kill(self) -> Path:
        """A folder in which training was killed after its second save was complete."""
        while True:
            folder = self.path()
            pid = self.start(folder)
            while not self._has_saved(folder, 2 * SAVE_EVERY) and os.waitpid(pid, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
            time.sleep(0.02)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if not (folder / "weights.sha256").exists():
                return folder

    def _has_saved(self, folder: Path, step: int) -> bool:
        """Whether the save of `step` is complete: what is written last in it is there."""
        marks = {
            ours: f"run/checkpoints/step-{step:08d}/manifest.json",
            huggingface: f"checkpoint-{step}/trainer_state.json",
            pytorch_lightning: f"kept/epoch={(step - 1) // 16}-step={step}.ckpt",
        }
        if self.trainer.train in marks:
            return (folder / marks[self.trainer.train]).exists()
        log = folder.parent / f"log-{folder.name}"
        return log.exists() and f"iter {step}: loss" in log.read_text()  # which it says after the save

    def kills(self, num: int) -> Counter[str]:
        """SIGKILL at a moment drawn evenly from the time between the first save and the end."""
        found: Counter[str] = Counter()
        while found.total() < num:
            folder = self.path()
            pid = self.start(folder)
            while not self._has_saved(folder, SAVE_EVERY):
                time.sleep(0.001)
            time.sleep(self.order.uniform(0.0, self.after_first_save))
            os.kill(pid, signal.SIGKILL)
            killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            if killed and not (folder / "weights.sha256").exists():
                ended = self.again(folder)
                is_whole = ended == "same" and (folder / "weights.sha256").read_text() == self.whole
                found["same" if is_whole else "refused" if ended == "refused" else "other"] += 1
            shutil.rmtree(folder)
        return found

    def hurt(self, how: Callable[[Path], None], files: list[str] | None = None) -> dict[str, str]:
        """Each file of the newest checkpoint, hurt alone; name to what came of it."""
        names = files or [path.name for path in self.trainer.newest(self.left)]
        found = {}
        for name in names:
            folder = self.path()
            shutil.copytree(self.left, folder, dirs_exist_ok=True, symlinks=True)
            how(next(path for path in self.trainer.newest(folder) if path.name == name))
            found[name] = self.again(folder)
            shutil.rmtree(folder)
        return found

    def flips(self, num: int) -> Counter[str]:
        """One bit of one file flipped, the file drawn by its size."""
        files = self.trainer.newest(self.left)
        sizes = [path.stat().st_size for path in files]
        found: Counter[str] = Counter()
        for _ in range(num):
            (name,) = self.order.choices([path.name for path in files], sizes)
            found[self.hurt(self._flip, [name])[name]] += 1
        return found

    def _flip(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[self.order.randrange(len(data))] ^= 1 << self.order.randrange(8)
        path.unlink()  # where several names share the file, this one alone
        path.write_bytes(data)

    def full_disk(self, parts: list[float]) -> Counter[str]:
        """A disk with room for one checkpoint and a part of the next; then there is room, and it goes on."""
        used = sum(path.stat().st_blocks * 512 for path in self.left.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in self.trainer.newest(self.left))
        copies = {ours: 2, huggingface: 2, pytorch_lightning: 4}.get(self.trainer.train, 1)
        found: Counter[str] = Counter()
        disk = self.folder / "disk"
        disk.mkdir()
        for part in parts:
            room = int(used - (copies - 1) * size + part * size)
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk], check=False)
            if done.returncode:
                return found
            try:
                folder = disk / "run"
                folder.mkdir()
                ended = self.end(self.start(folder))
                subprocess.run(["mount", "-o", "remount,size=200M", disk], check=True)
                found["wrote over the one before: it fitted" if ended == 0 else self.again(folder)] += 1
            finally:
                subprocess.run(["umount", disk], check=True)
        return found


def told(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(found.items(), key=lambda item: -item[1])) or "-"


def named(found: Mapping[str, str]) -> str:
    """As `told`, with the names of files that were lost in silence."""
    counts = told(Counter(found.values()))
    silent = [f"`{name}`" for name, what in found.items() if what == "other"]
    return counts + (f" ({', '.join(silent)})" if silent else "")


def halve(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a clone of nanoGPT")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flips", type=int, default=40)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    given = parser.parse_args()
    chosen = trainers(None if given.nanogpt is None else given.nanogpt.resolve())
    chosen = {name: one for name, one in chosen.items() if given.only is None or name in given.only}
    folder = Path(tempfile.mkdtemp(prefix="faults-peers-"))
    columns: dict[str, dict[str, str]] = {}
    for name, trainer in chosen.items():
        bench = Bench(trainer, folder / name, random.Random(name))
        columns[trainer.title] = {
            f"SIGKILL at a random moment after the first save, {given.kills} tries": told(bench.kills(given.kills)),
            "each file of the newest checkpoint truncated to half": named(bench.hurt(halve)),
            "each file of it deleted": named(bench.hurt(Path.unlink)),
            f"one bit of it flipped, {given.flips} tries": told(bench.flips(given.flips)),
            "a full disk in the second save, 3 sizes": told(bench.full_disk([1.2, 1.5, 1.8])),
        }
        print(json.dumps({trainer.title: columns[trainer.title]}, indent=1), flush=True)
    table = [f"| | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    cases = next(iter(columns.values()))
    table += [f"| {case} | {' | '.join(column[case] for column in columns.values())} |" for case in cases]
    head = f"Python {platform.python_version()}, torch {torch.__version__}, {datetime.date.today().isoformat()}"
    text = "\n".join([*table, "", head])
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
