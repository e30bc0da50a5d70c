"""Writes formats/: one run in the formats of many trainers. `python tests/runs/importers/write_formats.py FOLDER`.

The tools write what they can be made to write here (README.md beside the files tells which); what they would need a
training, a service or another framework for is put together in their shape.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

STEPS = range(10, 501, 10)
EPOCHS = range(1, 11)


def loss(step: int) -> float:
    return round(4 * math.exp(-step / 150) + 0.5, 4)


def validation_loss(step: int) -> float:
    return round(loss(step) + 0.1, 4)


def rate(step: int) -> float:
    return round(1e-3 * (1 - step / 1000), 8)


def rows(names: Sequence[str] = ("loss", "lr", "val_loss")) -> list[dict[str, float]]:
    out: list[dict[str, float]] = []
    for step in STEPS:
        out.append({"step": step, names[0]: loss(step), names[1]: rate(step)})
        if step % 100 == 0:
            out.append({"step": step, names[2]: validation_loss(step)})
    return out


def write_tensorboard(folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for row in rows(("Loss/train", "lr", "Loss/val")):
            for name in [name for name in row if name != "step"]:
                writer.add_scalar(name, row[name], row["step"])
        writer.add_histogram("weights", __import__("torch").arange(9.0), 500)
    for part in ("train", "validation"):
        with SummaryWriter(str(folder / "tensorboard_folders" / part)) as writer:
            for epoch in EPOCHS:
                value = loss(epoch * 50) if part == "train" else validation_loss(epoch * 50)
                writer.add_scalar("epoch_loss", value, epoch)
    for suffix, begin, end in ((".a", 10, 400), (".b", 300, 501)):
        purge = 300 if begin == 300 else None
        path = str(folder / "tensorboard_resumed")
        with SummaryWriter(path, purge_step=purge, filename_suffix=suffix) as writer:
            for step in range(begin, end, 10):
                writer.add_scalar("train/loss", loss(step) + (9.0 if begin == 10 and step >= 300 else 0.0), step)
    writer = EventFileWriter(str(folder / "tensorboard_tensors"))
    for step in STEPS:
        tensor = TensorProto(dtype=1, float_val=[loss(step)])
        writer.add_event(Event(step=step, summary=Summary(value=[Summary.Value(tag="loss", tensor=tensor)])))
    writer.close()
    for number, path in enumerate(sorted(folder.glob("tensorboard*/**/events*"))):
        path.rename(path.with_name(f"events.out.tfevents.17000000{number:02d}.host" + path.suffix[:2]))


def write_wandb(folder: Path) -> None:
    import wandb

    with tempfile.TemporaryDirectory() as work:
        run = wandb.init(
            mode="offline",
            project="p",
            dir=work,
            settings=wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True),
        )
        for row in rows(("train/loss", "train/lr", "eval/loss")):
            run.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
        run.log({"weights": wandb.Histogram([1, 2, 3])}, step=501)
        run.finish()
        wandb.teardown()  # the file is whole when the service has ended
        found = next(Path(work).glob("wandb/offline-run-*/*.wandb"))
        place = folder / "wandb_offline" / "offline-run-20260101_000000-abcdefgh"
        place.mkdir(parents=True)
        (place / "run-abcdefgh.wandb").write_bytes(found.read_bytes())


def write_mlflow(folder: Path) -> None:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    with tempfile.TemporaryDirectory() as work:
        for uri in (f"sqlite:///{work}/mlflow.db", f"{work}/mlruns"):
            mlflow.set_tracking_uri(uri)
            mlflow.set_experiment("e")
            for number in (1, 0):
                with mlflow.start_run(run_name=f"run-{number}"):
                    for row in rows(("train_loss", "lr", "val_loss")):
                        metrics = {name: value + number for name, value in row.items() if name != "step"}
                        mlflow.log_metrics(metrics, step=int(row["step"]))
                    if number == 0:
                        mlflow.log_metric("grad_norm", math.nan, step=500)
        for path in [one for one in Path(work, "mlruns").rglob("*") if one.is_file()]:
            if path.name == "meta.yaml" or path.parent.name == "metrics":
                target = folder / "mlflow_files" / path.relative_to(work)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path.read_text().replace(work, ""))
        slim(Path(work, "mlflow.db"), folder / "mlflow.db", ("metrics", "runs", "experiments"))


def slim(source: Path, target: Path, kept: Sequence[str]) -> None:
    """A copy with some of the tables alone: an empty store of MLflow has 900 KB."""
    with contextlib.closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            if name not in kept and not name.startswith("sqlite_"):
                connection.execute(f'DROP TABLE "{name}"')
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            if table in kept:
                connection.execute(f"UPDATE {table} SET {column} = 'mlruns'")  # it holds a path of this machine
        connection.commit()
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA page_size=1024")
        connection.execute("VACUUM")
    target.write_bytes(source.read_bytes())


def write_trackio(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        os.environ["TRACKIO_DIR"] = work
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        for number in (1, 0):
            trackio.init(project="project", name=f"run-{number}", embed=False)
            for row in rows(("loss", "learning_rate", "val")):
                values = {name: value for name, value in row.items() if name != "step"}
                if "val" in values:
                    values = {"val": {"loss": values["val"]}}
                else:
                    values["loss"] += number
                trackio.log(values, step=int(row["step"]))
            trackio.finish()
        SQLiteStorage.export_to_parquet()
        slim(Path(work, "project.db"), folder / "trackio.db", ("metrics", "configs"))
        (folder / "trackio.parquet").write_bytes(Path(work, "project.parquet").read_bytes())


def write_trainers(folder: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger
    from transformers import TrainerState
    from transformers.trainer_callback import ProgressCallback

    (folder / "huggingface").mkdir()
    history = [
        {("eval_loss" if "val" in row else name): value for name, value in row.items()}
        for row in rows(("loss", "learning_rate", "eval_loss"))
    ]
    state = TrainerState(max_steps=500, global_step=500, log_history=history)
    state.save_to_json(str(folder / "huggingface" / "trainer_state.json"))
    logger = CSVLogger(str(folder), name="lightning_logs", version=0)
    for row in rows(("train_loss", "lr-AdamW", "val_loss")):
        logger.log_metrics({k: v for k, v in row.items() if k != "step"} | {"epoch": 0}, int(row["step"]))
    logger.save()
    callback = ProgressCallback()
    arguments = SimpleNamespace(world_size=1)
    control, state = SimpleNamespace(), TrainerState(max_steps=500, is_world_process_zero=True)
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        callback.on_train_begin(arguments, state, control)
        for row in rows(("loss", "learning_rate", "eval_loss")):
            state.global_step = int(row["step"])
            callback.on_step_end(arguments, state, control)
            values = {name: value for name, value in row.items() if name != "step"}
            callback.on_log(arguments, state, control, logs=values | {"epoch": round(row["step"] / 250, 2)})
        callback.on_train_end(arguments, state, control)
    (folder / "huggingface_printed.log").write_text(printed.getvalue())


def write_neptune(folder: Path) -> None:
    import decimal

    import pyarrow
    from pyarrow import parquet

    names = {"metrics/train/loss": "loss", "metrics/lr": "lr", "metrics/val/loss": "val_loss"}
    cells = [
        {"project_id": "w/p", "run_id": "RUN-1", "attribute_path": "sys/name", "attribute_type": "string"}
        | {"step": None, "float_value": None, "string_value": "mine"}
    ]
    for path, name in names.items():
        for row in [row for row in rows() if name in row]:
            cells.append(  # noqa: PERF401
                {"project_id": "w/p", "run_id": "RUN-1", "attribute_path": path, "attribute_type": "float_series"}
                | {"step": decimal.Decimal(int(row["step"])), "float_value": row[name], "string_value": None}
            )
    schema = pyarrow.schema(
        [
            *((name, pyarrow.string()) for name in ("project_id", "run_id", "attribute_path", "attribute_type")),
            ("step", pyarrow.decimal128(18, 6)),
            ("float_value", pyarrow.float64()),
            ("string_value", pyarrow.string()),
        ]
    )
    (folder / "neptune").mkdir()
    half = len(cells) // 2
    for number, part in enumerate((cells[:half], cells[half:])):
        table = pyarrow.Table.from_pylist(part, schema=schema)
        parquet.write_table(table, folder / "neptune" / f"RUN-1_part_{number}.parquet")


def write_tables(folder: Path) -> None:
    def table(name: str, header: Sequence[str], lines: Sequence[Sequence[object]], delimiter: str = ",") -> None:
        with open(folder / name, "w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([header, *lines])

    def at(step: int) -> object:
        return validation_loss(step) if step % 100 == 0 else ""

    table("keras.csv", ("epoch", "loss", "val_loss"), [(e, loss(e * 50), validation_loss(e * 50)) for e in EPOCHS])
    header = [
        "Step",
        *(f"run-7 - {name}{end}" for name in ("train/loss", "eval/loss") for end in ("", "__MIN", "__MAX")),
    ]
    table("wandb_export.csv", header, [(s, *[loss(s)] * 3, *[at(s)] * 3) for s in STEPS])
    table("run-mine-tag-train_loss.csv", ("Wall time", "Step", "Value"), [(1.7e9 + s, s, loss(s)) for s in STEPS])
    lines = [(key, row[key], row["step"]) for row in rows() for key in row if key != "step"]
    table("mlflow_export.csv", ("key", "value", "step"), lines)
    table("hand_made.csv", ("Iteration", "Training Loss", "Valid Loss"), [(s, loss(s), at(s)) for s in STEPS])
    german = [(s, str(loss(s)).replace(".", ",")) for s in STEPS]
    table("semicolons.csv", ("step", "loss"), german, ";")
    table("tabs.tsv", ("step", "train_loss", "valid_loss"), [(s, loss(s), at(s)) for s in STEPS], "\t")


def write_json(folder: Path) -> None:
    def lines(name: str, records: Sequence[object]) -> None:
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))

    lines("flat.jsonl", rows())
    nested = [{"step": s, "train": {"loss": loss(s)}, "optim": {"lr": rate(s)}} for s in STEPS]
    lines(
        "nested.jsonl",
        [{**row, "val": {"loss": validation_loss(row["step"])}} if row["step"] % 100 == 0 else row for row in nested],
    )
    sides = [{"split": "train", "global_step": s, "loss": loss(s)} for s in STEPS]
    sides += [{"split": "val", "global_step": s, "loss": validation_loss(s)} for s in STEPS if s % 100 == 0]
    lines("splits.jsonl", sorted(sides, key=lambda row: row["global_step"]))
    lines("events.ndjson", [{"metric": "train_loss", "value": loss(s), "iteration": s} for s in STEPS])
    (folder / "list.json").write_text(json.dumps(rows(), indent=1))
    columns = {"step": list(STEPS), "training_loss": [loss(s) for s in STEPS]}
    (folder / "lists.json").write_text(json.dumps({"history": columns}))
    (folder / "printed_dicts.log").write_text("".join(f"{row}\n" for row in rows()))


def write_printed(folder: Path) -> None:
    def log(name: str, lines: Sequence[str]) -> None:
        (folder / name).write_text("\n".join(lines) + "\n")

    def with_evaluation(head: Sequence[str], train: object, evaluate: object) -> list[str]:
        out = list(head)
        for step in STEPS:
            out.append(train(step))  # type: ignore[operator]
            if step % 100 == 0:
                out.append(evaluate(step))  # type: ignore[operator]
        return out

    log(
        "nanogpt.log",
        with_evaluation(
            ["tokens per iteration will be: 491,520", "number of parameters: 10.65M", "using fused AdamW: True"],
            lambda s: f"iter {s}: loss {loss(s):.4f}, time {32 + s / 100:.2f}ms, mfu 11.36%",
            lambda s: (
                f"step {s}: train loss {loss(s):.4f}, val loss {validation_loss(s):.4f}\nsaving checkpoint to out"
            ),
        ),
    )
    log(
        "nanochat.log",
        with_evaluation(
            ["Vocab size: 65,536", "Number of parameters: 560,988,160"],
            lambda s: (
                f"step {s:05d}/21400 ({s / 214:.2f}%) | loss: {loss(s):.6f} | lrm: 1.00 | dt: 1,513.46ms | "
                f"tok/sec: 1,021,088 | mfu: 45.02 | total time: {s / 100:.2f}m"
            ),
            lambda s: f"Step {s:05d} | Validation bpb: {validation_loss(s):.4f}",
        ),
    )
    log(
        "megatron.log",
        with_evaluation(
            ["using world size: 8, data-parallel size: 8"],
            lambda s: (
                f" [2024-05-01 10:00:{s % 60:02d}] iteration {s:8d}/  500000 | consumed samples: {s * 256:12d} | "
                f"elapsed time per iteration (ms): 1234.5 | learning rate: {rate(s):.6E} | global batch size:   256 | "
                f"lm loss: {loss(s):.6E} | loss scale: 1.0 | grad norm: 1.234 | number of skipped iterations:   0 | "
                "number of nan iterations:   0 |"
            ),
            lambda s: (
                "-" * 60 + f"\n validation loss at iteration {s} | lm loss value: {validation_loss(s):.6E} | lm "
                f"loss PPL: {math.exp(validation_loss(s)):.6E} |\n" + "-" * 60
            ),
        ),
    )
    log(
        "torchtitan.log",
        [
            "[titan] 2025-01-01 00:00:00,000 - root - INFO - Training starts at step 1.",
            *(
                f"[titan] 2025-01-01 00:00:{s % 60:02d},000 - root - INFO - \x1b[31mstep: {s:2d}  "
                f"\x1b[32mloss: {loss(s):7.4f}  \x1b[38;2;180;60;0mgrad_norm:  1.5000  "
                f"\x1b[33mmemory:  1.64GiB(2.07%)  \x1b[34mtps: 8,189  \x1b[36mtflops: 0.50  \x1b[35mmfu: 0.05%\x1b[39m"
                for s in STEPS
            ),
        ],
    )
    axolotl = ["[2024-05-01 10:00:00,123] [INFO] [axolotl.train.train:83] [PID:12] [RANK:0] loading tokenizer... Llama"]
    for s in STEPS:
        bar = f"{s // 5:3d}%|███       | {s}/500 [00:02<1:10:00,  2.80s/it]"
        values = {"loss": loss(s), "grad_norm": 0.8, "learning_rate": rate(s), "epoch": round(s / 100, 2)}
        axolotl.append(f"\r {bar}\r{' ' * 60}\r{values}\n\r {bar}")
        if s % 100 == 0:
            axolotl.append(
                "\r 10%|█         | 2/20 [00:00<00:02,  7.1it/s]\r100%|██████████| 20/20 [00:02<00:00,  7.1it/s]"
            )
            values = {"eval_loss": validation_loss(s), "eval_runtime": 2.5, "epoch": round(s / 100, 2)}
            axolotl.append(f"{values}\n\r {bar}")
    log("axolotl.log", axolotl)
    keras = []
    for e in EPOCHS:
        keras += [
            f"Epoch {e}/10",
            "\r 1/50 [..............................] - ETA: 9s - loss: 9.0000"
            + "\b" * 40
            + f"\r50/50 [==============================] - 4s 38ms/step - loss: {loss(e * 50)} - val_loss: "
            f"{validation_loss(e * 50)}",
        ]
    log("keras2.log", keras)
    keras = []
    for e in EPOCHS:
        bar = "\x1b[32m━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m3s\x1b[0m 3ms/step"
        keras += [
            f"Epoch {e}/10",
            f"\x1b[1m 1/50\x1b[0m \x1b[37m━━━━━━━━━━\x1b[0m \x1b[1m8:32\x1b[0m 546ms/step - loss: 9.1"
            f"\r\x1b[1m50/50\x1b[0m {bar} - loss: {loss(e * 50)} - val_loss: {validation_loss(e * 50)}",
        ]
    log("keras3.log", keras)
    log(
        "lightning_bars.log",
        [
            "GPU available: False, used: False",
            *(
                f"Epoch {e - 1}: 100%|██████████| 50/50 [00:00<00:00, 95.3it/s, v_num=0, train_loss={loss(e * 50)}, "
                f"val_loss={validation_loss(e * 50)}]"
                for e in EPOCHS
            ),
        ],
    )
    log("epochs.txt", [f"epoch {e} loss {loss(e * 50)} val_loss {validation_loss(e * 50)}" for e in EPOCHS])
    log(
        "tutorial.log",
        [
            f"Epoch {e}/10\n----------\ntrain Loss: {loss(e * 50)} Acc: 0.7008\nval Loss: "
            f"{validation_loss(e * 50)} Acc: 0.9281\n"
            for e in EPOCHS
        ]
        + ["Best val Acc: 0.9281"],
    )
    log(
        "imagenet.log",
        [
            f"Epoch: [0][{s:3d}/500]\tTime  0.318 ( 0.518)\tData  0.100 ( 0.100)\tLoss {loss(s):.4e} "
            f"({loss(s) + 0.1:.4e})\tAcc@1   1.00 (  0.50)"
            for s in STEPS
        ],
    )
    log(
        "mnist.log",
        [f"Train Epoch: 1 [{s}/60000 ({s // 600}%)]\tLoss: {loss(s):.6f}" for s in STEPS]
        + ["Test set: Average loss: 0.0525, Accuracy: 9825/10000 (98%)"],
    )
    log(
        "mmdetection.log",
        [
            f"2023-01-01 10:00:{s % 60:02d},000 - mmdet - INFO - Epoch [1][{s}/7330]\tlr: {rate(s):.3e}, "
            f"eta: 12:00:00, time: 0.512, data_time: 0.051, memory: 3834, loss_cls: 0.5, loss_bbox: 0.2, "
            f"loss: {loss(s):.4f}"
            for s in STEPS
        ],
    )
    log(
        "logging.log",
        with_evaluation(
            [],
            lambda s: f"2024-01-01 10:00:00,{s} INFO root step={s} loss={loss(s)} lr={rate(s)} tokens_per_sec=12.5k",
            lambda s: f"2024-01-01 10:00:00,{s} WARNING root eval: step={s} loss={validation_loss(s)}",
        ),
    )
    log(
        "fairseq.log",
        [
            "2020-06-01 10:00:00 | INFO | fairseq_cli.train | task: language_modeling (LanguageModelingTask)",
            *(
                "2020-06-01 10:00:10 | INFO | train_inner | "
                + json.dumps(
                    {
                        "epoch": 1,
                        "update": s / 500,
                        "loss": str(loss(s)),
                        "wps": "100000",
                        "num_updates": str(s),
                        "lr": str(rate(s)),
                        "gnorm": "2.1",
                    }
                )
                for s in STEPS
            ),
        ],
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for write in (
        write_tensorboard,
        write_wandb,
        write_mlflow,
        write_trackio,
        write_trainers,
        write_neptune,
        write_tables,
        write_json,
        write_printed,
    ):
        write(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
