"""`TransformerTrainer`: each task from Python without a configuration file."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from trimtab import TransformerTrainer
from trimtab.errors import ConfigError, UsageError
from trimtab.trainers import PRESETS

SMALL: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 24,
    "model.num_layers": 1,
    "model.hidden_size": 32,
    "model.num_heads": 2,
    "training.steps": 4,
    "training.micro_batch_size": 4,
    "evaluation.every": 4,
    "evaluation.gap_tokens": 0,
}
AGAIN = ("masked_lm", "token_classification", "regression")
"""Of these tests/test_tasks.py shows as much."""
LEADING = {"causal_lm": "perplexity", "regression": "r2", "seq2seq": "perplexity"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Lines of a module, as a text and as rows with all that the tasks ask for."""
    folder = tmp_path_factory.mktemp("data")
    lines = [line.strip() for line in inspect.getsource(textwrap).split("\n") if len(line.split()) > 1][:120]
    (folder / "text.txt").write_text("\n".join(lines))
    with (folder / "rows.jsonl").open("w") as file:
        for line in lines:
            words = line.split()
            row = {
                "text": line,
                "label": "comment" if line[0] == "#" else "code",
                "value": float(len(line)),
                "target": words[0],
                "second": words[-1],
            }
            print(json.dumps(row), file=file)
    with (folder / "tags.jsonl").open("w") as file:
        for line in lines:
            tags = ["name" if word.isidentifier() else "other" for word in line.split()]
            print(json.dumps({"text": line.split(), "tags": tags}), file=file)
    return {"text": folder / "text.txt", "rows": folder / "rows.jsonl", "tags": folder / "tags.jsonl"}


@pytest.mark.parametrize(
    "task", [pytest.param(one, marks=pytest.mark.slow) if one in AGAIN else one for one in PRESETS]
)
def test_every_task_trains_from_its_name(task: str, data: dict[str, Path], tmp_path: Path) -> None:
    where = {"causal_lm": "text", "masked_lm": "text", "token_classification": "tags"}.get(task, "rows")
    more = {"task.second": "second"} if task == "contrastive" else {}
    trainer = TransformerTrainer(
        data[where], task=task, settings={**SMALL, **more}, run=tmp_path / "run", progress=False
    )
    assert trainer.config.task.name == task
    assert trainer.fit().status == "finished"
    metrics = trainer.evaluate()
    assert f"validation/{LEADING.get(task, 'accuracy')}" in metrics
    if task in ("causal_lm", "masked_lm", "seq2seq"):
        with pytest.raises(UsageError):
            trainer.predict(["def indent(text):"])
    else:
        answers = trainer.predict(["def indent(text):", "# a comment"])
        sizes = {"token_classification": [2, 3], "contrastive": [32, 32]}
        assert [one.numel() for one in answers] == sizes.get(task, [1, 1])
    if task == "causal_lm":
        assert trainer.generate("def", max_tokens=3, top_p=0.9).startswith("def")
        with pytest.raises(UsageError, match="beams look for the best answer to a text"):
            trainer.generate("def", beams=2)
    elif task == "seq2seq":
        greedy, best = (trainer.generate("def indent(text):", max_tokens=3, beams=beams) for beams in (1, 3))
        assert greedy == trainer.generate("def indent(text):", max_tokens=3, temperature=0.7, top_k=1)
        assert greedy == trainer.generate("def indent(text):", max_tokens=3, temperature=0.7, top_k=0, top_p=0.0)
        assert max(len(greedy.encode()), len(best.encode())) <= 9  # three bytes, or three signs for what is no UTF-8
        with pytest.raises(UsageError, match="give one as the prompt"):
            trainer.generate()
        with pytest.raises(UsageError, match="at temperature 0 none are"):
            trainer.generate("def", top_p=0.5)
    else:
        with pytest.raises(UsageError, match="writes nothing"):
            trainer.generate("def")


def test_what_is_refused_before_anything_runs(data: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Received: 'classificaton'\nhint: did you mean 'classification'"):
        TransformerTrainer(task="classificaton")
    with pytest.raises(UsageError, match="regression needs rows"):
        TransformerTrainer(task="regression")
    with pytest.raises(ConfigError, match="model"):
        TransformerTrainer(data["rows"], task="seq2seq", preset="gpt-1m")


def test_a_preset_brings_its_own_task(data: dict[str, Path], tmp_path: Path) -> None:
    trainer = TransformerTrainer(
        data["rows"], preset="regression", validation=data["rows"], run=tmp_path / "run", progress=False
    )
    assert trainer.config.task.name == "regression"
    described = trainer.config.model_dump(mode="json")["data"]
    assert described["source"]["path"] == described["validation_source"]["path"] == str(data["rows"])


def test_settings_say_where_the_target_is_and_replace_what_the_preset_says(data: dict[str, Path]) -> None:
    trainer = TransformerTrainer(
        data["rows"], task="regression", settings={"task.value": "lines", "training.steps": 7}, progress=False
    )
    assert trainer.config.model_dump()["task"]["value"] == "lines"
    assert trainer.config.training.steps == 7
    assert trainer.config.objective.name == "huber"
