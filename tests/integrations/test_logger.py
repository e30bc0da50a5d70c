"""The logger of any loop: what is logged is what every reader of a run finds, under our names."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import trimtab
from trimtab.doctor import open_case
from trimtab.doctor.diagnose import diagnose
from trimtab.errors import StorageError, UsageError
from trimtab.integrations.logger import TrainingLogger
from trimtab.integrations.names import Names, name_of
from trimtab.integrations.pictures import png
from trimtab.integrations.volume import Allowance
from trimtab.runs import History, RunDirectory, read_record
from trimtab.runs.columns import columns_of_record
from trimtab.runs.summary import render, summarize


def columns(logger: TrainingLogger) -> dict[str, dict[int, float]]:
    assert logger.flush(10)
    found = columns_of_record(logger.run.record)
    return {name: dict(zip(steps.tolist(), values.tolist(), strict=True)) for name, (steps, values) in found.items()}


def events(logger: TrainingLogger, kind: str) -> list[dict[str, object]]:
    return [line for line in read_record(logger.run.record, all_branches=True) if line["event"] == kind]


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("loss", "train/loss"),
        ("train/loss", "train/loss"),
        ("trainLoss", "train/loss"),
        ("val_loss", "validation/loss"),
        ("eval/acc", "validation/accuracy"),
        ("test_loss", "validation/test/loss"),
        ("val_news_loss", "validation/news/loss"),
        ("val_bleu", "validation/bleu"),
        ("lr", "learning_rate"),
        ("gnorm", "grad_norm"),
        ("validation/books/loss", "validation/books/loss"),
        ("layer/block.0/grad_norm", "layer/block.0/grad_norm"),
        ("reward", "user/reward"),
        ("user/reward", "user/reward"),
        ("epoch", "user/epoch"),
        ("a\x1b[31mb\nc", "user/ab c"),
    ],
)
def test_names(theirs: str, ours: str) -> None:
    assert name_of(theirs).ours == ours


def test_two_names_never_become_one() -> None:
    names = Names(10)
    assert [names.get(one).ours for one in ("loss", "train_loss", "user/train_loss", "loss")] == [
        "train/loss",
        "user/train_loss",
        "user/train_loss.2",
        "train/loss",
    ]


@pytest.mark.parametrize(
    "theirs, value, ours", [("step_time_ms", 250.0, 0.25), ("it_per_sec", 4.0, 0.25), ("gpu_mem", 3.0, 3 * 2**30)]
)
def test_units(theirs: str, value: float, ours: float) -> None:
    names = Names(10)
    name = names.get(theirs)
    assert name is not None
    assert names.convert(theirs, name, value) == pytest.approx(ours)
    assert math.isnan(names.convert(theirs, name, math.nan))


def test_a_loop_is_read_back_exactly_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    losses = 1 + 3 * np.exp(-np.arange(1, 401) / 80) + rng.normal(0, 0.05, 400)
    losses[200] = math.nan
    settings = {"lr": 3e-4, "optimizer": "AdamW", "max_steps": 400, "vocab_size": 65, "wandb_api_key": "s3cr3t"}
    with TrainingLogger(tmp_path / "run", settings) as logger:
        for step, loss in enumerate(losses, 1):
            logger.log({"loss": loss, "lr": 3e-4, "grad_norm": 1.0}, step=step)
            if step % 50 == 0:
                logger.log({"val_loss": float(1.1 + 3 * np.exp(-step / 80))}, step=step)
        found = columns(logger)
    rounded = [float(f"{loss:.7g}") for loss in losses]  # as the record has them
    assert list(found["train/loss"]) == list(range(1, 401))
    np.testing.assert_array_equal(list(found["train/loss"].values()), rounded)
    assert set(found["validation/loss"]) == set(range(50, 401, 50))
    run = RunDirectory.open(tmp_path / "run")
    assert (run.status(), run.source, run.trainer) == ("finished", "loop", "text")
    assert "s3cr3t" not in run.record.read_text() + run.facts.read_text()
    summary = summarize(run)
    assert summary["step"] == summary["total_steps"] == 400
    assert summary["evaluations"] == 8
    assert "of 400" in render(summary) or "400" in render(summary)
    case = open_case(run)
    assert case.setting("optimizer.learning_rate") == 3e-4
    assert case.target == "text"
    verdict = json.loads(run.diagnosis.read_text())
    # One step alone: its batch is to blame, and what it did is listed under it.
    assert [finding["code"] for finding in verdict["findings"][:1]] == ["corrupt-batch"]
    assert "nan-loss" in verdict["findings"][0]["consequences"]
    assert run.report.exists()
    assert "trimtab: " in capsys.readouterr().err
    with pytest.raises(UsageError, match="a loop of its own"):
        run.refuse_foreign()


def test_the_command_line_reads_it_and_torch_is_not_loaded(tmp_path: Path) -> None:
    script = f"""
