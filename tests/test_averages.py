"""Averaged weights through a whole run: judged, chosen by, restored, resumed to the same bits, BatchNorm included."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from trimtab import LanguageModelTrainer, Trainer, load_config
from trimtab.data import prepare_data
from trimtab.doctor.load import open_case
from trimtab.errors import CheckpointError, ConfigError, UsageError
from trimtab.evaluation import batch_norm_buffers, renew_batch_norm
from trimtab.events import EvaluationEnded, Event, RunEnded, StepsEnded
from trimtab.monitor.sinks.console import Console
from trimtab.report.gather import gather
from trimtab.runs import RunDirectory
from trimtab.runs.checkpoints import latest, list_checkpoints
from trimtab.runs.summary import render, summarize
from trimtab.training.checkpoint import Snapshot, kinds_held, read_judged, read_tensors, write_snapshot
from trimtab.training.judging import build_evaluation
from trimtab.training.trained import open_trained

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 16,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 1},
    "optimizer.learning_rate": 5e-3,
    "schedule": {"name": "constant", "warmup": 0},
    "training.steps": 20,
    "training.micro_batch_size": 8,
    "training.compile": "off",
    "evaluation.every": 5,
    "evaluation.max_tokens": 512,
    "evaluation.gap_tokens": 256,
    "evaluation.yardsticks": False,
    "evaluation.samples.max_tokens": 5,
    "checkpoint.keep_latest": 9,
    "stopping": {"name": "none"},
}
EMA = {"averaging": {"name": "ema", "decay": 0.9}}
SWA = {"averaging": {"name": "swa", "start": 7, "every": 2}}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    source = Path(os.__file__).parent
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py"):
        (folder / name).write_text((source / name).read_text())
    return folder


class Watches:
    """Keeps evaluations and the end; leaves, as after a crash, once `leave_at` steps were told."""

    def __init__(self, leave_at: int | None = None) -> None:
        self.leave_at = leave_at
        self.evaluations: dict[int, Mapping[str, float]] = {}
        self.ended: RunEnded | None = None

    def observe(self, event: Event) -> None:
        if isinstance(event, EvaluationEnded):
            self.evaluations[event.step] = event.metrics
        if isinstance(event, RunEnded):
            self.ended = event
        if isinstance(event, StepsEnded) and self.leave_at is not None and event.last_step >= self.leave_at:
            raise KeyboardInterrupt


def trainer(
    text: Path, run: Path, settings: Mapping[str, Any], *monitors: Any, model: nn.Module | None = None
) -> LanguageModelTrainer:
    values = {**SETTINGS, **settings}
    return LanguageModelTrainer(text, settings=values, run=run, progress=False, monitors=monitors, model=model)


def tensors_of(run: Path) -> dict[str, Tensor]:
    info = latest(run)
    assert info is not None
    return read_tensors(info.path, "")


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: Iterable[str]) -> list[str]:
    return [name for name in names if not torch.equal(a[name], b[name])]


@pytest.fixture(scope="module")
def plain_tensors(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Tensor]:
    """What a run without averages ends with."""
    run = tmp_path_factory.mktemp("plain") / "run"
    trainer(text, run, {}).fit()
    return tensors_of(run)


@pytest.mark.parametrize("averaging", [EMA, SWA], ids=["ema", "swa"])
def test_it_resumes_to_the_same_bits_and_leaves_training_alone(
    text: Path, tmp_path: Path, averaging: Any, plain_tensors: Mapping[str, Tensor]
) -> None:
    kind = averaging["averaging"]["name"]
    whole, again = Watches(), Watches()
    trainer(text, tmp_path / "whole", averaging, whole).fit()
    for leave_at in (7, 13):
        with pytest.raises(KeyboardInterrupt):
            trainer(text, tmp_path / "left", averaging, Watches(leave_at)).fit()
    trainer(text, tmp_path / "left", averaging, again).fit()

    one, other, plain = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "left"), plain_tensors
    held = [name for name in one if not name.startswith("window/")]
    assert sum(name.startswith(f"average/{kind}/") for name in held) == sum(n.startswith("model/") for n in held)
    assert one.keys() == other.keys()
    assert differing(one, other, held) == []
    assert again.evaluations.items() <= whole.evaluations.items()
    trained = [name for name in held if name.startswith(("model/", "optimizer/"))]
    assert differing(one, plain, trained) == [], "averaging changed what is trained"
    taken = {"ema": 20, "swa": 6}[kind]
    assert int(one[f"averaging/{kind}/taken"]) == taken

    last = whole.evaluations[20]
    assert last[f"validation/loss@{kind}"] != last["validation/loss"]
    begins = 5 if kind == "ema" else 10
    assert sorted(step for step, m in whole.evaluations.items() if f"validation/loss@{kind}" in m) == list(
        range(begins, 21, 5)
    )


def test_the_swa_of_a_run_is_the_mean_of_its_checkpoints(text: Path, tmp_path: Path) -> None:
    settings = {"averaging": {"name": "swa", "start": 10, "every": 2}, "checkpoint.every": 2}
    trainer(text, tmp_path / "run", {**settings, "checkpoint.keep_latest": 99}).fit()
    kept = {info.step: read_tensors(info.path, "model/") for info in list_checkpoints(tmp_path / "run")}
    taken = [kept[step] for step in range(12, 21, 2)]
    average = read_judged(tmp_path / "run/checkpoints/step-00000020", "swa")
    for name, tensor in average.items():
        mean = torch.stack([one[name].double() for one in taken]).mean(0)
        assert torch.allclose(tensor.double(), mean, rtol=1e-6, atol=1e-7), name


def test_the_best_average_is_chosen_and_restored(text: Path, tmp_path: Path) -> None:
    """At a rate that overshoots the plain weights are worse than their average, and rise at another step."""
    watches, out = Watches(), io.StringIO()
    metric = "validation/loss@ema"
    settings = {
        **EMA,
        "optimizer.learning_rate": 0.05,
        "checkpoint": {"metric": metric},
        "stopping": {"name": "patience", "patience": 2, "metric": metric},
        "training.steps": 60,
    }
    run = tmp_path / "run"
    whole = trainer(text, run, settings, watches, Console(out, 60, metric=metric))
    result = whole.fit()
    values = {step: metrics[metric] for step, metrics in watches.evaluations.items()}
    best = min(values, key=lambda step: values[step])
    assert watches.ended is not None
    assert (result.best_step, watches.ended.best_value) == (best, values[best])
    folder = run / f"checkpoints/step-{best:08}"
    judged = read_judged(folder, "ema")
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(parameter, judged[f"model/{name}"]), name
    assert whole._trainer.evaluate()["validation/loss"] == pytest.approx(values[best], rel=1e-6)

    opened = open_trained(run)
    assert (opened.weights, opened.checkpoint.step) == ("ema", best)
    assert all(torch.equal(p, judged[f"model/{name}"]) for name, p in opened.model.named_parameters())
    plain = open_trained(run, weights="plain")
    own = read_tensors(folder, "model/")
    assert plain.weights == "plain"
    assert all(torch.equal(p, own[f"model/{name}"]) for name, p in plain.model.named_parameters())
    with pytest.raises(UsageError, match=r"no such weights\. Received: 'swa'; it has: plain, ema"):
        open_trained(run, weights="swa")
    with pytest.raises(CheckpointError, match=r"has no swa weights\. It has: plain, ema"):
        read_judged(folder, "swa")

    summary = summarize(RunDirectory.open(run))
    assert summary["best"]["metric"] == metric
    assert summary["best"]["bits_per_byte"] == watches.evaluations[best]["validation/bits_per_byte@ema"]
    assert f"best        {metric}" in render(summary)
    shown = out.getvalue()
    assert "   ema " in shown
    assert f"best validation/loss@ema: {values[best]:.4f}" in shown
    assert result.diagnosis is not None
    case = open_case(RunDirectory.open(run))
    assert "validation/loss@ema" in gather(RunDirectory.open(run), case, result.diagnosis).curves
    page = (run / "report.html").read_text()
    assert "validation, ema weights" in page


def test_at_the_end_the_model_has_the_average_that_was_selected(text: Path, tmp_path: Path) -> None:
    for name, metric, kind in (("a", "validation/loss@ema", "ema"), ("b", "validation/loss", "plain")):
        settings = {**EMA, "checkpoint.metric": metric, "training.precision": {"name": "bf16", "parameters": "bf16"}}
        ended = trainer(text, tmp_path / name, settings)
        ended.fit()
        kept = read_judged(tmp_path / name / "checkpoints/step-00000020", kind)
        for parameter, tensor in ((p, kept[f"model/{n}"]) for n, p in ended.model.named_parameters()):
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, tensor)


def test_only_the_average_is_judged(text: Path, tmp_path: Path) -> None:
    watches, out = Watches(), io.StringIO()
    metric = "validation/loss@swa"
    settings = {"averaging": {"name": "swa", "start": 7, "evaluate": "average"}, "checkpoint.metric": metric}
    trainer(text, tmp_path / "run", settings, watches, Console(out, 20, metric=metric)).fit()
    assert all("@" not in name for name in watches.evaluations[5]), "before it begins the plain weights stand in"
    assert all(name.endswith("@swa") for step in (10, 15, 20) for name in watches.evaluations[step])
    assert "val swa " in out.getvalue()
    case = open_case(RunDirectory.open(tmp_path / "run"))
    assert case.validation_loss() is not None
    opened = open_trained(tmp_path / "run")
    assert opened.weights == "swa"
    assert kinds_held(tmp_path / "run/checkpoints/step-00000005") == ("plain",)
    assert open_trained(tmp_path / "run", "5").weights == "plain"


class Normalizes(nn.Module):
    """A network with BatchNorm and dropout, as convolutional ones have them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(257, 16)
        self.inner = nn.Linear(16, 24)
        self.norm = nn.BatchNorm1d(24, momentum=0.2)
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(24, 257)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.norm(self.inner(self.dropout(self.embedding(tokens))).transpose(1, 2)).transpose(1, 2)
        logits: Tensor = self.head(torch.relu(hidden))
        return logits


