"""bf16 or fp32 on a processor: by what products take, and never against what was asked for."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.config import Config, Fp32, load_config
from trimtab.errors import DriftError
from trimtab.events import Event, StepsEnded
from trimtab.planning import ModelCounts, count_model
from trimtab.trainer import Trainer
from trimtab.training import products
from trimtab.training.products import choose_precision
from trimtab.training.trained import open_trained

CPU = torch.device("cpu")


def auto(*overrides: str) -> Config:
    return load_config(None, ["training.precision={name: auto}", *overrides], environment={})


class Interrupts:
    asked = False

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and not self.asked:
            self.asked = True
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def _has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "computes_in_bf16", lambda device: True)


@pytest.mark.parametrize("ratio, chosen", [(0.3, "bf16"), (1.05, "bf16"), (1.5, "fp32")])
def test_fp32_is_taken_where_it_is_clearly_quicker(ratio: float, chosen: str) -> None:
    asked: list[tuple[int, int]] = []

    def compare(counts: ModelCounts, rows: int) -> float:
        asked.append((counts.total_parameters, rows))
        return ratio

    config = auto("data.sequence_length=16", "training.micro_batch_size=4")
    found, choice = choose_precision(config, CPU, None, compare)
    assert asked == [(count_model(config).total_parameters, 64)]
    assert choice is not None
    assert choice["chosen"] == chosen
    assert (found is config) == (chosen == "bf16")
    assert isinstance(found.training.precision, Fp32) == (chosen == "fp32")
    assert found.model_copy(update={"training": config.training}) == config
    again, kept = choose_precision(config, CPU, choice, lambda counts, rows: pytest.fail("measured again"))
    assert (again, kept) == (found, choice)


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.precision={name: fp32}"],
        ["training.precision={name: bf16}"],
        ["training.precision={name: auto, parameters: bf16}"],
        ["model={name: custom, target: a:b}"],
    ],
)
def test_what_is_asked_for_is_not_measured(overrides: list[str]) -> None:
    config = auto(*overrides)
    assert choose_precision(config, CPU, None, lambda counts, rows: pytest.fail("measured")) == (config, None)


def test_a_tokenizer_whose_vocabulary_cannot_be_counted_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """As a folder with vocab.txt alone, which transformers reads."""
    (tmp_path / "vocab.txt").write_text("[UNK]\n")
    config = auto(f"data.tokenizer={{name: hugging_face, path: {tmp_path}}}")
    found, choice = choose_precision(config, CPU, None, lambda counts, rows: pytest.fail("measured"))
    assert found is config
    assert choice is not None
    assert choice["chosen"] == "bf16"
    assert "no tokenizer.json" in choice["reason"]


def test_a_gpu_and_a_processor_without_bf16_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = lambda counts, rows: pytest.fail("measured")  # noqa: E731
    assert choose_precision(auto(), torch.device("cuda"), None, refuse)[1] is None
    monkeypatch.setattr(products, "computes_in_bf16", lambda device: False)
    assert choose_precision(auto(), CPU, None, refuse)[1] is None


def test_a_real_measurement_says_a_ratio_and_leaves_the_threads() -> None:
    threads = torch.get_num_threads()
    ratio = products._products_compared(count_model(auto("model.hidden_size=64", "model.num_heads=1")), 32)
    assert 0.01 < ratio < 100
    assert torch.get_num_threads() == threads


def test_a_run_keeps_the_choice_and_is_resumed_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("Of a short text a little is learned. " * 200)
    config = load_config(
        None,
        [
            f"data={{source: {{name: text, path: {tmp_path}, pattern: text.txt}}, tokenizer: {{name: bytes}}}}",
            "data.sequence_length=16",
            "model={num_layers: 1, hidden_size: 16, num_heads: 1}",
            "training={steps: 9, micro_batch_size: 2, precision: {name: auto}}",
            "evaluation={every: 3, max_tokens: 64, yardsticks: false, samples: {prompts: []}}",
            "stopping.name=none",
            "logging.every=3",
        ],
        environment={},
    )
    monkeypatch.setattr(products, "_products_compared", lambda counts, rows: 2.0)
    run = tmp_path / "run"
    assert Trainer(config, run=run, monitors=[Interrupts()]).fit().status == "interrupted"
    plan = json.loads((run / "plan.json").read_text())
    assert plan["precision"] == plan["precision_choice"]["chosen"] == "fp32"
    assert plan["threads"] == plan["threads_choice"]["chosen"] >= 1
    assert load_config(str(run / "config.yaml"), environment={}) == config, "what was asked for"
    monkeypatch.setattr(products, "_products_compared", lambda counts, rows: pytest.fail("measured again"))
    resumed = load_config(str(run / "config.yaml"), environment={})
    assert Trainer(resumed, run=run, monitors=[Interrupts()]).fit().status == "interrupted"
    assert json.loads((run / "plan.json").read_text()) == plan
    assert Trainer(config, run=run).fit().status == "finished"
    assert json.loads((run / "plan.json").read_text()) == plan
    assert isinstance(open_trained(run).config.training.precision, Fp32), "judged as it was trained"
    # The command that began it says that it is over, and a change is told from it.
    same = CliRunner().invoke(app, ["train", str(run / "config.yaml"), "--run", str(run)])
    assert (same.exit_code, "already finished" in same.output) == (0, True), same.output
    other = ["train", str(run / "config.yaml"), "training.precision={name: fp32}", "--run", str(run)]
    with pytest.raises(DriftError, match=r"training\.precision\.name: was 'auto', now 'fp32'"):
        CliRunner().invoke(app, other, catch_exceptions=False)
