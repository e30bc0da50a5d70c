"""Which trainer wrote a log, by what it alone prints: so that remedies are put in its own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

Trainer = Literal["huggingface", "lightning", "nanogpt", "megatron", "fairseq", "mmengine", "ultralytics", "keras"]

SIGNS: Final[Mapping[Trainer, re.Pattern[str]]] = {
    "nanogpt": re.compile(r"^iter \d+: loss [\d.a-z]+, time [\d.]+ms, mfu ", re.MULTILINE),
    "megatron": re.compile(r"\biteration +\d+/ *\d+ \| consumed samples: "),
    "fairseq": re.compile(r"\| (?:INFO|DEBUG) \| (?:train|train_inner|valid) \||\bfairseq\.(?:tasks|trainer|data)"),
    "mmengine": re.compile(r" - (?:mmengine|mm[a-z]{3,10}) - (?:INFO|WARNING) - "),
    "keras": re.compile(r"^(?:\x1b\[\dm)?\s*\d+/\d+(?:\x1b\[\d+m)* (?:\x1b\[\d+m)*(?:━|\[=)", re.MULTILINE),
    "ultralytics": re.compile(r"^ *epoch,.*train/\w+_loss,.*metrics/", re.MULTILINE),
    "huggingface": re.compile(
        r"^(?:Epoch|Step)\tTraining Loss(?:\tValidation Loss|\s*$)|"
        r"\{'loss': '?[\d.a-z]+'?, (?:'grad_norm': '?[\d.a-z]+'?, )?'learning_rate': |"
        r'^\{"current_steps": \d+, "total_steps": \d+, "loss": ',
        re.MULTILINE,
    ),
}
"""Lines that hold them, to whose they are: the dicts of Hugging Face's Trainer are printed by Axolotl, TRL and Unsloth,
and LLaMA-Factory keeps them in a file of its own, all of which take its TrainingArguments."""


def trainer_of(head: str) -> Trainer | None:
    """Whose the first lines of a log are; None where nothing tells."""
    return next((trainer for trainer, sign in SIGNS.items() if sign.search(head)), None)