def test_batch_norm_is_made_anew_for_the_average_alone(text: Path, tmp_path: Path) -> None:
    settings = {**EMA, "averaging": {"name": "ema", "decay": 0.9, "batch_norm_batches": 12}}
    plain = trainer(text, tmp_path / "plain", {}, model=Normalizes())
    plain.fit()
    watches = Watches()
    whole = trainer(text, tmp_path / "whole", settings, watches, model=Normalizes())
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        trainer(text, tmp_path / "left", settings, Watches(12), model=Normalizes()).fit()
    trainer(text, tmp_path / "left", settings, model=Normalizes()).fit()
    own, other, without = (tensors_of(tmp_path / name) for name in ("whole", "left", "plain"))
    assert differing(own, other, [name for name in own if not name.startswith("window/")]) == []
    assert differing(own, without, [name for name in own if name.startswith("model/")]) == []

    # By hand: the averaged weights in a new model, and torch's own function over the same batches.
    judged = read_judged(tmp_path / "whole/checkpoints/step-00000020", "ema")
    reference = Normalizes()
    reference.load_state_dict({name.removeprefix("model/module."): tensor for name, tensor in judged.items()})
    reference.norm.running_mean.fill_(9.0)  # type: ignore[union-attr]
    data = prepare_data(whole.config.data, whole.config.task, seed=0)
    places = np.arange(12 * 8) * len(data.training) // (12 * 8)
    update_bn([data.training.batch(places[first::12]).tokens_BT for first in range(12)], reference)
    for name, buffer in reference.norm.named_buffers():
        kept = judged[f"model/module.norm.{name}"]
        assert torch.allclose(kept.double(), buffer.double(), rtol=1e-6), name
        assert not torch.allclose(kept.double(), own[f"model/module.norm.{name}"].double(), rtol=1e-6), name


