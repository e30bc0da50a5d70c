"""Whether two checkpoints hold the same bits. Stands alone: hashlib, json and numpy, nothing of trimtab or torch.

    python same_bits.py CHECKPOINT_A CHECKPOINT_B

Every file is checked against its manifest, then every tensor of A against the one of the same name in B.
Exit code 0: the same; 1: not, with the names that differ.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name to dtype, shape and bytes, after the hashes were checked."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"] or len(data) != entry["bytes"]:
            sys.exit(f"{folder / name}: not the bytes that were written")
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        data = np.fromfile(file, dtype=np.uint8)
        length = int(data[:8].view("<u8")[0])
        header = json.loads(data[8 : 8 + length].tobytes())
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                content = data[8 + length + start : 8 + length + end].tobytes()
                found[name] = (entry["dtype"], tuple(entry["shape"]), content)
    return found


if __name__ == "__main__":
    a, b = tensors(Path(sys.argv[1])), tensors(Path(sys.argv[2]))
    different = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    print(f"{len(a)} tensors, {len(different)} differ" + "".join(f"\n  {name}" for name in different))
    sys.exit(1 if different or not a else 0)
