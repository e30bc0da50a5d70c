"""A tiny run through the real command line, and ways to hurt it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

CONFIG = """
name: faulty
seed: 7
data:
  source: {{name: text, path: {text}}}
  tokenizer: {{name: bytes}}
  sequence_length: 32
model: {{name: decoder, num_layers: 2, hidden_size: 32, num_heads: 2, dropout: {{residual: 0.1, embedding: 0.1}}}}
optimizer: {{name: adamw, learning_rate: 5e-3}}
schedule: {{name: cosine, warmup: 10, floor: 0.1}}
training: {{steps: 240, micro_batch_size: 4, accumulation: 2, threads: 1, device: cpu, compile: "off"}}
evaluation: {{every: 40, gap_tokens: 512, max_tokens: 2048, yardsticks: false, samples: {{max_tokens: 0}}}}
checkpoint: {{every: 25, keep_latest: 3}}
stopping: {{name: patience, patience: 4}}
"""


class Cli:
    """Runs `trimtab` in processes of its own."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        text = folder / "text"
        text.mkdir()
        source = Path(os.__file__).parent
        for name in ("json/decoder.py", "json/encoder.py", "heapq.py", "bisect.py", "textwrap.py", "queue.py"):
            (text / Path(name).name).write_text((source / name).read_text())
        self.config.write_text(CONFIG.format(text=text))
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRIMTAB_CACHE": str(cache), "NO_COLOR": "1"}

    def start(self, *arguments: str | Path, file_limit_bytes: int | None = None) -> subprocess.Popen[str]:
        def limit() -> None:
            if file_limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))

        return subprocess.Popen(
            [sys.executable, "-m", "trimtab.cli", *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=limit,
        )

    def run(self, *arguments: str | Path, expect: int = 0) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == expect, f"exit {process.returncode}, not {expect}:\n{output}"
        return output

    def train(self, run: Path, *overrides: str, expect: int = 0) -> str:
        return self.run("train", self.config, *overrides, "--run", run, expect=expect)

    def train_until(self, run: Path, when: str, number: int, *overrides: str) -> tuple[int, str]:
        """Train until `when` is in the record, then send the signal `number`; gives exit code and output."""
        process = self.start("train", self.config, *overrides, "--run", run)
        wait_for(run / "record.jsonl", when, process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def script(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a script of this folder on the configuration."""
        command = [sys.executable, str(Path(__file__).with_name(name)), str(self.config), *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=100
        )

    def same_bits(self, a: Path, b: Path) -> str:
        """Judged by the stand-alone script, at the newest checkpoint of each."""
        newest = [str(sorted((run / "checkpoints").glob("step-*"))[-1]) for run in (a, b)]
        script = Path(__file__).with_name("same_bits.py")
        done = subprocess.run([sys.executable, str(script), *newest], capture_output=True, text=True, check=False)
        assert newest[0].endswith(newest[1][-8:])
        return "same" if done.returncode == 0 else done.stdout + done.stderr


def wait_for(path: Path, text: str, process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Wait until `path` holds `text`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_text(errors="replace"):
            return
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} before {text!r}:\n{process.communicate()[0]}")
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"{text!r} did not come in {seconds} s:\n{process.communicate()[0]}")


def events(run: Path, name: str) -> list[str]:
    """The lines of one kind of event, as they stand."""
    return [line for line in (run / "record.jsonl").read_text().splitlines() if f'"event":"{name}"' in line]


SIGTERM, SIGKILL, SIGINT = signal.SIGTERM, signal.SIGKILL, signal.SIGINT
