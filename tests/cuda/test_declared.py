"""Modules of one's own that declare themselves capturable: held to it before step 1, and trained as uncaptured ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trimtab.config import load_config
from trimtab.errors import ConfigError
from trimtab.events import Event, StepsEnded
from trimtab.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class Mean(nn.Module):
    """A score for each class from the mean of the embeddings of a text."""

    capturable = True

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.drop = nn.Embedding(257, 64), nn.Dropout(0.1)
        self.hidden, self.head = nn.Linear(64, 64), nn.Linear(64, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        if self.training:
            self.seen += 1.0
        weights_BT1 = mask_BT[..., None].float()
        mean_BD = (self.embedding(tokens) * weights_BT1).sum(1) / weights_BT1.sum(1)
        return self.head(self.drop(torch.relu(self.hidden(mean_BD))))


class Counts(Mean):
    """Keeps the number of its calls in Python."""

    calls = 0

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(tokens, mask_BT) * (1.0 + 0.1 * self.calls)


class Looks(Mean):
    """Looks at a value on the host."""

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        logits = super().forward(tokens, mask_BT)
        return logits if logits.abs().max() < 1e6 else logits.tanh()


class Replaces(Mean):
    """Puts another tensor in the place of a buffer."""

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        logits = super().forward(tokens, mask_BT)
        self.seen = self.seen * 0.9 + 0.1 * tokens.float().mean()
        return logits


class Losses:
    def __init__(self, leaves_at: int = 0) -> None:
        self.values, self._leaves_at = list[float](), leaves_at

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.values += event.per_step["train/loss"].tolist()
            if self._leaves_at and event.last_step >= self._leaves_at:
                raise KeyboardInterrupt


def trainer_of(folder: Path, module: nn.Module, losses: Losses, *more: str) -> Trainer:
    rows = folder.parent / "rows.jsonl"
    if not rows.exists():
        words = {"tree": "leaf root bark twig", "sea": "wave salt foam tide", "sky": "star moon cloud wind"}
        texts = [
            {"text": " ".join(([*said.split()] * 3)[one % 5 : one % 5 + 2 + one % 6]), "label": label}
            for label, said in words.items()
            for one in range(80)
        ]
        rows.write_text("".join(json.dumps(one) + "\n" for one in texts))
    settings = [
        f"data={{source: {{name: jsonl, path: {rows}}}, tokenizer: {{name: bytes}}, sequence_length: 32}}",
        "task={name: classification, padding: full}",
        "model={name: encoder, num_layers: 1, hidden_size: 32, num_heads: 2}",
        "optimizer.learning_rate=5e-3",
        "training={steps: 60, micro_batch_size: 16, accumulation: 2, deterministic: true}",
        "evaluation={every: 20, gap_tokens: 0}",
        "checkpoint.every=20",
        "stopping={name: none}",
        "logging.every=5",
    ]
    torch.manual_seed(0)
    return Trainer(load_config(None, settings + list(more)), run=folder, model=module, monitors=[losses])


def capture_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "plan.json").read_text())["capture"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_declared_module_is_captured_learns_the_same_and_resumes(tmp_path: Path, precision: str) -> None:
    settings, captured, plain = f"training.precision.name={precision}", Losses(), Losses()
    torch.manual_seed(0)
    whole = trainer_of(tmp_path / "whole", Mean(), captured, settings)
    result = whole.fit()
    assert capture_of(tmp_path / "whole")["chosen"]
    torch.manual_seed(0)
    trainer_of(tmp_path / "plain", Mean(), plain, settings, "training.capture=off").fit()
    assert not capture_of(tmp_path / "plain")["chosen"]
    assert captured.values == pytest.approx(plain.values, rel=1e-3)
    assert result.metrics["validation/accuracy"] > 0.9
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "left", Mean(), Losses(leaves_at=25), settings).fit()
    resumed = trainer_of(tmp_path / "left", Mean(), Losses(), settings)
    resumed.fit()
    assert whole.model is not None
    assert resumed.model is not None
    expected = whole.model.state_dict()
    # Not a single call of the comparison before step 1 is in what the buffers count.
    assert float(expected["module.seen"]) == 120.0
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())


def test_without_the_word_it_is_run_as_it_is(tmp_path: Path) -> None:
    module = Mean()
    module.capturable = False
    trainer_of(tmp_path / "run", module, Losses(), "training.steps=4", "evaluation.every=4").fit()
    assert "capturable = True" in str(capture_of(tmp_path / "run")["reason"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Counts, "Counts declares itself capturable, and its captured step is another.*differs by"),
        (Replaces, "Replaces declares itself capturable, and its captured step is another.*buffers"),
        (Looks, "Looks declares itself capturable, and cannot be captured"),
    ],
)
def test_one_that_is_not_is_refused(tmp_path: Path, kind: type[Mean], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer_of(tmp_path / "run", kind(), Losses(), "training.steps=4", "evaluation.every=4").fit()
    assert torch.rand(2, device="cuda").max() < 1.0  # a failed capture leaves a generator that can draw
