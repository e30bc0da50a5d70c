"""The mean of checkpoints: against a plain mean, greedy by validation, and what cannot be averaged."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from trimtab import load_config
from trimtab.cli import app
from trimtab.config import Config, dump_config
from trimtab.errors import CheckpointError, UsageError
from trimtab.runs import RunDirectory
from trimtab.runs.checkpoints import list_checkpoints, verify
from trimtab.runs.summary import summarize
from trimtab.soup import cook, plainly
from trimtab.trainer import Trainer
from trimtab.training.checkpoint import read_judged
from trimtab.training.trained import open_trained

SETTINGS = [
    "data={source: {name: text, path: TEXT}, tokenizer: {name: bytes}, sequence_length: 16}",
    "model={name: decoder, num_layers: 1, hidden_size: 16, num_heads: 1}",
    "optimizer={name: adamw, learning_rate: 1e-2}",
    "schedule={name: constant, warmup: 0}",
    "training={steps: 30, micro_batch_size: 8, compile: 'off'}",
    "evaluation={every: 10, max_tokens: 512, gap_tokens: 0, yardsticks: false, samples: {max_tokens: 0}}",
    "checkpoint.keep_latest=9",
    "stopping.name=none",
    "doctor.live=false",
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("TRIMTAB_CACHE")
    os.environ["TRIMTAB_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    yield
    if before is None:
        del os.environ["TRIMTAB_CACHE"]
    else:
        os.environ["TRIMTAB_CACHE"] = before


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    source = Path(os.__file__).parent
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py"):
        (folder / name).write_text((source / name).read_text())
    return folder


def fit(text: Path, run: Path, *settings: str) -> Path:
    given = [
        line for line in SETTINGS if not any(one.startswith("model={") and line[:6] == "model=" for one in settings)
    ]
    config = load_config(None, [line.replace("TEXT", str(text)) for line in given] + list(settings))
    Trainer(config, run=run).fit()
    return run


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(text, tmp_path_factory.mktemp("runs") / "run", "averaging={name: ema, decay: 0.8}")


def checkpoint(run: Path, step: int) -> Path:
    return run / f"checkpoints/step-{step:08}"


def plain_mean(*folders: Path, kind: str = "plain") -> dict[str, Tensor]:
    read = [read_judged(folder, kind) for folder in folders]
    return {name: torch.stack([one[name].double() for one in read]).mean(0).float() for name in read[0]}


def test_the_equal_soup_is_the_plain_mean_and_a_run_of_its_own(run: Path, tmp_path: Path) -> None:
    folders, out = [checkpoint(run, step) for step in (20, 30)], tmp_path / "new" / "soup"
    soup = cook(folders, out, weights="plain")
    kept = read_judged(checkpoint(out, 30))
    expected = plain_mean(*folders)
    assert kept.keys() == expected.keys()
    for name, tensor in kept.items():
        assert torch.allclose(tensor, expected[name], rtol=1e-7, atol=0.0), name
    assert verify(checkpoint(out, 30)) == []
    for one, folder in zip(soup.ingredients, folders, strict=True):
        recorded = json.loads((folder / "checkpoint.json").read_text())["metrics"]["validation/loss"]
        assert one.value == pytest.approx(recorded, rel=1e-6)
    opened = open_trained(out)
    assert (opened.weights, opened.checkpoint.step) == ("plain", 30)
    summary = summarize(RunDirectory.open(out))
    assert summary["status"] == "finished"
    assert summary["best"]["value"] == soup.value
    assert "soup of 2: " in summary["ended"]["reason"]
    shown = CliRunner().invoke(app, ["show", str(out)]).output
    told = CliRunner().invoke(app, ["doctor", str(out)]).output
    for text in (shown, told):
        assert "It is a soup, the mean of 2 checkpoints, and nothing was trained in it." in " ".join(text.split())
        assert "the best of them" in " ".join(text.split())
        assert "healthy" not in text
        assert "train/loss" not in text
    with pytest.raises(UsageError, match="already finished"):
        Trainer(load_config(out / "config.yaml"), run=out).fit()


def test_the_best_of_a_run_are_kept_and_averaged(text: Path, tmp_path: Path) -> None:
    """As configured: three best ones, of stretches of 20 steps the first, and the newest."""
    run = fit(
        text,
        tmp_path / "run",
        "training.steps=60",
        "evaluation.every=5",
        "checkpoint={every: 60, keep_latest: 1, keep_best: 3, keep_every: 20, min_improvement: 1e-6}",
        "optimizer.learning_rate=3e-2",
    )
    losses = {
        event["step"]: event["metrics"]["validation/loss"]
        for event in map(json.loads, (run / "record.jsonl").read_text().splitlines())
        if event["event"] == "EvaluationEnded"
    }
    best = sorted(losses, key=lambda step: losses[step])[:3]
    kept = [info.step for info in list_checkpoints(run)]
    assert set(best) <= set(kept)
    assert kept[-1] == 60
    assert {20, 40} <= {20 * (step // 20) for step in kept}
    out = tmp_path / "soup"
    done = CliRunner().invoke(app, ["soup", str(run), "--top", "3", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [one["step"] for one in told["ingredients"]] == best
    kept_weights = read_judged(checkpoint(out, max(best)))
    expected = plain_mean(*(checkpoint(run, step) for step in best))
    assert all(torch.allclose(kept_weights[name], expected[name], rtol=1e-7, atol=0.0) for name in expected)
    with pytest.raises(UsageError, match=r"--top: .* keeps \d checkpoints .* Received: 20"):
        cook([run], tmp_path / "none", top=20)


def test_averages_can_be_averaged_and_runs_stand_for_their_best(text: Path, run: Path, tmp_path: Path) -> None:
    other = fit(text, tmp_path / "other", "optimizer.learning_rate=5e-3", "model.dropout.residual=0.1")
    soup = cook([checkpoint(run, 30), other], tmp_path / "soup")
    assert [one.weights for one in soup.ingredients] == ["plain", "plain"]
    step = soup.ingredients[1].step
    kept = read_judged(checkpoint(tmp_path / "soup", max(step, 30)))
    expected = plain_mean(checkpoint(run, 30), checkpoint(other, step))
    assert all(torch.allclose(kept[name], expected[name], rtol=1e-7, atol=0.0) for name in kept)
    both = cook([checkpoint(run, 20), checkpoint(run, 30)], tmp_path / "both", weights="ema")
    kept = read_judged(checkpoint(tmp_path / "both", 30))
    expected = plain_mean(checkpoint(run, 20), checkpoint(run, 30), kind="ema")
    assert all(torch.allclose(kept[name], expected[name], rtol=1e-7, atol=0.0) for name in kept)
    assert both.value < cook([checkpoint(run, 20), checkpoint(run, 30)], tmp_path / "plain").ingredients[0].value


def test_the_greedy_soup_leaves_out_what_makes_it_worse(text: Path, run: Path, tmp_path: Path) -> None:
    """Weights of another beginning lie in another valley: a mean with them is worse than either."""
    stranger = fit(text, tmp_path / "stranger", "seed=0", "model.initialization.standard_deviation=0.3")
    folders = [checkpoint(run, 10), checkpoint(stranger, 30), checkpoint(run, 30), checkpoint(run, 20)]
    equal = cook(folders, tmp_path / "equal")
    greedy = cook(folders, tmp_path / "greedy", greedy=True)
    assert [one.value for one in greedy.ingredients] == [one.value for one in equal.ingredients]
    best = min(one.value for one in greedy.ingredients)
    assert greedy.value <= best < equal.value
    assert greedy.gain == best - greedy.value
    assert 1 <= greedy.num_in < 4 == equal.num_in

    # By hand: the better first, each taken if the mean is not worse for it.
    order = sorted(range(4), key=lambda index: greedy.ingredients[index].value)
    taken, value = [order[0]], best
    for place, index in enumerate(order[1:]):
        step = cook([folders[i] for i in [*taken, index]], tmp_path / f"by-hand-{place}")
        if step.value <= value:
            taken, value = [*taken, index], step.value
    assert {index for index, one in enumerate(greedy.ingredients) if one.is_in} == set(taken)


class Normalizes(nn.Module):
    """Named by a configuration, so that the command line can build it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(257, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 257)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.embedding(tokens).transpose(1, 2)).transpose(1, 2))
        return logits


