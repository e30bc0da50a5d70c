"""Prints for each kind of how many logs how many alarm, and with which codes."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import tempfile
from pathlib import Path

import sound_logs
from sound_logs.judge import Kind, alarms

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="sound_logs", description="Sound logs of other trainers, judged.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    kinds: dict[str, Kind] = {}
    for module in pkgutil.iter_modules(sound_logs.__path__):
        if not module.name.startswith("__"):
            kinds |= getattr(importlib.import_module(f"sound_logs.{module.name}"), "KINDS", {})
    judged = alarmed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in kinds.items():
            if given.only and name not in given.only:
                continue
            codes = [alarms(name, kind, seed, given.keep or Path(folder)) for seed in range(given.seeds)]
            judged, alarmed = judged + len(codes), alarmed + sum(map(bool, codes))
            said = ", ".join(sorted({code for found in codes for code in found}))
            print(f"{name:<44} {sum(map(bool, codes))} of {len(codes)} {said}".rstrip(), flush=True)
    print(f"{alarmed} of {judged} alarm")
