"""A tiny run through the real command line, and ways to hurt it."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import TextIO

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


class Process:
    """A forked `trimtab`, used like a `subprocess.Popen` whose output is text."""

    def __init__(self, connection: socket.socket, stdout: TextIO) -> None:
        self._connection, self._told = connection, connection.makefile("r")
        self.pid = int(self._told.readline())
        self.stdout = stdout
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("trimtab", timeout or 0.0)
            self.returncode = int(self._told.readline())
            self._told.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it wrote until it ended, and None. Raises: TimeoutExpired, after a kill, if it does not end in time."""
        parts: list[str] = []
        reader = threading.Thread(target=lambda: parts.append(self.stdout.read()), daemon=True)
        reader.start()
        reader.join(timeout)
        if reader.is_alive():
            self.kill()
            reader.join()
            raise subprocess.TimeoutExpired("trimtab", timeout or 0.0, "".join(parts))
        self.wait(timeout)
        self.stdout.close()
        return "".join(parts), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


@cache
def _server() -> Path:
    """The socket of the process that is forked for every start; it ends with this one."""
    path = Path(tempfile.mkdtemp(prefix="trimtab-faults-")) / "socket"
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forked.py")), str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    atexit.register(lambda: (server.communicate(), shutil.rmtree(path.parent, ignore_errors=True)))
    return path


class Cli:
    """Runs `trimtab` in processes of its own, forked from one that has imported torch."""

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

    def start(self, *arguments: str | Path, file_limit_bytes: int | None = None, script: Path | None = None) -> Process:
        """Run the command line, or `script` in its place."""
        asked = {
            "script": None if script is None else str(script),
            "arguments": [str(argument) for argument in arguments],
            "environment": self.environment,
            "folder": str(self.folder),
            "file_limit_bytes": file_limit_bytes,
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(_server()))
        reading, writing = os.pipe()
        socket.send_fds(connection, [json.dumps(asked).encode()], [writing])
        os.close(writing)
        return Process(connection, os.fdopen(reading, "r", errors="replace"))

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
        script = Path(__file__).with_name(name)
        process = self.start(self.config, *arguments, script=script)
        output, _ = process.communicate(timeout=100)
        return subprocess.CompletedProcess([name], process.wait(), output, output)

    def same_bits(self, a: Path, b: Path) -> str:
        """Judged by the stand-alone script, at the newest checkpoint of each."""
        newest = [str(sorted((run / "checkpoints").glob("step-*"))[-1]) for run in (a, b)]
        script = Path(__file__).with_name("same_bits.py")
        done = subprocess.run([sys.executable, str(script), *newest], capture_output=True, text=True, check=False)
        assert newest[0].endswith(newest[1][-8:])
        return "same" if done.returncode == 0 else done.stdout + done.stderr


def wait_for(path: Path, text: str, process: Process, seconds: float = 60) -> None:
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
