"""Damage on the disk: checkpoints, records, prepared data, full and unwritable disks, and pickles under every name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

import judge
from harness import Outcome, Place, events
from kills import finished, same

from trimtab.events import EvaluationEnded
from trimtab.runs.record import RecordReader, RecordWriter, event_to_json

SHORT = ("training.steps=26", "evaluation.every=13")
FILES = ("manifest.json", "checkpoint.json", "tensors.safetensors")
TRUNCATIONS, FLIPS = 20, 200


def _hurt(path: Path, how: str, order: random.Random) -> str:
    """Delete, truncate, or flip one bit of a file; gives what was done."""
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return f"{path.name} deleted"
    at = order.randrange(len(data))
    if how == "truncated":
        path.write_bytes(data[:at])
        return f"{path.name} truncated to {at} of {len(data)} bytes"
    bit = order.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"{path.name}: bit {bit} of byte {at} flipped"


NUM_DAMAGES = len(FILES) * (1 + TRUNCATIONS) + FLIPS


def damaged_checkpoints(place: Place, tries: Iterable[int]) -> Outcome:
    """Each file of the newest checkpoint deleted, truncated, or with one bit flipped; verify and resuming see it."""
    outcome = Outcome("a file deleted, truncated, or with a flipped bit: verify and resuming see it, same bits")
    whole, _ = place.whole(*SHORT)
    base = place.path("base")
    place.killed_at(base, "step-00000022", *SHORT)
    for number in tries:
        order = random.Random(number)
        if number < len(FILES):
            name, how = FILES[number], "deleted"
        elif number < len(FILES) * (1 + TRUNCATIONS):
            name, how = FILES[number % len(FILES)], "truncated"
        else:
            name, how = FILES[number % len(FILES)], "flipped"
        outcome.counts[how] += 1
        run = place.copied(base)
        what = _hurt(run / "checkpoints/step-00000022" / name, how, order)
        code, verdict = place.run("verify", run)
        problem = ""
        if code != 5 or "step-00000022" not in verdict:
            problem = f"verify ended with {code}: {verdict}"
        else:
            code, told = place.train(run, *SHORT)
            if code or "step-00000022 is damaged and was passed over" not in told:
                problem = f"resuming ended with {code}: {told[-600:]}"
            elif events(run, "RunStarted")[-1]["resumed_from"] != 13:
                problem = f"resumed from {events(run, 'RunStarted')[-1]['resumed_from']}"
        outcome.take(not (problem := problem or same(run, whole)), f"{what}: {problem}")
        shutil.rmtree(run, ignore_errors=True)
    return outcome


RECORD_BYTES = 4096
RESUMED_CUTS = 16


def cut_records(place: Place, tries: Iterable[int]) -> Outcome:
    """A record that ends at each of its last bytes: what is complete is read, what is appended is whole."""
    outcome = Outcome("a record cut at each of its last 4,096 bytes: all that is complete is read, appending goes on")
    whole, _ = place.whole()
    base = place.path("base")
    place.killed_at(base, "step-00000055")
    data = (base / "record.jsonl").read_bytes()
    path = place.path("record.jsonl")
    more = event_to_json(EvaluationEnded(999, {"validation/loss": 1.5}, 0.1))
    for number in tries:
        left = data[: len(data) - number]
        expected = [line["sequence"] for line in judge.events(left)]
        path.write_bytes(left)
        read = [line["sequence"] for line in RecordReader(path).read()]
        writer = RecordWriter(path)
        writer.append(more)
        writer.close()
        after = judge.events(path)
        problem = ""
        if read != expected:
            problem = f"{len(read)} events read of {len(expected)}"
        elif [line["sequence"] for line in after] != [*expected, (expected or [0])[-1] + 1] or after[-1]["step"] != 999:
            problem = f"after appending: {[line['sequence'] for line in after][-3:]}"
        elif number and number % (RECORD_BYTES // RESUMED_CUTS) == 0:
            run = place.copied(base)
            (run / "record.jsonl").write_bytes(left)
            problem = _without_its_end(place, run, whole)
            outcome.counts["of them resumed to the same bits"] += not problem
        outcome.take(not problem, f"cut {number} bytes before its end: {problem}")
    return outcome


def _without_its_end(place: Place, run: Path, whole: Path) -> str:
    """Go on with a run whose record lost lines: the same bits, and where losses are told, the same."""
    code, told = place.train(run)
    if code:
        return f"exit {code}: {told}"
    there, right = judge.losses(run / "record.jsonl"), judge.losses(whole / "record.jsonl")
    return judge.difference(run, whole) or ("" if there.items() <= right.items() else "the record tells other losses")


def torn_shards(place: Place, tries: Iterable[int]) -> Outcome:
    """Prepared data truncated or altered: found before the first step, prepared again, same bits."""
    outcome = Outcome("prepared data truncated, altered or deleted: found, prepared again, same bits")
    whole, _ = place.whole(*SHORT)
    for number in tries:
        order = random.Random(number)
        cache = place.path("cache")
        shutil.copytree(place.cache, cache)
        files = sorted(path for path in cache.glob("data/*/*") if path.is_file() and path.stat().st_size)
        used = [path for path in files if path.suffix != ".json"]
        victims = [order.choice(used)] if number % 4 else used
        what = [_hurt(victim, ("truncated", "flipped", "deleted")[number % 3], order) for victim in victims]
        run, kept = place.path(), place.environment["TRIMTAB_CACHE"]
        place.environment["TRIMTAB_CACHE"] = str(cache)
        try:
            code, told = place.train(run, *SHORT)
        finally:
            place.environment["TRIMTAB_CACHE"] = kept
        problem = f"exit {code}: {told[-500:]}" if code else same(run, whole)
        used_here = {path.parent for path in victims if (cache / "data" / path.parent.name / "manifest.json").exists()}
        if not problem and len(victims) == len(used) and "is damaged" not in told:
            problem = f"nothing was said of the damage in {sorted(path.name for path in used_here)}"
        outcome.take(not problem, f"{what}: {problem}")
        shutil.rmtree(cache, ignore_errors=True)
    return outcome


def full_disks(place: Place, tries: Iterable[int]) -> Outcome:
    """A disk that is full at one time or another: exit 5, what was saved is whole, and with room it goes on."""
    outcome = Outcome("a full disk (tmpfs): exit 5, checkpoints whole, resumed with room to the same bits")
    whole, _ = place.whole()
    disk = place.folder / "disk"
    disk.mkdir()
    for number in tries:
        size = 12_000 + 28_000 * number
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=False)
        if done.returncode:
            outcome.note = "no tmpfs can be mounted here: not tried"
            return outcome
        try:
            run = disk / "run"
            code, told = place.train(run)
            problem = ""
            if code not in (0, 5) or "Traceback" in told:
                problem = f"exit {code}: {told[-600:]}"
            elif broken := judge.damage(run):
                problem = "; ".join(broken)
            outcome.counts["before step 1"] += not (run / "record.jsonl").exists()
            subprocess.run(["mount", "-o", "remount,size=20M", disk], check=True)
            if code == 0 and not problem:
                continue  # it was large enough
            outcome.take(not (problem := problem or finished(place, run, whole)), f"{size} bytes: {problem}")
        finally:
            subprocess.run(["umount", disk], check=True)
    return outcome


def read_only(place: Place, tries: Iterable[int]) -> Outcome:
    """A directory that may not be written: exit 5 before the first step, naming it, and nothing is left behind."""
    outcome = Outcome("a directory that cannot be written: exit 5 before step 1")
    base = place.path("base")
    place.killed_at(base, "step-00000011")
    for number in tries:
        closed = place.path("closed")
        closed.mkdir()
        run = closed / "run"
        if number % 2:
            shutil.copytree(base, run)
            run.chmod(0o555)
        closed.chmod(0o555)
        before = sorted(str(path) for path in closed.rglob("*"))
        child = place.start("train", place.config, "--run", run, powerless=True)
        code = child.wait()
        told = child.told()
        problem = ""
        if code != 5 or str(closed) not in told or "Traceback" in told:
            problem = f"exit {code}: {told[-400:]}"
        elif sorted(str(path) for path in closed.rglob("*")) != before:
            problem = "something was left behind"
        outcome.take(not problem, f"{'a run' if number % 2 else 'a new run'}: {problem}")
    return outcome


class _Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self.path}'",)


NAMES = (
    "checkpoints/step-00000022/tensors.safetensors",
    "checkpoints/step-00000022/checkpoint.json",
    "checkpoints/step-00000022/manifest.json",
    "checkpoints/step-00000022/extra.pt",
    "checkpoints/step-00000033/.metadata",
    "checkpoints/step-00000033/model.pt",
    "config.yaml",
    "environment.json",
    "facts.json",
    "plan.json",
    "rollback.json",
    "record.jsonl",
    "lock.json",
    "notes.json",
    "diagnosis.json",
    "artifacts/tokenizer.json",
    "statistics/0000.f32",
    "quantized/model.safetensors",
)


def pickles(place: Place, tries: Iterable[int]) -> Outcome:
    """A pickle that runs a command, under every name that is read, also with a manifest that vouches for it."""
    outcome = Outcome("a malicious pickle under every name that is read: never unpickled")
    base = place.path("base")
    place.killed_at(base, "step-00000022", *SHORT)
    canary = place.folder / "unpickled"
    raw = pickle.dumps(_Canary(canary))
    for number in tries:
        name = NAMES[number % len(NAMES)]
        run = place.copied(base)
        victim = run / name
        victim.parent.mkdir(parents=True, exist_ok=True)
        if number >= len(NAMES):  # as torch.save writes it
            with zipfile.ZipFile(victim, "w") as archive:
                archive.writestr("archive/data.pkl", raw)
                archive.writestr("archive/version", "3\n")
        else:
            victim.write_bytes(raw)
        _vouch(victim)
        crashed = ""
        for command in ("verify", "show", "doctor", "report", "evaluate", "generate", "resume"):
            code, told = place.run(command, run)
            outcome.counts["commands"] += 1
            if code in (70, 99) or code < 0:
                crashed = crashed or f"{command} ended with {code}: {told[-500:]}"
        problem = "it was unpickled" if canary.exists() else crashed
        canary.unlink(missing_ok=True)
        outcome.take(not problem, f"{name}: {problem}")
        shutil.rmtree(run, ignore_errors=True)
    return outcome


def _vouch(victim: Path) -> None:
    """Let the manifest beside `victim` have its hash."""
    manifest = victim.with_name("manifest.json")
    if victim == manifest or not manifest.exists():
        return
    with contextlib.suppress(ValueError):
        content = json.loads(manifest.read_text())
        content.pop("sha256")
        data = victim.read_bytes()
        content["files"][victim.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        own = json.dumps(content, sort_keys=True, separators=(",", ":"))
        whole = {**content, "sha256": hashlib.sha256(own.encode()).hexdigest()}
        manifest.write_text(json.dumps(whole, sort_keys=True, separators=(",", ":")) + "\n")