def test_statistics_are_those_that_an_evaluation_meets() -> None:
    """Dropout stays off, modes and momenta come back, and a model without BatchNorm is left alone."""
    config = load_config(None, ["data.tokenizer={name: bytes}", "data.sequence_length=16"], environment={})
    data = prepare_data(config.data, config.task, seed=0)
    model = Normalizes()
    task = build_evaluation(config, model, data).task

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model

        def forward(self, tokens_BT: Tensor, **rest: Tensor) -> Tensor:
            logits: Tensor = model(tokens_BT)
            return logits

    found, cpu, linear = [], torch.device("cpu"), nn.Linear(1, 1)
    before = torch.get_rng_state()
    for probability in (0.0, 0.5):
        model.dropout.p = probability
        wrapped = Wrapped().train()
        renew_batch_norm(wrapped, task, data.training, batches=3, batch_size=4, device=cpu)
        found.append({name: buffer.clone() for name, buffer in batch_norm_buffers(wrapped).items()})
        assert model.norm.momentum == 0.2
        assert model.norm.training
        assert model.dropout.training
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert set(found[0]) == {f"module.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    renew_batch_norm(linear, task, data.training, batches=3, batch_size=4, device=cpu)
    assert torch.equal(before, torch.get_rng_state())


REFUSED = [
    (["averaging.name=ema", "optimizer.name=schedule_free_adamw"], "averaging.name ema does not go with"),
    (["averaging={name: swa, start: 1000}"], "averaging.start 1000 lies after the last of training.steps 1000"),
    (["averaging={name: swa, start: 1.0}"], "averaging.start 1.0 lies after the last"),
    (["checkpoint.metric=validation/loss@ema"], "is not measured with averaging.name none. Fitting: validation/loss"),
    (
        ["averaging.name=swa", "checkpoint.metric=validation/loss@ema"],
        "is not measured with averaging.name swa. Fitting: validation/loss, validation/loss@swa",
    ),
    (
        ["averaging={name: ema, evaluate: average}", "checkpoint.metric=validation/loss"],
        "stopping.metric validation/loss is not measured with averaging.name ema and averaging.evaluate average. "
        "Fitting: validation/loss@ema",
    ),
    (["averaging.name=ema", "stopping.metric=validation/rmse@ema"], "stopping.metric validation/rmse@ema is not"),
    (["averaging={name: ema, decay: 1.0}"], "averaging.decay"),
    (["averaging={name: ema, every: 0}"], "averaging.every"),
]


@pytest.mark.parametrize("settings,message", REFUSED)
def test_what_does_not_go_together_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings, environment={})
    assert message in str(caught.value)


