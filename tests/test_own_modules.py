"""Modules of one's own, of every task that they serve: as trimtab's own models, resumed, judged, refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab import Trainer, load_config
from trimtab.errors import ConfigError
from trimtab.events import Event, StepsEnded
from trimtab.runs.record import read_attempts

ENCODER = {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2}
TASKS: dict[str, dict[str, Any]] = {
    "classification": {"task": {"name": "classification", "label": "kind"}},
    "multi_label": {
        "task": {"name": "classification", "label": "labels", "multi_label": True},
        "objective": {"name": "binary_cross_entropy"},
    },
    "token_classification": {"task": {"name": "token_classification"}},
    "regression": {"task": {"name": "regression"}, "objective": {"name": "huber"}},
    "seq2seq": {"task": {"name": "seq2seq", "target_length": 8}, "model": {**ENCODER, "name": "encoder_decoder"}},
    "masked_lm": {"task": {"name": "masked_lm"}},
    "causal_lm": {"model": {**ENCODER, "name": "decoder"}},
}
FAST = "seq2seq"
WORDS = ("leaf", "root", "wave", "foam", "star", "moon", "wind")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of words with something of each kind to say about them."""
    path = tmp_path_factory.mktemp("own") / "rows.jsonl"
    with path.open("w") as file:
        for number in range(90):
            words = [WORDS[(number * step + number // 7) % 7] for step in range(1, 3 + number % 5)]
            row = {
                "text": " ".join([*words, str(number)]),
                "kind": words[0],
                "binary": "even" if number % 2 == 0 else "odd",
                "labels": sorted(set(words) & {"leaf", "foam", "moon"}),
                "tags": [*(word[0] for word in words), "number"],
                "value": float(len(words)),
                "target": words[-1],
            }
            print(json.dumps(row), file=file)
    return path


def config_of(name: str, rows: Path, *more: str) -> Any:
    source = {"name": "jsonl", "path": str(rows)}
    settings = {
        "model": ENCODER,
        "optimizer": {"name": "adamw", "learning_rate": 5e-3},
        "training": {"steps": 6, "micro_batch_size": 4, "accumulation": 2},
        "evaluation": {"every": 3, "gap_tokens": 0},
        "data": {"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 24},
        "logging": {"every": 2},
        **TASKS[name],
    }
    return load_config(settings, more, environment={})


class Outside(nn.Module):
    """One of trimtab's models as somebody else's: it gives plain logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor, document_ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        logits: Tensor = self.inner(tokens, positions_BT, document_ids_BT).logits
        return logits


class OutsidePair(Outside):
    def forward(self, tokens: Tensor, document_ids_BT: Tensor, decoder_input_ids: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": self.inner(tokens, document_ids_BT, decoder_input_ids).logits}


class Losses:
    def __init__(self, leaves: bool = False) -> None:
        self.values, self.leaves = list[float](), leaves

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.values += event.per_step["train/loss"].tolist()
            if self.leaves and event.last_step >= 4:
                raise KeyboardInterrupt


@pytest.mark.parametrize("name", [pytest.param(one, marks=() if one == FAST else pytest.mark.slow) for one in TASKS])
def test_it_trains_as_ours_does_and_resumes_to_the_same_bits(name: str, rows: Path, tmp_path: Path) -> None:
    config = config_of(name, rows)
    ours = Trainer(config, run=tmp_path / "ours")

    def outside() -> nn.Module:
        _, parts = Trainer(config).assemble()
        return (OutsidePair if name == "seq2seq" else Outside)(parts.model)

    expected, losses = Losses(), Losses()
    ours._monitors = (expected,)
    result = ours.fit()
    found = Trainer(config, run=tmp_path / "outside", model=outside(), monitors=[losses])
    metrics = found.fit().metrics
    assert losses.values == pytest.approx(expected.values, rel=1e-5)
    assert metrics == pytest.approx(result.metrics, rel=1e-4)
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", model=outside(), monitors=[Losses(leaves=True)]).fit()
    again = Trainer(config, run=tmp_path / "parts", model=outside())
    assert again.fit().metrics == metrics
    assert [line["resumed_from"] for line in read_attempts(tmp_path / "parts/record.jsonl")][1:] == [3]
    assert found.model is not None
    assert again.model is not None
    states = found.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


class Mean(nn.Module):
    """Scores from the mean of the embeddings of a text; of the shapes in which people give them."""

    def __init__(self, size: int = 1, shape: str = "plain") -> None:
        super().__init__()
        self.embedding, self.head, self.shape = nn.Embedding(257, 8), nn.Linear(8, size), shape

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        weights = mask_BT[..., None].float()
        logits: Tensor = self.head((self.embedding(tokens) * weights).sum(1) / weights.sum(1))
        return {
            "plain": logits,
            "flat": logits.squeeze(-1),
            "by position": logits[:, None].expand(-1, tokens.shape[1], -1),
            "whole numbers": logits.argmax(-1),
        }[self.shape]


def test_two_classes_are_served_by_one_score(rows: Path) -> None:
    """As binary cross-entropy takes it: of the second class by name."""
    config = config_of("classification", rows, "task.label=binary")
    data, parts = Trainer(config, model=(module := Mean(shape="flat"))).assemble()
    batch = data.validation.batch(torch.arange(4).numpy())
    with torch.no_grad():
        logits = parts.model(**parts.task.inputs(batch))
        score = module(batch.tokens_BT, batch.document_ids_BT >= 0)
    expected = nn.functional.binary_cross_entropy_with_logits(score, batch.targets.float())
    assert float(nn.functional.cross_entropy(logits, batch.targets)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        (
            "classification",
            Mean(3),
            r"Mean must give logits, a score for each class \(foam, leaf, moon, root …\), of shape \(4, 7\) for tokens "
            r"of shape \(4, \d+\) \(task classification\). Received: a tensor of shape \(4, 3\)",
        ),
        ("classification", Mean(7, "by position"), r"shape \(4, 7\).*Received: a tensor of shape \(4, \d+, 7\)"),
        ("token_classification", Mean(7), r"shape \(4, \d+, 7\).*Received: a tensor of shape \(4, 7\)"),
        ("regression", Mean(2), r"numbers of shape \(4, 1\).*Received: a tensor of shape \(4, 2\)"),
        ("regression", Mean(1, "whole numbers"), "Received: numbers of the type int64"),
        ("multi_label", Mean(1), r"shape \(4, 3\).*Received: a tensor of shape \(4, 1\)"),
        ("classification", nn.Linear(3, 7), "Linear fails where it is asked about the first texts.*RuntimeError"),
        ("seq2seq", Mean(257), "has no parameter for it: second_BS or decoder_input_ids. Received: tokens, mask_BT"),
        ("classification", nn.Bilinear(2, 2, 2), "forward of Bilinear asks for 'input2', which it is not given"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    name: str, module: nn.Module, message: str, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        Trainer(config_of(name, rows), run=tmp_path / "run", model=module).fit()
    assert not (tmp_path / "run").exists()


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs/how-to/your-own-module.md").read_text()
    module, config, script = (
        next(block for block in re.findall(r"```\w+\n(.*?)```", page, re.DOTALL) if begins in block.partition("\n")[0])
        for begins in ("# convolutions.py", "# convolutions.yaml", "from convolutions import")
    )
    (tmp_path / "convolutions.py").write_text(module)
    (tmp_path / "convolutions.yaml").write_text(config)
    with (tmp_path / "rows.jsonl").open("w") as file:
        for number in range(200):
            text = f"x{number} = call({number})" if number % 2 else f"# {WORDS[number % 7]} and {number}"
            print(json.dumps({"text": text, "label": "code" if number % 2 else "comment"}), file=file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    exec(compile(script, "page", "exec"), {"__name__": "page"})
    config = load_config("convolutions.yaml", ["training.steps=3", "evaluation.every=3"])
    told = Trainer(config, run="runs/named").fit()
    assert set(told.metrics) >= {"validation/accuracy", "validation/f1"}
    losses = [line for line in Path("runs/object/record.jsonl").read_text().splitlines() if "EvaluationEnded" in line]
    assert json.loads(losses[-1])["metrics"]["validation/accuracy"] > 0.9
    plan = json.loads(Path("runs/object/plan.json").read_text())
    assert plan["capture"]["reason"] == "graphs are for CUDA" or torch.cuda.is_available()