def test_batch_norm_is_made_anew(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "a_model_of_mine", sys.modules[__name__])
    run = fit(text, tmp_path / "run", "model={name: custom, target: 'a_model_of_mine:Normalizes'}")
    folders = [checkpoint(run, 20), checkpoint(run, 30)]
    cook(folders, tmp_path / "soup")
    kept, mean = read_judged(checkpoint(tmp_path / "soup", 30)), plain_mean(*folders)
    for name in kept:
        is_statistic = "running" in name or "tracked" in name
        assert torch.allclose(kept[name].float(), mean[name].float(), rtol=1e-6) != is_statistic, name
    embedding = kept["model/module.embedding.weight"]
    assert torch.allclose(kept["model/module.norm.running_mean"], embedding.mean(0), atol=0.5)


def test_what_cannot_be_averaged_is_refused_by_name(text: Path, run: Path, tmp_path: Path) -> None:
    wide = fit(text, tmp_path / "wide", "model.hidden_size=32", "training.steps=10")
    other = fit(text, tmp_path / "other", "data.tokenizer={name: bpe, vocabulary_size: 300}", "training.steps=10")
    halved = fit(text, tmp_path / "halved", "data.validation_fraction=0.4", "training.steps=10")
    last, out = checkpoint(run, 30), tmp_path / "out"
    refused: list[tuple[list[Path], Any, str]] = [
        ([last], UsageError, "needs two checkpoints"),
        ([last, checkpoint(run, 20), last], UsageError, "plain weights are named twice"),
        ([last, wide], UsageError, r"cannot be averaged:\n  model\.hidden_size: 16 and 32"),
        ([last, other], UsageError, r"the tokenizers are others, of 257 and 300 tokens"),
        ([last, halved], UsageError, "the data is other data"),
        ([last, checkpoint(run, 7)], UsageError, "has no checkpoint '7'"),
        ([last, tmp_path / "nothing"], UsageError, "there is no such directory"),
    ]
    for paths, kind, message in refused:
        with pytest.raises(kind, match=message):
            cook(paths, out)
        assert not out.exists(), "nothing is left of it"
    with pytest.raises(UsageError, match="a new run needs a directory that is empty"):
        cook([last, checkpoint(run, 20)], run)
    with pytest.raises(UsageError, match="no such weights"):
        cook([last, checkpoint(run, 20)], out, weights="swa")
    shutil.copytree(run, tmp_path / "copy")
    damaged = checkpoint(tmp_path / "copy", 30) / "tensors.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match="is damaged"):
        cook([checkpoint(tmp_path / "copy", 20), checkpoint(tmp_path / "copy", 30)], out)
    assert not out.exists()