import sys, trimtab
run = trimtab.init("words", dir={str(tmp_path)!r}, config={{"lr": 0.1}})
for step in range(30):
    trimtab.log({{"loss": 2.0 / (step + 1)}})
trimtab.finish()
assert "torch" not in sys.modules
print(run.dir)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    run = done.stdout.strip()
    for command in (["show", run], ["doctor", run], ["report", run], ["runs", str(tmp_path)]):
        shown = subprocess.run(
            [sys.executable, "-m", "trimtab.cli", *command], capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, shown.stderr + shown.stdout
    assert "words" in shown.stdout


def test_steps_are_counted_as_users_of_wandb_know(tmp_path: Path) -> None:
    logger = TrainingLogger(tmp_path / "run", report=False)
    logger.log({"a": 1.0})
    logger.log({"a": 2.0}, commit=False)
    logger.log({"b": 3.0})
    logger.log({"a": 4.0}, step=7)
    logger.log({"b": 5.0}, step=7)
    logger.log({"a": 6.0}, step=8, commit=True)
    assert logger.step == 9
    assert columns(logger) == {
        "user/a": {1: 1.0, 2: 2.0, 7: 4.0, 8: 6.0},
        "user/b": {2: 3.0, 7: 5.0},
        "memory_bytes": columns(logger)["memory_bytes"],
    }
    logger.finish()


def test_own_steps_beside_counted_ones_lose_no_value(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "a", report=False) as logger:
        for step in range(6):
            logger.log({"loss": 100.0 + step})
            logger.log_scalar("lr", 0.1)
            if step % 2 == 0:
                logger.log({"val_loss": float(step)}, step=step)
                logger.log_scalar("val_acc", 0.5, step=step)
        found = columns(logger)
    assert found["train/loss"] == {step + 1: 100.0 + step for step in range(6)}
    assert found["validation/loss"] == {0: 0.0, 2: 2.0, 4: 4.0}
    assert len(found["learning_rate"]) == 6
    assert not any(logger._writer.lost.values())
    with TrainingLogger(tmp_path / "b", report=False) as logger:  # a loop that counts from 0, and rows added to it
        for step in range(5):
            logger.log({"loss": 1.0 + step}, step=step)
            logger.log({"lr": 0.1})
        found = columns(logger)
    assert list(found["train/loss"]) == list(found["learning_rate"]) == [0, 1, 2, 3, 4]
    assert not any(logger._writer.lost.values())


def test_what_is_left_out_is_named_with_its_step(tmp_path: Path) -> None:
    logger = TrainingLogger(tmp_path / "a", report=False)
    logger.log({"loss": 1.0}, step=3)
    logger.log({"loss": 2.0}, step=3)
    with pytest.warns(RuntimeWarning, match=r"newest of their metric.*: first of loss at step 3"):
        logger.flush()
    assert columns(logger)["train/loss"] == {3: 2.0}
    logger.log({"loss": 3.0}, step=2)
    logger.finish()
    assert events(logger, "AlertRaised")[-1]["details"] == {"behind": 2}


def test_a_loop_that_counts_from_0_has_made_one_step_more(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "run", total_steps=50) as logger:
        for step in range(50):
            logger.log({"loss": 2.0 - step / 50}, step=step)
    assert "In 50 steps" in json.loads(logger.run.diagnosis.read_text())["summary"]


def test_scalars_one_by_one_count_by_the_name_that_comes_again(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        for value in (1.0, 2.0, 3.0):
            logger.log_scalar("loss", value)
            logger.log_scalar("lr", value / 10)
        logger.log_scalar("loss", 9.0, step=20)
        found = columns(logger)
    assert found["train/loss"] == {1: 1.0, 2: 2.0, 3: 3.0, 20: 9.0}
    assert found["learning_rate"] == {1: 0.1, 2: 0.2, 3: 0.3}


def test_what_goes_back_is_left_out_once_told_and_rewind_says_so(tmp_path: Path) -> None:
    logger = TrainingLogger(tmp_path / "run", report=False)
    for step in range(1, 11):
        logger.log({"loss": float(step)}, step=step)
    logger.flush()
    logger.log({"loss": 99.0, "val_loss": 2.0}, step=5)  # a new metric may come late
    with pytest.warns(RuntimeWarning, match="at or before the newest"):
        logger.flush()
    found = columns(logger)
    assert found["train/loss"] == {step: float(step) for step in range(1, 11)}
    assert found["validation/loss"] == {5: 2.0}
    logger.rewind(6)
    logger.log({"loss": 70.0})
    assert columns(logger)["train/loss"] == {**{step: float(step) for step in range(1, 7)}, 7: 70.0}
    logger.finish()
    assert events(logger, "AlertRaised")[-1]["details"] == {"behind": 1}


def test_resume_goes_on_in_a_branch(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with TrainingLogger(path, report=False) as first:
        for step in range(1, 11):
            first.log({"loss": float(step)}, step=step)
    with pytest.raises(UsageError, match="there is a run already"):
        TrainingLogger(path)
    with TrainingLogger(path, resume=True, report=False) as second:
        assert second.step == 11
        second.log({"loss": 111.0})
        assert columns(second)["train/loss"][11] == 111.0
    with TrainingLogger(path, resume=True, report=False) as third:
        third.log({"loss": 60.0}, step=6)  # its checkpoint was older
        assert columns(third)["train/loss"] == {**{step: float(step) for step in range(1, 6)}, 6: 60.0}
    assert [(line["attempt"], line["branch"]) for line in RunDirectory(path).attempts()] == [
        (1, 0),
        (2, 1),
        (3, 2),
        (3, 3),
    ]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        logger.log({"loss": 1.0})
        code = f"from trimtab import TrainingLogger; TrainingLogger({str(tmp_path / 'run')!r}, resume=True)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert other.returncode != 0
        assert "StorageError" in other.stderr
    with pytest.raises(UsageError, match="finished"):
        logger.log({"loss": 1.0})


def test_a_run_of_the_trainer_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: run\n")
    with pytest.raises(UsageError, match="not made by a logger"):
        TrainingLogger(tmp_path, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="this is a file"):
        TrainingLogger(tmp_path / "file")
    with pytest.raises(StorageError, match="cannot be created"):
        TrainingLogger(tmp_path / "file" / "run")


def test_errors_and_interruptions_are_the_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="gone"), TrainingLogger(tmp_path / "a", report=False):
        raise RuntimeError("gone")
    assert RunDirectory(tmp_path / "a").status() == "failed"
    with pytest.raises(KeyboardInterrupt), TrainingLogger(tmp_path / "b", report=False):
        raise KeyboardInterrupt
    assert RunDirectory(tmp_path / "b").status() == "interrupted"
    logger = TrainingLogger(tmp_path / "c", report=False)
    logger.finish(exit_code=3)
    logger.finish()
    assert RunDirectory(tmp_path / "c").status() == "failed"


@pytest.mark.parametrize(
    "end, status",
    [
        ("", "interrupted"),
        ("import sys; sys.exit(1)", "interrupted"),
        ("import sys; sys.exit('loss is not finite')", "interrupted"),
        ("raise ValueError('x')", "failed"),
    ],
)
def test_a_script_that_forgets_to_finish(tmp_path: Path, end: str, status: str) -> None:
    code = f"""
import os, trimtab
run = trimtab.init(id="r", dir={str(tmp_path)!r}, report=False)
trimtab.log({{"loss": 1.0}})
if os.fork() == 0:
    trimtab.log({{"loss": 2.0}})  # a child leaves its parent's run alone
    raise SystemExit
os.wait()
{end}
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    run = RunDirectory(tmp_path / "r")
    assert run.status() == status
    assert columns_of_record(run.record)["train/loss"][1].tolist() == [1.0]


def test_init_log_finish(tmp_path: Path) -> None:
    for call in (lambda: trimtab.log({"loss": 1.0}), trimtab.finish):
        with pytest.raises(UsageError, match=r"trimtab\.init\(\) first"):
            call()
    run = trimtab.init("my project", dir=tmp_path, config=argparse.Namespace(lr=0.1), report=False)
    assert run.name.endswith("my-project")
    assert (run.config.lr, run.config["lr"]) == (0.1, 0.1)
    run.config.update(weight_decay=0.01)
    with pytest.raises(AttributeError, match="it has: lr, weight_decay"):
        _ = run.config.nothing
    trimtab.log({"loss": 1.0, "nested": {"a": 2.0}})
    assert run.summary["nested/a"] == 2.0
    run.summary["best"] = 0.5
    again = trimtab.init(id="named", dir=tmp_path, name="shown", report=False)  # ends the first
    assert (again.id, again.name, again.dir) == ("named", "shown", str(tmp_path / "named"))
    assert run.run.status() == "stopped"
    assert run.run.read_json(run.run.facts)["identity"]["config.optimizer.weight_decay"] == 0.01
    assert json.loads((run.run.artifacts / "summary.json").read_text())["summary"]["best"] == 0.5
    trimtab.log({"loss": 3.0})
    trimtab.finish()
    assert trimtab.init(id="named", dir=tmp_path, resume="must", report=False).step == 2
    trimtab.finish(exit_code=1)
    for wrong in ({"resume": "must"}, {"resume": "must", "id": "no"}, {"id": "../x"}, {"resume": "auto"}):
        with pytest.raises(UsageError):
            trimtab.init(dir=tmp_path, **wrong)


@dataclasses.dataclass
class Settings:
    learning_rate: float = 0.2


def test_settings_of_many_kinds(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "a", Settings(), report=False) as logger:
        assert logger.config.learning_rate == 0.2
    with pytest.raises(UsageError, match="config is a mapping"):
        TrainingLogger(tmp_path / "b", 3)
    for step in (-1, 1.5, "3", None):
        with TrainingLogger(tmp_path / f"c{step}", report=False) as logger:
            if step is None:
                logger.log({"a": 1.0}, step=None)
                with pytest.raises(UsageError, match="mapping"):
                    logger.log([1.0])
            else:
                with pytest.raises(UsageError, match="whole number"):
                    logger.log({"a": 1.0}, step=step)


def test_tensors_are_taken_as_they_are_now(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        total = torch.zeros((), requires_grad=True)
        weights = torch.arange(100, dtype=torch.float32)
        for step in range(1, 4):
            with torch.no_grad():
                total += 1.0
            logger.log({"loss": total, "half": torch.tensor([step], dtype=torch.bfloat16), "n": np.float32(step)}, step)
            logger.log_histogram("weights", weights, step)
            weights.zero_()
        found = columns(logger)
    assert found["train/loss"] == {1: 1.0, 2: 2.0, 3: 3.0}
    assert found["user/half"] == found["user/n"] == {1: 1.0, 2: 2.0, 3: 3.0}
    first = json.loads(str(events(logger, "ArtifactLogged")[0]["text"]))
    assert sum(first["counts"]) == 100
    assert (first["edges"][0], first["edges"][-1]) == (0.0, 99.0)


def test_what_cannot_be_read_ends_no_loop(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    logger = TrainingLogger(tmp_path / "run", report=False)
    logger.log({"loss": torch.empty((), device="meta"), "fine": 1.0, "imaginary": 1j})
    logger.log_histogram("meta", torch.empty(3, device="meta"))
    with pytest.raises(UsageError, match="histogram is of numbers"):
        logger.log_histogram("words", ["a"])
    with pytest.warns(RuntimeWarning, match="no single number"):
        logger.finish()
    assert set(columns_of_record(logger.run.record)) == {"user/fine", "memory_bytes"}
    assert events(logger, "AlertRaised")[-1]["details"] == {"no_number": 3}


def test_an_end_that_cannot_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = TrainingLogger(tmp_path / "run", report=False)
    monkeypatch.setattr(logger._writer.recording._recorder, "close", lambda: 1 / 0)
    with pytest.warns(UserWarning, match="could not be written: ZeroDivisionError"):
        logger.finish()
    monkeypatch.undo()
    with TrainingLogger(tmp_path / "run", resume=True, report=False) as again:  # the lock was let go
        again.log({"loss": 1.0})


def test_texts_histograms_and_what_is_no_number(tmp_path: Path) -> None:
    one = TrainingLogger(tmp_path / "run", report=False)
    one.log({"note": "hello", "spread": np.array([1.0, math.inf, 2.0]), "what": object(), "loss": 1.0})
    one.log_text("../../long \x1b[31m", "x" * 5000)
    with pytest.warns(RuntimeWarning, match="no single number"):
        one.finish()
    artifacts = {str(line["name"]): line for line in events(one, "ArtifactLogged")}
    assert artifacts["note"]["text"] == "hello"
    assert json.loads(str(artifacts["spread"]["text"]))["non_finite"] == 1
    long = artifacts["../../long "]
    assert (tmp_path / "run" / str(long["path"])).read_text() == "x" * 5000
    assert (tmp_path / "run" / str(long["path"])).resolve().is_relative_to(tmp_path / "run" / "artifacts")


def test_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    figures = pytest.importorskip("matplotlib.figure")
    torch = pytest.importorskip("torch")
    grey = (np.arange(24).reshape(4, 6) * 10).astype(np.uint8)
    colour = np.random.default_rng(0).random((3, 5, 7))
    figure = figures.Figure()
    figure.subplots().plot([1, 2])
    image.fromarray(grey).save(tmp_path / "file.bmp")
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        logger.log_image("grey", grey)
        logger.log_image("grey", grey)
        logger.log_image("torch", torch.tensor(colour))
        logger.log({"figure": figure, "pillow": image.fromarray(grey)}, step=1)
        logger.log_image("file", tmp_path / "file.bmp")
        for wrong in (3.0, object(), np.zeros((2, 2, 9)), np.zeros((0, 3)), torch.zeros(4), np.zeros(1)):
            with pytest.raises(UsageError, match="picture"):
                logger.log_image("wrong", wrong)
    lines = events(logger, "ArtifactLogged")
    assert len({line["path"] for line in lines}) == len(lines) == 6
    shown = {str(line["name"]): np.asarray(image.open(tmp_path / "run" / str(line["path"]))) for line in lines}
    np.testing.assert_array_equal(shown["grey"], grey)
    np.testing.assert_array_equal(shown["pillow"], grey)
    np.testing.assert_array_equal(shown["file"], grey)
    np.testing.assert_array_equal(shown["torch"], np.rint(np.moveaxis(colour, 0, 2) * 255).astype(np.uint8))
    assert shown["figure"].shape[2] == 4
    with pytest.raises(UsageError, match=r"\(2, 2, 9\)"):
        png(np.zeros((2, 2, 9)))


def test_metrics_are_saved_whole(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        for step in range(1, 6001):
            logger.log({"loss": step / 7}, step=step)
        logger.log({"val_loss": math.nan}, step=3)
        saved = {ending: logger.save_metrics(tmp_path / f"all.{ending}") for ending in ("json", "csv", "parquet")}
        with pytest.raises(UsageError, match=r"\.json, \.csv or \.parquet"):
            logger.save_metrics(tmp_path / "all.xlsx")
    losses = [float(f"{step / 7:.7g}") for step in range(1, 6001)]
    content = json.loads(saved["json"].read_text())["metrics"]
    assert content["train/loss"] == {"steps": list(range(1, 6001)), "values": losses}
    assert content["validation/loss"]["values"] == ["nan"]
    rows = list(csv.DictReader(saved["csv"].open()))
    assert [float(row["train/loss"]) for row in rows] == losses
    assert [row["validation/loss"] for row in rows[:4]] == ["", "", "nan", ""]
    table = parquet.read_table(saved["parquet"])
    assert table["train/loss"].to_pylist() == losses
    assert table["validation/loss"].null_count == 5999


def test_layers_go_into_the_statistics(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        for step in range(1, 6):
            logger.log({"loss": 1.0, "layer/a/grad_norm": step / 2}, step=step)
    history = History.read(logger.run.record, statistics=logger.run.statistics)
    steps, layers, values = history.layers.values("grad_norm")
    assert (steps.tolist(), layers) == ([1, 2, 3, 4, 5], ("a",))
    np.testing.assert_array_equal(values[:, 0], np.arange(1, 6) / 2)


def test_norms_of_layers_and_the_split_of_the_time(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    model[1].bias.requires_grad_(False)

    def slow() -> Iterator[torch.Tensor]:
        for _ in range(5):
            time.sleep(0.03)
            yield torch.randn(8, 4)

    expected = []
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        for step, batch in enumerate(logger.timed(slow()), 1):
            loss = model(batch).square().mean()
            loss.backward()
            logger.log({"loss": loss}, step=step)
            logger.log_layers(model, step=step)
            expected.append([parameter.grad.double().norm().item() for parameter in (model[0].weight, model[0].bias)])
            everything = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            total = torch.cat([gradient.ravel() for gradient in everything]).double().norm().item()
            model.zero_grad()
            time.sleep(0.01)
        logger.log_layers(torch.nn.GELU())  # nothing to measure
        found = columns(logger)
    assert found["grad_norm"][5] == pytest.approx(total, rel=1e-5)
    assert set(found["step_seconds"]) == set(found["data_seconds"]) == set(range(1, 6))
    assert all(seconds > 0.025 for seconds in found["data_seconds"].values())
    assert all(found["step_seconds"][step] > found["data_seconds"][step] + 0.009 for step in range(1, 6))
    history = History.read(logger.run.record, statistics=logger.run.statistics)
    steps, layers, values = history.layers.values("grad_norm")
    assert steps.tolist() == [1, 2, 3, 4, 5]
    assert layers == ("0.weight", "0.bias", "1.weight")
    np.testing.assert_allclose(values[:, :2], expected, rtol=1e-5)
    assert "frozen-parameters" not in {one.code for one in diagnose(open_case(logger.run)).withheld}


def test_an_allowance_grows_again() -> None:
    clock = [0.0]
    allowance = Allowance(3600, lambda: clock[0])
    allowance.take(3600)
    assert allowance.left == 0
    clock[0] = 100.0
    assert allowance.left == pytest.approx(100)
    clock[0] = 1e6
    assert allowance.left == 3600


def test_a_stranger_reads_the_lines(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path / "run", report=False) as logger:
        logger.log({f"m{index}": float(index) for index in range(120)})
    for raw in (tmp_path / "run" / "record.jsonl").read_bytes().splitlines():
        body, _, checksum = raw.rpartition(b',"crc32":')
        assert zlib.crc32(body + b"}") == int(checksum[:-1])
        assert len(json.loads(raw).get("per_step", {})) <= 50
