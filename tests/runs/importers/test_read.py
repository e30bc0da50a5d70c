"""Logs of other trainers give their own numbers under our names, and say what was lost on the way.

Those in logs/ were written by transformers' Trainer and Lightning's CSVLogger (write_logs.py). The others are made
here in the shape that Keras' CSVLogger, exports of Weights & Biases, TensorBoard and MLflow, and people write.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from trimtab.doctor import open_foreign_case
from trimtab.errors import DataError, UsageError
from trimtab.runs.importers import Imported, read_foreign
from trimtab.runs.importers.csv_file import CELLS_A_BLOCK
from trimtab.runs.importers.find import find_log

LOGS = Path(__file__).with_name("logs")


def values(imported: Imported, name: str) -> tuple[list[int], list[float]]:
    series = imported.history.get(name)
    assert series is not None, f"{name} is not in {list(imported.history.series)}"
    steps, numbers = series.raw()
    return steps.tolist(), numbers.tolist()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_state_of_transformers_gives_what_it_holds() -> None:
    state = json.loads((LOGS / "trainer_state.json").read_text())
    imported = read_foreign(LOGS / "trainer_state.json")
    assert (imported.format, imported.target) == ("huggingface", "huggingface")
    for theirs, ours in (("loss", "train/loss"), ("eval_loss", "validation/loss"), ("grad_norm", "grad_norm")):
        entries = [entry for entry in state["log_history"] if theirs in entry]
        assert values(imported, ours) == ([e["step"] for e in entries], [e[theirs] for e in entries])
        assert imported.names[theirs] == ours
    assert imported.facts["planned_steps"] == 40
    assert imported.facts["epochs"] == 2.5
    assert imported.facts["tokenizer"] == {"vocabulary_size": 61}
    assert imported.facts["log"]["train_batch_size"] == 4
    assert imported.facts["log"]["logging_steps"] == 2
    assert any("cannot exclude NaN" in note for note in imported.notes)


def test_the_newest_checkpoint_of_an_output_folder(tmp_path: Path) -> None:
    for step in (8, 40, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (8, 40):
        shutil.copy(LOGS / "trainer_state.json", tmp_path / f"checkpoint-{step}")
    assert read_foreign(tmp_path).source == tmp_path / "checkpoint-40" / "trainer_state.json"
    shutil.copy(LOGS / "trainer_state.json", tmp_path)  # the same step: it holds the summary too
    assert read_foreign(tmp_path).source == tmp_path / "trainer_state.json"
    assert read_foreign(tmp_path / "checkpoint-8").history.last_step == 40


def test_the_summary_of_trainer_is_no_step(tmp_path: Path) -> None:
    state = json.loads((LOGS / "trainer_state.json").read_text())
    state["log_history"].append({"epoch": 2.5, "step": 40, "train_loss": 3.9, "train_runtime": 1.5, "total_flos": 1.0})
    imported = read_foreign(write(tmp_path / "trainer_state.json", json.dumps(state)))
    assert 3.9 not in values(imported, "train/loss")[1]
    assert imported.facts["log"]["train_runtime"] == 1.5
    assert imported.history.ended is not None


def test_nan_is_found_where_the_filter_left_zeros(tmp_path: Path) -> None:
    history = [{"step": step, "loss": 2.0 - step / 100, "grad_norm": 1.0} for step in range(1, 20)]
    history += [{"step": step, "loss": 0.0, "grad_norm": math.nan} for step in range(20, 25)]
    imported = read_foreign(write(tmp_path / "state.json", json.dumps({"log_history": history})))
    series = imported.history.get("train/loss")
    assert series is not None
    assert series.first_bad_step == 20
    assert series.num_bad == 5
    assert any("read as NaN" in note for note in imported.notes)


def test_metrics_of_lightning_give_what_they_hold() -> None:
    imported = read_foreign(LOGS / "metrics.csv")
    assert (imported.format, imported.target) == ("lightning", "lightning")
    with open(LOGS / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for theirs, ours in (
        ("train_loss_step", "train/loss"),
        ("val_loss", "validation/loss"),
        ("lr-AdamW", "learning_rate"),
    ):
        there = [row for row in rows if row[theirs]]
        assert values(imported, ours) == ([int(row["step"]) for row in there], [float(row[theirs]) for row in there])
    assert "user/train_loss_epoch" in imported.history.series
    assert imported.unused == ("epoch",)
    assert imported.facts["epochs"] == 2


def test_the_folder_of_lightning(tmp_path: Path) -> None:
    for version in (0, 2, 10):
        folder = tmp_path / "lightning_logs" / f"version_{version}"
        folder.mkdir(parents=True)
        shutil.copy(LOGS / "metrics.csv", folder)
    assert read_foreign(tmp_path).source.parent.name == "version_10"
    assert read_foreign(tmp_path / "lightning_logs").source.parent.name == "version_10"


def test_a_log_of_keras(tmp_path: Path) -> None:
    text = "epoch,accuracy,learning_rate,loss,val_accuracy,val_loss\n"
    text += "".join(f"{epoch},{0.5 + epoch / 50},0.001,{2 - epoch / 20},0.5,NA\n" for epoch in range(10))
    imported = read_foreign(write(tmp_path / "training.log", text))
    assert imported.format == "keras"
    assert values(imported, "train/loss")[0] == list(range(10))
    assert "validation/loss" not in imported.history.series
    assert any("epochs are used as steps" in note for note in imported.notes)
    assert imported.facts["epochs"] == 10


def test_an_export_of_weights_and_biases(tmp_path: Path) -> None:
    names = ["train/loss", "eval/loss", "train/global_step"]
    header = ["Step", *(f"lucky-tree-7 - {name}{end}" for name in names for end in ("", "__MIN", "__MAX"))]
    rows = [
        [step, 3 - step / 10, 3 - step / 10, 3 - step / 10, "", "", "", step * 5, step * 5, step * 5]
        for step in range(10)
    ]
    with open(tmp_path / "wandb_export.csv", "w") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([header, *rows])
    imported = read_foreign(tmp_path / "wandb_export.csv")
    assert (imported.format, imported.target) == ("wandb", "huggingface")
    assert values(imported, "train/loss") == ([step * 5 for step in range(10)], [3 - step / 10 for step in range(10)])
    assert imported.names["lucky-tree-7 - train/loss"] == "train/loss"
    assert "lucky-tree-7 - train/loss__MAX" in imported.unused


def test_an_export_of_several_runs(tmp_path: Path) -> None:
    text = "Step,one - loss,two - loss,two - lr\n" + "".join(f"{step},1.0,2.0,0.1\n" for step in range(5))
    path = write(tmp_path / "export.csv", text)
    imported = read_foreign(path)
    assert values(imported, "train/loss")[1] == [2.0] * 5
    assert any("2 runs" in note for note in imported.notes)
    assert values(read_foreign(path, {"one - loss": "train/loss"}), "train/loss")[1] == [1.0] * 5


def test_curves_of_tensorboard_and_mlflow(tmp_path: Path) -> None:
    text = "Wall time,Step,Value\n" + "".join(f"{1.7e9 + step},{step},{1 / (step + 1)}\n" for step in range(5))
    imported = read_foreign(write(tmp_path / "run-mine-tag-train_loss.csv", text))
    assert values(imported, "train/loss")[1] == [1 / (step + 1) for step in range(5)]
    text = "key,value,step\n" + "".join(f"loss,{3 - step},{step}\nval_loss,{4 - step},{step}\n" for step in range(3))
    imported = read_foreign(write(tmp_path / "long.csv", text))
    assert values(imported, "train/loss") == ([0, 1, 2], [3, 2, 1])
    assert values(imported, "validation/loss") == ([0, 1, 2], [4, 3, 2])


def test_json_lines_flat_nested_and_with_sides(tmp_path: Path) -> None:
    lines = [{"iter": step, "train": {"loss": 2.0, "acc": 0.5}, "lr": "1e-3", "note": "x"} for step in range(1, 4)]
    lines[2]["valid"] = {"loss": 2.5}
    imported = read_foreign(write(tmp_path / "log", "\n".join(map(json.dumps, lines))))
    assert imported.format == "jsonl"
    assert values(imported, "learning_rate") == ([1, 2, 3], [1e-3] * 3)
    assert values(imported, "validation/loss") == ([3], [2.5])
    assert imported.unused == ("note",)
    assert any("written as text" in note for note in imported.notes)
    lines = [{"mode": mode, "step": step, "loss": step + len(mode)} for step in (1, 2) for mode in ("train", "val")]
    imported = read_foreign(write(tmp_path / "sides.jsonl", "\n".join(map(json.dumps, lines))))
    assert values(imported, "train/loss") == ([1, 2], [6, 7])
    assert values(imported, "validation/loss") == ([1, 2], [4, 5])


def test_documents_of_lists_and_of_objects(tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "h.json", json.dumps({"loss": [3, 2, 1], "val_loss": [3, 2.5, 2]})))
    assert values(imported, "validation/loss") == ([1, 2, 3], [3, 2.5, 2])
    entries = [{"step": 5, "loss": 1.5}, {"step": 10, "loss": None}, {"step": 15, "loss": math.nan}]
    imported = read_foreign(write(tmp_path / "l.json", json.dumps(entries, indent=1)))
    assert values(imported, "train/loss")[0] == [5, 15]
    assert any("null" in note for note in imported.notes)
    lines = "{'loss': '2.5', 'learning_rate': '5e-05', 'epoch': '0.5'}\n{'loss': '2.25', 'epoch': '1.0'}\n"
    assert values(read_foreign(write(tmp_path / "printed.log", lines)), "train/loss") == ([1, 2], [2.5, 2.25])


@pytest.mark.parametrize("spelling", ["nan", "NaN", "-nan", "-nan(ind)", "1.#QNAN", "tensor(nan, device='cuda:0')"])
def test_spellings_of_nan(tmp_path: Path, spelling: str) -> None:
    text = f'step;loss\n1;1.5\n2;"{spelling}"\n3;tensor(2.5)\n'
    _, numbers = values(read_foreign(write(tmp_path / "a.csv", text)), "train/loss")
    assert math.isnan(numbers[1])
    assert numbers[2] == 2.5


def test_spellings_of_infinity_decimal_commas_and_percent(tmp_path: Path) -> None:
    text = "step;loss;acc\n1;1,5;50%\n2;-Infinity;51\n3;inf;52\n4;∞;53\n"
    imported = read_foreign(write(tmp_path / "a.csv", text))
    assert values(imported, "train/loss")[1] == [1.5, -math.inf, math.inf, math.inf]
    assert values(imported, "train/accuracy")[1][1:] == [0.51, 0.52, 0.53]


def test_nan_that_stands_for_not_measured(tmp_path: Path) -> None:
    text = "step,loss,val_loss\n" + "".join(f"{i},1.0,{2.0 if i % 10 == 0 else 'nan'}\n" for i in range(1, 60))
    imported = read_foreign(write(tmp_path / "a.csv", text))
    series = imported.history.get("validation/loss")
    assert series is not None
    assert (series.num_samples, series.num_bad) == (5, 0)
    assert any("nothing was measured" in note for note in imported.notes)
    text = "step,loss,val_loss\n" + "".join(f"{i},{1.0 if i < 20 else 'nan'},2\n" for i in range(1, 60))
    series = read_foreign(write(tmp_path / "b.csv", text)).history.get("train/loss")
    assert series is not None
    assert series.first_bad_step == 20


def test_units_are_guessed_and_said(tmp_path: Path) -> None:
    text = "step,loss,step_time,data_time,gpu_mem\n" + "".join(f"{i},1,250,30,12.5\n" for i in range(1, 9))
    imported = read_foreign(write(tmp_path / "a.csv", text))
    assert values(imported, "step_seconds")[1][0] == 0.25
    assert values(imported, "data_seconds")[1][0] == 0.03
    assert values(imported, "memory_bytes")[1][0] == 12.5 * 2**30
    assert sum("taken for" in note for note in imported.notes) == 3
    text = "step,loss,dt,timestamp\n" + "".join(f"{i},1,5.0,{1e9 + i * 0.005}\n" for i in range(1, 9))
    assert values(read_foreign(write(tmp_path / "b.csv", text)), "step_seconds")[1][0] == 0.005
    text = "step,loss,it/s\n" + "".join(f"{i},1,4\n" for i in range(1, 9))
    assert values(read_foreign(write(tmp_path / "c.csv", text)), "step_seconds")[1][0] == 0.25


def test_rows_out_of_order_resumed_twice_and_in_epochs(tmp_path: Path) -> None:
    text = "step,loss\n" + "".join(f"{step},{step}\n" for step in (3, 2, 1, 5, 4))
    imported = read_foreign(write(tmp_path / "sorted.csv", text))
    assert values(imported, "train/loss") == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert any("sorted" in note for note in imported.notes)
    steps = [*range(1, 51), *range(41, 81)]
    text = "step,loss\n" + "".join(f"{step},{index}\n" for index, step in enumerate(steps))
    imported = read_foreign(write(tmp_path / "resumed.csv", text))
    assert values(imported, "train/loss") == (list(range(1, 81)), [*range(40), *range(50, 90)])
    assert any("go back at step 41" in note for note in imported.notes)
    assert imported.history.starts[0].resumed_from == 41
    steps = [*range(1, 51), *range(1, 31)]
    text = "step,loss\n" + "".join(f"{step},{index}\n" for index, step in enumerate(steps))
    imported = read_foreign(write(tmp_path / "two.csv", text))
    assert values(imported, "train/loss") == (list(range(1, 31)), list(range(50, 80)))
    assert any("2 runs" in note for note in imported.notes)
    text = "epoch,step,loss\n" + "".join(f"{epoch},{step},1\n" for epoch in range(3) for step in range(0, 20, 2))
    imported = read_foreign(write(tmp_path / "epochs.csv", text))
    assert values(imported, "train/loss")[0][-1] == 2 * 19 + 18
    assert any("anew in each epoch" in note for note in imported.notes)


def test_the_mapping_goes_before_what_is_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "n,loss,objective_x\n10,1,5\n20,2,6\n30,3,7\n")
    imported = read_foreign(path, {"n": "step", "objective_x": "train/loss"})
    assert values(imported, "train/loss") == ([10, 20, 30], [5, 6, 7])
    assert values(imported, "user/loss")[1] == [1, 2, 3]
    with pytest.raises(UsageError, match="objective_x"):
        read_foreign(path, {"objectivex": "train/loss"})


def test_test_sets_and_further_validation_sets(tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "a.csv", "step,loss,val_loss,test_loss\n1,1,2,3\n2,1,2,3\n"))
    assert values(imported, "validation/test/loss")[1] == [3, 3]
    imported = read_foreign(write(tmp_path / "b.csv", "step,loss,test_loss\n1,1,3\n2,1,3\n"))
    assert values(imported, "validation/loss")[1] == [3, 3]
    assert any("there is no other" in note for note in imported.notes)


def test_gradients_of_layers(tmp_path: Path) -> None:
    text = (
        "step,loss,grad_2.0_norm/a.weight,grad_2.0_norm/b.weight,grad_2.0_norm_total\n1,1,0.5,0,0.7\n2,1,0.25,0,0.6\n"
    )
    imported = read_foreign(write(tmp_path / "a.csv", text))
    steps, names, norms = imported.history.layers.values("grad_norm")
    assert steps.tolist() == [1, 2]
    assert names == ("a.weight", "b.weight")
    assert norms.tolist() == [[0.5, 0.0], [0.25, 0.0]]
    assert values(imported, "grad_norm")[1] == [0.7, 0.6]


def test_damage_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    whole = (LOGS / "trainer_state.json").read_text()
    imported = read_foreign(write(tmp_path / "trainer_state.json", whole[: len(whole) // 2]))
    assert imported.format == "huggingface"
    assert 5 < len(values(imported, "train/loss")[0]) < 20
    assert any("damaged or cut off" in note for note in imported.notes)
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in range(5)]
    imported = read_foreign(write(tmp_path / "a.jsonl", "\n".join([*lines, "Traceback ...", lines[4][:9]])))
    assert len(values(imported, "train/loss")[0]) == 5
    assert any("torn" in note for note in imported.notes)
    assert any("1 line without a JSON object" in note for note in imported.notes)
    imported = read_foreign(write(tmp_path / "a.csv", "step,loss,lr\n1,2,3\n2,2\n3,2,3,4\n\nstep,loss,lr\n4,2,1\n5,2"))
    assert values(imported, "train/loss")[0] == [1, 2, 3, 4]
    assert len(imported.notes) == 4
    utf16 = tmp_path / "u.csv"
    utf16.write_bytes("step,loss\r\n1,2\r\n2,3\r\n".encode("utf-16"))
    assert values(read_foreign(utf16), "train/loss") == ([1, 2], [2, 3])


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("header", ["epoch,loss,step", "loss,step", "loss,note,step", "epoch,loss,iteration"])
def test_a_table_cut_in_its_last_step_loses_that_row_alone(tmp_path: Path, header: str, cut: int) -> None:
    """Lightning sorts its header, so `step` is last, and a torn last row is as wide as the others."""
    cells = {"epoch": lambda step: step // 500, "loss": lambda step: 8 - step / 400, "note": lambda _: "a b"}
    rows = [
        ",".join(str(cells.get(name, lambda step: step)(step)) for name in header.split(","))
        for step in range(10, 2001, 10)
    ]
    imported = read_foreign(write(tmp_path / "a.csv", "\n".join([header, *rows, ""])[:-cut]))
    whole = cut == 1  # the end of the line alone
    steps, losses = values(imported, "train/loss")
    assert steps == list(range(10, 2001 if whole else 2000, 10))
    assert losses == [8 - step / 400 for step in steps]
    assert list(imported.notes) == ([] if whole else ["the last line is torn: it was left out"])


def test_a_mapped_step_and_an_epoch_can_be_torn_as_well(tmp_path: Path) -> None:
    rows = "\n".join(f"{8 - step / 400},{step}" for step in range(10, 2001, 10))
    imported = read_foreign(write(tmp_path / "a.csv", f"loss,when\n{rows[:-2]}"), {"when": "step"})
    assert values(imported, "train/loss")[0] == list(range(10, 2000, 10))
    rows = "\n".join(f"{9 - epoch / 4},{step},{epoch}" for epoch in range(13) for step in range(50))
    imported = read_foreign(write(tmp_path / "b.csv", f"loss,step,epoch\n{rows[:-1]}"))
    assert values(imported, "train/loss")[0] == list(range(13 * 50 - 1))


def test_a_last_row_without_its_end_that_goes_on_is_kept(tmp_path: Path) -> None:
    for text in ("loss,step\n3,10\n2,20", "loss,step\n3,10\n2,10", "step,loss\n10,3\n20,2"):
        assert values(read_foreign(write(tmp_path / "a.csv", text)), "train/loss")[1][-1] in (2.0, 2.5)
    rows = "\n".join(f"{50 - step},{step}" for step in range(1, 41))
    resumed = read_foreign(write(tmp_path / "a.csv", f"loss,step\n{rows}\n3,20\n"))  # an end of line: nothing is torn
    assert values(resumed, "train/loss")[0] == list(range(1, 21))
    assert any("as after a resume" in note for note in resumed.notes)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_torn_row_is_left_out_wherever_the_block_ends(tmp_path: Path, more: int, sparse: bool) -> None:
    """The last row of a file may be the only one that is behind the last whole block."""
    num = CELLS_A_BLOCK // 3 + more
    rows = [f"{step},{8 - step / num},{'' if sparse and step % 2 else 1.0}" for step in range(1, num)]
    imported = read_foreign(write(tmp_path / "a.csv", "\n".join(["step,loss,val_loss", *rows, "12"])))
    assert imported.history.last_step == num - 1
    assert imported.notes == ("the last line is torn: it was left out",)
    rows = [f"{8 - step / num},{'' if sparse and step % 2 else 1.0},{step}" for step in range(1, num)]
    imported = read_foreign(write(tmp_path / "a.csv", "\n".join(["loss,val_loss,step", *rows, f"3,,{str(num)[:3]}"])))
    assert imported.history.last_step == num - 1
    assert imported.notes == ("the last line is torn: it was left out",)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", DataError),
        (b" \n\n", DataError),
        (b"step,loss\n", DataError),
        (b"1,2\n3,4\n", DataError),
        (b"a,b\nx,y\n", DataError),
        (b"\x00\x01\x02\x03" * 500, DataError),
        (b"\x80\x04\x95\x00", DataError),
        (b"PK\x03\x04...", DataError),
        (b"[" * 100_000, DataError),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, DataError),
        (b"[1, 2, 3]", DataError),
        (b"{}", DataError),
        (b'"loss"', DataError),
        (b"def train():\n    return loss, step\n", DataError),
        (b'{"log_history": []}', DataError),
    ],
)
def test_what_is_no_log_ends_in_a_clear_error(tmp_path: Path, content: bytes, kind: type[Exception]) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(kind):
        read_foreign(tmp_path / "log.csv")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_foreign(tmp_path / "nothing.csv")
    with pytest.raises(UsageError, match="holds no log"):
        read_foreign(tmp_path)
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, "step,loss\n1,2\n")
    with pytest.raises(UsageError, match=r"a\.csv, b\.csv"):
        read_foreign(tmp_path)
    with pytest.raises(DataError, match="torn"):
        read_foreign(write(tmp_path / "events.out.tfevents.1", "x"))


def test_names_from_outside_are_made_harmless(tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "a.csv", "step,loss,\x1b[31mred\n1,2,3\n2,2,3\n"))
    assert "user/red" in imported.history.series
    imported = read_foreign(write(tmp_path / "b.csv", "step,loss,red,\x1b[31mred\n1,2,3,4\n2,2,3,4\n"))
    assert values(imported, "user/red") == ([1, 2], [3, 3])
    assert values(imported, "user/red.1") == ([1, 2], [4, 4])


def test_a_foreign_log_is_a_case() -> None:
    case, imported = open_foreign_case(LOGS / "trainer_state.json")
    assert case.target == "huggingface"
    assert case.planned_steps == 40
    assert case.loss() is imported.history.get("train/loss")


def test_long_files_are_read_quickly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((100_000, 4))
    text = "step,train_loss,lr,grad_norm,val_loss\n"
    text += "".join(
        f"{i + 1},{a:.6f},{b:.3e},{c:.4f},{d if i % 100 == 0 else ''}\n" for i, (a, b, c, d) in enumerate(noise)
    )
    path = write(tmp_path / "a.csv", text)
    history = [
        {"epoch": i / 100, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": 2.5, "step": i} for i in range(20_000)
    ]
    state = write(tmp_path / "trainer_state.json", json.dumps({"log_history": history}, indent=2))
    for log, num in ((path, 100_000), (state, 20_000)):
        started = time.process_time()
        series = read_foreign(log).history.get("train/loss")
        assert time.process_time() - started < 1.0  # 0.5 s on a machine that does nothing else
        assert series is not None
        assert series.num_samples == num


def test_a_name_that_is_spelt_nearly_so_is_told(tmp_path: Path) -> None:
    (tmp_path / "hf_overfit.json").write_text("{}")
    with pytest.raises(UsageError) as told:
        find_log(tmp_path / "hf_overfitt.json")
    assert told.value.hint is not None
    assert told.value.hint.startswith("did you mean ")
    assert "hf_overfit.json" in told.value.hint
    with pytest.raises(UsageError) as told:
        find_log(tmp_path / "elsewhere" / "a.csv")
    assert told.value.hint is None


BY_STEP = [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("line", "metric", "steps"),
    [
        (
            "[batch={step}/40]:\n\t Train loss/train/total: {loss}\n\t Train lr-AdamW/group0: 0.001",
            "learning_rate",
            BY_STEP,
        ),
        ('{{"current_steps": {step}, "total_steps": 40, "loss": {loss}, "lr": 1e-4}}', "train/loss", BY_STEP),
        ('{{"iteration": {step}, "total_loss": {loss}, "data_time": 0.004, "time": 0.35}}', "step_seconds", BY_STEP),
        ("Step {step} | loss:{loss} lr:2e-05 tokens_per_second_per_gpu:2900.5", "tokens_per_second", BY_STEP),
        (
            "[logging.py:96:log_dist] [Rank 0] step={step}, loss={loss}, skipped=0, lr=[1e-4]\n"
            "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768",
            "loss_scale",
            BY_STEP,
        ),
    ],
)
def test_lines_as_other_trainers_print_them(tmp_path: Path, line: str, metric: str, steps: list[int]) -> None:
    text = "\n".join(line.format(step=step, loss=5.0 - step / 10) for step in BY_STEP)
    imported = read_foreign(write(tmp_path / "run.log", text + "\n"))
    assert values(imported, "train/loss") == (BY_STEP, [4.0, 3.0, 2.0, 1.0])
    known = {"learning_rate": 1e-3, "step_seconds": 0.35, "tokens_per_second": 2900.5, "loss_scale": 32768.0}
    assert values(imported, metric) == (steps, [known.get(metric, 4.0 - at) for at in range(4)])
    assert not any(".py" in name for name in imported.names)


def test_a_table_of_a_notebook_below_what_was_printed_before_it(tmp_path: Path) -> None:
    banner = "==((====))==  Unsloth | Num GPUs used = 1\n\\\\   /|    Total steps = 60\n\n"
    rows = [f"{epoch}\t{1 / epoch}\t{0.5 + epoch / 100}\t{0.9}" for epoch in range(1, 7)]
    header = "Epoch\tTraining Loss\tValidation Loss\tAccuracy\n"
    imported = read_foreign(write(tmp_path / "table.txt", banner + header + "\n".join(rows) + "\n"))
    assert imported.target == "huggingface"
    assert values(imported, "train/loss")[1] == [1 / epoch for epoch in range(1, 7)]
    assert values(imported, "validation/accuracy")[1] == [0.9] * 6
    assert any("2 lines above the header" in note for note in imported.notes)


def test_updates_that_are_counted_up_are_skipped_once_each(tmp_path: Path) -> None:
    text = "step,loss,skipped\n" + "".join(f"{step},1.0,{step // 20}\n" for step in range(10, 101, 10))
    assert sum(values(read_foreign(write(tmp_path / "a.csv", text)), "skipped")[1]) == pytest.approx(0.5)
