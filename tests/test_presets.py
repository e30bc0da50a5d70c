"""Every preset takes steps, made small where it is large; `make test-examples` trains them further."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from trimtab.config import Config, EncoderDecoderConfig, HuggingFaceConfig, TransformerShape, list_presets, load_config
from trimtab.trainer import Trainer

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, and rows with a class, a number and a second text that follow from their first."""
    folder, draw = tmp_path_factory.mktemp("files"), random.Random(0)
    rows = []
    for _ in range(600):
        words = draw.choices(range(10), k=draw.randint(3, 8))
        text = " ".join(WORDS[word] for word in words)
        rows.append(
            {
                "text": text,
                "label": "high" if words[0] > 4 else "low",
                "value": float(sum(words)),
                "target": " ".join(reversed(text.split())),
            }
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text").mkdir()
    (folder / "text/a.txt").write_text(" . ".join(row["text"] for row in rows) * 6)
    return folder


def small(name: str, files: Path, *settings: str) -> Config:
    """The preset with its own data's kind in `files`, two layers and narrow heads."""
    config = load_config(name, environment={})
    changes = ["evaluation.gap_tokens=0"]
    if config.task.name in ("causal_lm", "seq2seq"):
        changes.append("evaluation.samples.max_tokens=4")
    if config.task.name == "causal_lm":
        changes.append("evaluation.yardsticks=false")
    changes += ["data.sequence_length=32", "training.device=cpu", "training.threads=1"]
    if config.data.source.name in ("jsonl", "csv", "parquet", "folder"):
        changes.append(f"data.source={{name: jsonl, path: {files / 'rows.jsonl'}}}")
    else:
        changes.append(f"data.source={{name: text, path: {files / 'text'}}}")
    model = config.model
    if isinstance(model, TransformerShape):
        changes += ["model.num_layers=2", f"model.hidden_size={16 * model.num_heads}", "model.feed_forward_size=64"]
        changes.append("data.tokenizer.vocabulary_size=300")
    elif isinstance(model, HuggingFaceConfig):
        pytest.importorskip("transformers")
        shape = "{model_type: gpt2, n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64}"
        changes += [
            f"model={{name: hugging_face, config: {shape}, path: null}}",
            "data.tokenizer={name: bpe, vocabulary_size: 300}",
        ]
    if not isinstance(model, EncoderDecoderConfig):
        changes.append("data.validation_fraction=0.2")
    return load_config(name, [*changes, *settings], environment={})


@pytest.mark.parametrize("name", list_presets())
def test_a_step_of_it(name: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(files / "cache"))
    few = ["training.steps=1", "training.micro_batch_size=4", "training.accumulation=2", "evaluation.every=1"]
    few += ["stopping={name: none}", "lint.allow=[warmup-longer-than-run]"]
    result = Trainer(small(name, files, *few), run=tmp_path / "run").fit()
    assert (result.status, result.step) == ("finished", 1)
    assert 0.0 < result.metrics["validation/loss"] < 12.0
