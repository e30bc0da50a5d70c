"""Killed in the middle of a mixture, of a curriculum, of what is drawn for each sample: the same bits in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import SIGKILL, Cli, wait_for

SHORT = ("training.steps=80", "evaluation.every=40", "checkpoint.every=10")


def mixture(cli: Cli) -> tuple[str, ...]:
    text = cli.folder / "text"
    for name in ("json", "rest"):
        (text / name).mkdir()
    for file in sorted(text.glob("*.py")):
        file.rename(text / ("json" if "coder" in file.name else "rest") / file.name)
    sources = ", ".join(f"{name}: {{name: text, path: {text / name}}}" for name in ("json", "rest"))
    return (
        f"data.source={{name: mixture, sources: {{{sources}}}, weights: {{json: 3.0, rest: 1.0}}}}",
        "data.augmentation.replacement=0.1",
    )


def curriculum(cli: Cli) -> tuple[str, ...]:
    return ("data.curriculum={name: rarity, span: 0.7, pacing: {name: root}}", "data.augmentation.replacement=0.1")


def stream(cli: Cli) -> tuple[str, ...]:
    files = ", ".join(f"{file}" for file in sorted((cli.folder / "text").glob("*.py")))
    arguments = f"arguments: {{files: [{files}], encoding: utf-8}}"
    return (
        f"data.source={{name: stream, target: 'fileinput:input', {arguments}, resume: replay, window: 64}}",
        f"data.validation_source={{name: text, path: {cli.folder / 'text' / 'heapq.py'}}}",
    )


@pytest.mark.parametrize("settings", [mixture, curriculum, stream])
def test_a_kill_in_the_middle_changes_nothing(cli: Cli, settings: object) -> None:
    overrides = (*SHORT, *settings(cli))  # type: ignore[operator]
    whole, run = cli.folder / "whole", cli.folder / "run"
    cli.train(whole, *overrides)
    process = cli.start("train", cli.config, *overrides, "--run", run)
    wait_for(run / "record.jsonl", '"last_step":30', process)
    process.send_signal(SIGKILL)
    process.communicate()
    assert process.returncode == -SIGKILL
    cli.run("resume", run)
    assert cli.same_bits(run, whole) == "same"
    facts = json.loads(Path(run / "facts.json").read_text())
    assert settings.__name__ in facts  # type: ignore[attr-defined]