def test_what_the_first_checkpoints_held_is_still_read(tmp_path: Path) -> None:
    """An optimizer's own average had no kind in its name."""
    for name, average in (("old", "average/a.b"), ("new", "average/schedule_free/a.b")):
        tensors = {"model/a.b": torch.zeros(2), "model/c": torch.ones(1), average: torch.ones(2)}
        write_snapshot(Snapshot(tensors, {}), tmp_path / ".tmp", tmp_path / name, {"schema": 1, "step": 1})
        assert kinds_held(tmp_path / name) == ("plain", "schedule_free")
        assert read_judged(tmp_path / name)["model/a.b"].sum() == 2
        assert read_judged(tmp_path / name, "plain")["model/a.b"].sum() == 0
        assert read_judged(tmp_path / name).keys() == {"model/a.b", "model/c"}


def test_another_kind_of_average_begins_anew(text: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(text, tmp_path / "run", EMA, Watches(12)).fit()
    config = load_config(tmp_path / "run/config.yaml", ["averaging={name: swa, start: 0.5}"], environment={})
    result = Trainer(config, run=tmp_path / "run", accept_drift=True).fit()
    assert "validation/loss@swa" in result.metrics
    assert int(tensors_of(tmp_path / "run")["averaging/swa/taken"]) == 10
    assert json.loads((tmp_path / "run/facts.json").read_text())["identity"]["config.averaging.name"] == "swa"
