"""The callback in a real lightning.Trainer: what it writes is what the module gave, and the training is the same."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trimtab.doctor import open_case
from trimtab.runs import RunDirectory
from trimtab.runs.history import History
from trimtab.runs.importers import read_foreign
from trimtab.runs.summary import render, summarize

lightning = pytest.importorskip("lightning")

from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.profilers import PassThroughProfiler  # noqa: E402

from trimtab.integrations.lightning import TrimtabCallback  # noqa: E402
from trimtab.integrations.measuring import at_fetches  # noqa: E402

INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
TARGETS = (INPUTS.sum(dim=1) > 0).long()


class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Two layers; keeps what it returned."""

    def __init__(self, fails_at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
        self.unused = nn.Linear(3, 3)
        self.returned: list[float] = []
        self.norms: list[float] = []
        self.fails_at, self.error = fails_at, error

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        if self.global_step == self.fails_at:
            raise self.error("asked to")
        logits = self.layers(batch[0])
        loss = nn.functional.cross_entropy(logits, batch[1])
        self.log("train_loss", loss)
        self.log("train_acc", (logits.argmax(dim=1) == batch[1]).float().mean())
        self.returned.append(loss.item())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        logits = self.layers(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(dim=1) == batch[1]).float().mean())

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        norms = [parameter.grad.norm() for parameter in self.parameters() if parameter.grad is not None]
        self.norms.append(float(torch.stack(norms).norm()))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 30)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(folder: Path, *callbacks: Any, module: Classifier | None = None, **settings: Any) -> tuple[Any, Classifier]:
    torch.manual_seed(0)
    module = Classifier() if module is None else module
    data = torch.utils.data.TensorDataset(INPUTS, TARGETS)
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    made = lightning.Trainer(
        **{
            "max_epochs": 2,
            "logger": CSVLogger(folder),
            "callbacks": list(callbacks),
            "log_every_n_steps": 5,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "accelerator": "cpu",
            **settings,
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="trimtab no longer")
        made.fit(module, loader, loader, ckpt_path=None)
    return made, module


def history_of(path: Path) -> History:
    return History.read(path / "record.jsonl", statistics=path / "statistics")


def values(history: History, name: str) -> dict[int, float]:
    series = history.get(name)
    assert series is not None, f"{name} is not in {list(history.series)}"
    return dict(zip(*(part.tolist() for part in series.raw()), strict=True))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_what_is_recorded_is_what_the_module_gave(tmp_path: Path, accumulation: int) -> None:
    callback = TrimtabCallback(tmp_path / "run", every=5)
    _, module = fit(tmp_path, callback, accumulate_grad_batches=accumulation, gradient_clip_val=0.1)
    history = history_of(tmp_path / "run")
    losses = values(history, "train/loss")
    num = 32 // accumulation
    means = np.array(module.returned).reshape(num, accumulation).mean(axis=1)
    assert list(losses) == list(range(1, num + 1))
    assert list(losses.values()) == pytest.approx(means.tolist(), rel=1e-5)
    rates = [1e-2 * max(1 - 0.9 * step / 30, 0.1) for step in range(num)]
    assert list(values(history, "learning_rate").values()) == pytest.approx(rates, rel=1e-5)
    for step, norm in values(history, "grad_norm").items():
        assert norm == pytest.approx(module.norms[step - 1], rel=1e-5)
    assert list(values(history, "validation/loss")) == [num // 2, num]
    assert "validation/accuracy" in history.series
    assert "train/accuracy" in history.series
    _, names, norms = history.layers.values("grad_norm")
    assert norms[:, names.index("unused.weight")].tolist() == [0.0] * len(norms)
    assert history.total_steps == num


def test_values_equal_those_of_csv_logger(tmp_path: Path) -> None:
    fit(tmp_path, TrimtabCallback(tmp_path / "run", report=False))
    imported, ours = read_foreign(tmp_path / "lightning_logs"), history_of(tmp_path / "run")
    losses = values(ours, "train/loss")
    for step, loss in values(imported.history, "train/loss").items():
        assert losses[step + 1] == pytest.approx(loss, rel=1e-6)  # Lightning counts from 0
    logged = list(values(imported.history, "validation/loss").values())
    assert list(values(ours, "validation/loss").values()) == pytest.approx(logged, rel=1e-6)


def test_the_run_is_served_like_one_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, TrimtabCallback(tmp_path / "run"))
    run = RunDirectory.open(tmp_path / "run")
    assert run.status() == "finished"
    case = open_case(run)
    assert case.target == "lightning"
    assert case.fact("optimizer") == "AdamW"
    assert case.number("first_batch", "repeats_differ") == 0.0
    assert 0.5 < (case.number("first_batch", "input_rms") or 0.0) < 2.0
    assert case.fact("evaluated_in_training_mode") is False
    assert case.number("epochs") == 2
    assert case.setting("optimizer.learning_rate") == 1e-2
    assert case.fact("batch_size") == 4
    assert "finished" in render(summarize(run))
    assert run.report.exists()
    assert "trimtab: " in capsys.readouterr().err


def test_the_weights_are_the_same_with_and_without(tmp_path: Path) -> None:
    _, with_it = fit(tmp_path / "a", TrimtabCallback(tmp_path / "run", report=False, every=1))
    _, without = fit(tmp_path / "b")
    for one, other in zip(with_it.state_dict().values(), without.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_what_the_trainer_does_between_steps_is_no_waiting_for_data(tmp_path: Path) -> None:
    class Slow(lightning.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, *arguments: Any) -> None:
            time.sleep(0.02)

    made, _ = fit(tmp_path, TrimtabCallback(tmp_path / "run", report=False), Slow())
    history = history_of(tmp_path / "run")
    assert np.median(list(values(history, "step_seconds").values())) > 0.02
    assert np.median(list(values(history, "data_seconds").values())) < 0.005
    assert "start" not in vars(made.profiler)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_what_breaks_training_off_is_told(tmp_path: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises((error, SystemExit)):
        fit(tmp_path, TrimtabCallback(tmp_path / "run"), module=Classifier(fails_at=12, error=error))
    run = RunDirectory(tmp_path / "run")
    assert run.status() == status
    ended = history_of(run.path).ended
    assert ended is not None
    assert ended.reason.startswith(error.__name__)
    assert list(values(history_of(run.path), "train/loss")) == list(range(1, 13))
    assert run.report.exists()


def test_stopping_early_checkpoints_and_another_fit(tmp_path: Path) -> None:
    class Stop(lightning.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
            trainer.should_stop = trainer.global_step >= 20

    callback = TrimtabCallback(tmp_path / "run", report=False)
    settings = {"enable_checkpointing": True, "default_root_dir": tmp_path / "out"}
    fit(tmp_path / "a", callback, Stop(), max_epochs=5, **settings)
    assert RunDirectory(tmp_path / "run").status() == "stopped"
    checkpoints = history_of(tmp_path / "run").checkpoints
    assert [saved.step for saved in checkpoints] == [16, 20]
    assert (tmp_path / "run" / checkpoints[-1].path).exists()
    fit(tmp_path / "b", callback)
    assert callback.run == tmp_path / "run-2"


def test_nan_is_seen(tmp_path: Path) -> None:
    class Poison(lightning.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
            if trainer.global_step == 6:
                pl_module.layers[0].weight.data[0, 0] = math.nan

    fit(tmp_path, TrimtabCallback(tmp_path / "run"), Poison())
    series = history_of(tmp_path / "run").get("train/loss")
    assert series is not None
    assert series.first_bad_step == 7


@pytest.mark.parametrize("part", ["data_came", "before_update", "step_ended", "close", "evaluated", "loss"])
def test_what_fails_in_it_is_one_warning(tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.integrations.watch import Watch

    def fails(*arguments: Any, **named: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Watch, part, fails)
    assert _fits_with_one_warning(tmp_path)
    assert not (tmp_path / "run" / "lock.json").exists()


def _fits_with_one_warning(folder: Path) -> bool:
    torch.manual_seed(0)
    module = Classifier()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(INPUTS, TARGETS), batch_size=4)
    made = lightning.Trainer(
        max_epochs=1,
        logger=False,
        callbacks=[TrimtabCallback(folder / "run")],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.fit(module, loader, loader)
    told = [warning for warning in caught if "no longer observes" in str(warning.message)]
    return len(told) == 1 and made.global_step == 16


class Moody(Classifier):
    """Is in training mode while it is evaluated, or has a dropout that no module tells of."""

    def __init__(self, mood: str) -> None:
        super().__init__()
        self.mood = mood
        self.layers.append(nn.Dropout(0.0 if mood == "function" else 0.3))

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        if self.mood:
            self.train()
        super().validation_step(batch, number)


@pytest.mark.parametrize(("mood", "told"), [("", False), ("trains", True), ("function", None)])
def test_whether_an_evaluation_trains_is_told_as_far_as_it_shows(tmp_path: Path, mood: str, told: bool | None) -> None:
    fit(tmp_path, TrimtabCallback(tmp_path / "run"), module=Moody(mood))
    assert (
        RunDirectory(tmp_path / "run").read_json(tmp_path / "run" / "facts.json")["evaluated_in_training_mode"] is told
    )


def test_a_profiler_that_another_has_changed_is_as_it_was() -> None:
    profiler = PassThroughProfiler()
    started, acted = [], []
    profiler.start = own = started.append
    ends = [at_fetches(profiler, lambda number=number: acted.append(number)) for number in range(2)]
    profiler.start("x.train_dataloader_next")
    ends[0]()
    ends[1]()
    profiler.start("y")
    assert (started, sorted(acted)) == (["x.train_dataloader_next", "y"], [0, 1])
    ends = [at_fetches(profiler, lambda: acted.append(2)) for _ in range(2)]
    ends[1]()
    ends[0]()
    assert vars(profiler)["start"] is own
