"""environment.json: versions, code, machine, seed and command line of a run, without secrets."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from trimtab.config.secrets import hidden, hide_arguments

_PACKAGES = (
    "trimtab",
    "torch",
    "numpy",
    "tokenizers",
    "safetensors",
    "pydantic",
    "transformers",
    "accelerate",
    "lightning",
)
_VARIABLES = re.compile(
    r"(?:OMP|MKL)_NUM_THREADS|GOMP_SPINCOUNT|OMP_WAIT_POLICY|KMP_BLOCKTIME|CUDA_VISIBLE_DEVICES|CUBLAS_WORKSPACE_CONFIG|TRIMTAB_\w+"
)


def environment(
    *,
    seed: int,
    source: str,
    command: Sequence[str] | None = None,
    folder: Path | None = None,
    diff: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """This process's surroundings, as JSON values; git is asked in `folder`, or in the working directory.

    `source` is "config", or "python" when the command line cannot build the run again. "gpu" is None: who
    loads torch fills it. `diff` is what `git_diff` says of uncommitted changes.
    """
    folder = Path.cwd() if folder is None else folder
    return {
        "versions": {"python": platform.python_version(), **versions()},
        "git": git_state(folder, diff),
        "hardware": {
            "cpu": cpu_model(),
            "cores": usable_cores(),
            "memory_bytes": usable_memory_bytes(),
            "gpu": None,
        },
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "seed": seed,
        "source": source,
        "command": hide_arguments(sys.argv if command is None else command),
        "working_directory": str(folder),
        "variables": {
            name: hidden(value, name) for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)
        },
    }


def versions() -> dict[str, str]:
    """The installed packages that matter, read from their metadata without importing them."""
    return dict(_versions())


@cache  # each costs milliseconds, and a process cannot exchange what it has imported
def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_state(folder: Path, diff: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The commit in `folder`, whether tracked files differ from it, and what is known of how; None outside of git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    state = {"commit": commit, "dirty": None if changes is None else bool(changes)}
    return state | ({"diff": dict(diff)} if diff else {})


def cpu_model() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """The cores that this process may use: its affinity, and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and all(part.isdigit() for part in quota) and int(quota[1]):
        cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(cores, 1)


def usable_memory_bytes() -> int:
    """The memory that this process may use: the machine's, or the limit of its control group."""
    total = int(psutil.virtual_memory().total)
    limit = _cgroup("memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            timeout=2.0,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("utf-8", errors="replace").strip()


def _cgroup(name: str) -> str:
    """A limit of this process's control group (version 2), "" where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                group = Path("/sys/fs/cgroup" + line[3:])
                for folder in (group, *group.parents):
                    if folder.is_relative_to("/sys/fs/cgroup") and (folder / name).is_file():
                        limit = (folder / name).read_text().strip()
                        if not limit.startswith("max"):
                            return limit
    return ""
