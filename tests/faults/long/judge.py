"""Judges a run directory from outside: bits, damage, and the record. Stands alone: hashlib, json, numpy and zlib.

    python judge.py same RUN_A RUN_B     the newest checkpoints of both hold the same tensors, byte by byte
    python judge.py whole RUN            everything under a checkpoint's name is what its manifest says
    python judge.py record FILE          the events whose checksum is right

Nothing of trimtab, torch or safetensors is imported.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np


def problems(checkpoint: Path) -> list[str]:
    """What is not as the manifest says; [] for a whole checkpoint."""
    try:
        text = (checkpoint / "manifest.json").read_bytes()
        manifest = json.loads(text)
        digest = manifest.pop("sha256")
        own = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        if hashlib.sha256(own.encode()).hexdigest() != digest:
            return [f"{checkpoint.name}: the manifest is not what was written"]
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{checkpoint.name}: no manifest ({error!r})"]
    found = []
    there = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if not path.is_dir()}
    if strange := there ^ (set(files) | {"manifest.json"}):
        found.append(f"{checkpoint.name}: missing or not in the manifest: {sorted(strange)}")
    for name in there & set(files):
        data = (checkpoint / name).read_bytes()
        if len(data) != files[name]["bytes"] or hashlib.sha256(data).hexdigest() != files[name]["sha256"]:
            found.append(f"{checkpoint.name}/{name}: not the bytes that were written")
    return found


def checkpoints(run: Path) -> list[Path]:
    """All that has a checkpoint's name, by step."""
    return sorted((run / "checkpoints").glob("step-*"))


def tensors(checkpoint: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name to dtype, shape and bytes."""
    found = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        data = np.fromfile(file, dtype=np.uint8)
        length = int(data[:8].view("<u8")[0])
        for name, entry in json.loads(data[8 : 8 + length].tobytes()).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                content = data[8 + length + start : 8 + length + end].tobytes()
                found[name] = (entry["dtype"], tuple(entry["shape"]), content)
    return found


def difference(run_a: Path, run_b: Path) -> str:
    """How the newest checkpoints of two runs differ; "" when they are of one step and hold the same bits."""
    if not checkpoints(run_a) or not checkpoints(run_b):
        return "a run has no checkpoint"
    a, b = checkpoints(run_a)[-1], checkpoints(run_b)[-1]
    if a.name != b.name:
        return f"{a.name} and {b.name}"
    if damage := problems(a) + problems(b):
        return "; ".join(damage)
    of_a, of_b = tensors(a), tensors(b)
    different = sorted(name for name in of_a.keys() | of_b.keys() if of_a.get(name) != of_b.get(name))
    if not of_a:
        return "no tensors"
    return f"{len(different)} of {len(of_a)} tensors differ: {', '.join(different[:3])}" if different else ""


def damage(run: Path) -> list[str]:
    """What stands under a checkpoint's name and is not whole."""
    return [problem for checkpoint in checkpoints(run) for problem in problems(checkpoint)]


def events(record: Path | bytes) -> list[dict[str, Any]]:
    """The lines whose checksum is right, in their order."""
    data = record if isinstance(record, bytes) else record.read_bytes()
    found = []
    for line in data.split(b"\n"):
        body, mark, checksum = line.rpartition(b',"crc32":')
        if (
            mark
            and checksum[:-1].isdigit()
            and checksum.endswith(b"}")
            and zlib.crc32(body + b"}") == int(checksum[:-1])
        ):
            found.append(json.loads(body + b"}"))
    return found


def losses(record: Path) -> dict[int, Any]:
    """Step to its training loss, as the attempt told it that told it last."""
    told = {}
    for event in events(record):
        if event["event"] == "StepsEnded" and "train/loss" in event["per_step"]:
            values, first = event["per_step"]["train/loss"], event["first_step"]
            for step in range(first, event["last_step"] + 1):
                told[step] = values[step - first] if isinstance(values, list) else values
    return told


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    if what == "same":
        told = difference(Path(paths[0]), Path(paths[1]))
        sys.exit(told or 0)
    if what == "whole":
        sys.exit("\n".join(damage(Path(paths[0]))) or 0)
    print(len(events(Path(paths[0]))))