def test_models_that_round_otherwise_are_not_averaged_and_a_soup_has_no_quantized_model(
    text: Path, run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torchao")
    rounded = [
        fit(text, tmp_path / name, "training.steps=10", f"training.quantize={{name: int8, start: {start}}}", seed)
        for name, start, seed in (("a", 2, "seed=1"), ("b", 5, "seed=2"))
    ]
    with pytest.raises(UsageError, match=r"training\.quantize\.name: 'none' and 'int8'"):
        cook([run, rounded[0]], tmp_path / "soup")
    mixed = cook(rounded, tmp_path / "soup")  # that they began to round at other steps is no difference
    assert open_trained(mixed.run).weights == "plain"
    with pytest.raises(UsageError, match="is a soup, which has no quantized model of its own") as caught:
        open_trained(mixed.run, quantized=True)
    assert "resume" not in str(caught.value.hint)


def test_the_command_says_each_loss_and_what_to_run_next(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "soup"
    arguments = ["soup", str(checkpoint(run, 20)), str(checkpoint(run, 30)), "--out", str(out), "--weights", "ema"]
    done = CliRunner().invoke(app, [*arguments, "--greedy"])
    assert done.exit_code == 0, done.output
    assert f"{run}, step 20, ema weights" in done.output
    assert f"{out}, the mean of" in done.output
    assert f"next: trimtab evaluate {out}" in done.output
    again = CliRunner().invoke(app, ["evaluate", str(out), "--json"])
    assert again.exit_code == 0, again.output
    found = json.loads(again.output[again.output.index("{") :])
    kept = json.loads((checkpoint(out, 30) / "checkpoint.json").read_text())["metrics"]
    assert found["metrics"]["validation/loss"] == pytest.approx(kept["validation/loss"], rel=1e-6)
    assert found["weights"] == "plain"
    averaged = CliRunner().invoke(app, ["evaluate", str(run), "--checkpoint", "30", "--weights", "ema"])
    assert f"{run}, step 30, ema weights" in averaged.output
    assert "validation/loss@ema" in averaged.output
    other = CliRunner().invoke(app, ["evaluate", str(run), "--checkpoint", "30"])
    assert f"{run}, step 30, plain weights" in other.output
    assert "@ema" not in other.output
    written = CliRunner().invoke(app, ["generate", str(out), "--prompt", "def", "--max-tokens", "3"])
    assert written.exit_code == 0
    shown = CliRunner().invoke(app, ["show", str(out)])
    assert "soup of" in shown.output


def test_what_steered_the_run_is_no_part_of_the_soup() -> None:
    """A controller that watched an average would be refused where there is none any more."""
    settings = [
        "averaging={name: ema}",
        "checkpoint.metric=validation/loss@ema",
        "stopping.metric=validation/loss@ema",
        "control.learning_rate={name: plateau, metric: validation/loss@ema}",
        "optimizer_switch={patience: 2, metric: validation/loss@ema, to: {name: sgd}}",
        "schedule={name: constant}",
    ]
    config = plainly(load_config("gpt-1m", settings))
    assert config == Config.model_validate(config.model_dump())
    assert "@" not in dump_config(config)
