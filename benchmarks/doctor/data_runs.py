"""Small real runs with a fault in their data, labels or evaluation, and sound ones that look alike.

    python benchmarks/doctor/data_runs.py [--keep DIR] [--only NAME] [--pack FILE] [--list]

Each takes one to five seconds on one thread. Most are trained by trimtab, the others by a loop of a few lines that
writes JSON lines: what the doctor reads of other trainers. What they learn are passages of Python's own library: which
package one is from, how often the letter e stands in it, what comes next. With `--keep` the runs stay in DIR. `--pack
FILE` puts their logs into one compressed file, which `tests/doctor/test_data_rules.py` reads.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab import Trainer, load_config
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Diagnosis
from trimtab.doctor.load import open_case, open_foreign_case
from trimtab.runs import RunDirectory

HEALTHY = "healthy"
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = ("asyncio", "email", "unittest", "xml")
OTHERS = ("tkinter", "ctypes", "concurrent", "html")

Row = dict[str, Any]


@final
@dataclass(frozen=True)
class Run:
    """A run, and what was planted in it."""

    name: str
    truth: str
    sentence: str
    make: Callable[[Path], None] = field(repr=False)


# The data.


def passages(packages: Sequence[str], each: int, length: int, seed: int = 0, side: int = 0) -> list[Row]:
    """`each` passages of `length` characters of every package, in an order by chance; those of two sides are others."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for package in packages:
        files = sorted((LIBRARY / package).rglob("*.py"))
        text = "".join(path.read_text(errors="ignore") for path in files if "test" not in path.parts)
        starts = draw.sample(range(side * length, len(text) - length, 2 * length), each)
        for start in starts:
            passage = " ".join(text[start : start + length].split())
            rows.append({"text": passage, "label": package, "value": float(passage.count("e"))})
    draw.shuffle(rows)
    return rows


def noisy(rows: Sequence[Row], part: float, seed: int = 1) -> list[Row]:
    """A part of the rows with the label of another class."""
    draw = random.Random(seed)
    classes = sorted({row["label"] for row in rows})
    return [
        {**row, "label": draw.choice([one for one in classes if one != row["label"]])} if draw.random() < part else row
        for row in rows
    ]


def relabelled(rows: Sequence[Row], seed: int = 1) -> list[Row]:
    """The labels in an order by chance."""
    labels = [row["label"] for row in rows]
    random.Random(seed).shuffle(labels)
    return [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]


def write(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """A source of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "jsonl", "path": str(path)}


def library_text(packages: Sequence[str], size: int) -> str:
    """The beginning of the source text of some packages."""
    return "".join(path.read_text() for package in packages for path in sorted((LIBRARY / package).glob("*.py")))[:size]


# Runs of trimtab.


ENCODER = {"name": "encoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2}
DECODER = {"name": "decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 2}


def settings(name: str, steps: int, **more: Any) -> dict[str, Any]:
    """Of a short run on one thread."""
    changed: dict[str, Any] = {
        "name": name,
        "seed": 1,
        "training": {"steps": steps, "micro_batch_size": 16, "device": "cpu", "threads": 1, "compile": "off"},
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "evaluation": {"every": max(1, steps // 12), "gap_tokens": 4096, "samples": {"max_tokens": 0}},
        "stopping": {"name": "none"},
        "checkpoint": {"keep_latest": 1, "keep_best": 0},
        "logging": {"every": 20},
    }
    for key, value in more.items():
        changed[key] = {**changed[key], **value} if isinstance(changed.get(key), dict) else value
    return changed


def rows_run(
    name: str,
    rows: Callable[[], Sequence[Row]],
    *,
    task: str = "classification",
    steps: int = 240,
    held_out: Callable[[], Sequence[Row]] | None = None,
    fraction: float = 0.25,
    data: dict[str, Any] | None = None,
    **more: Any,
) -> Callable[[Path], None]:
    """A classifier, or a regression, of rows."""

    def make(path: Path) -> None:
        source = write(path.parent / "rows" / f"{name}.jsonl", rows())
        given: dict[str, Any] = {"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 96}
        if held_out is None:
            given["validation_fraction"] = fraction
        else:
            given["validation_source"] = write(path.parent / "rows" / f"{name}.validation.jsonl", held_out())
        asked = {"name": task} | ({"value": "value"} if task == "regression" else {})
        chosen = {"model": ENCODER, **({"objective": {"name": "mse"}} if task == "regression" else {}), **more}
        config = load_config(
            settings(name, steps, task=asked, data={**given, **(data or {})}, **chosen), environment={}
        )
        Trainer(config, run=path).fit()

    return make


def text_run(
    name: str,
    text: Callable[[], str],
    *,
    steps: int = 240,
    model: Callable[[int], nn.Module] | None = None,
    held_out: Callable[[], str] | None = None,
    data: dict[str, Any] | None = None,
    **more: Any,
) -> Callable[[Path], None]:
    """A language model of text, ours or one from elsewhere."""

    def source(path: Path, content: str) -> dict[str, Any]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return {"name": "text", "path": str(path)}

    def make(path: Path) -> None:
        given: dict[str, Any] = {
            "source": source(path.parent / "rows" / f"{name}.txt", text()),
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
        }
        if held_out is not None:
            given["validation_source"] = source(path.parent / "rows" / f"{name}.validation.txt", held_out())
        chosen = {"model": DECODER, "evaluation": {"max_tokens": 8192}, **more}
        config = load_config(settings(name, steps, data={**given, **(data or {})}, **chosen), environment={})
        torch.manual_seed(1)
        Trainer(config, run=path, model=None if model is None else model(257)).fit()

    return make


class Gru(nn.Module):
    """A recurrent language model from elsewhere, with one of several faults or none."""

    def __init__(self, vocabulary: int, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.embedding = nn.Embedding(vocabulary, 32)
        self.gru = nn.GRU(32, 32, batch_first=True, bidirectional=fault == "looks ahead")
        self.norm = nn.BatchNorm1d(32) if fault == "batch norm" else nn.Identity()
        self.head = nn.Linear(64 if fault == "looks ahead" else 32, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, time] to logits [batch, time, vocabulary]."""
        features = self.embedding(tokens)
        if self.fault == "dropout":
            features = F.dropout(features, 0.4)  # always on without its third argument
        features = self.gru(features)[0]
        if self.fault == "batch norm":
            flat = features.flatten(0, 1)
            features = F.batch_norm(flat, None, None, self.norm.weight, self.norm.bias, True).view_as(features)
        logits: Tensor = self.head(features)
        return logits.softmax(-1) if self.fault == "softmax" else logits


class Fed(nn.Module):
    """Predicts the next byte from the numbers of the four before, as they are."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, vocabulary))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, time] to logits [batch, time, vocabulary]."""
        logits: Tensor = self.layers(F.pad(tokens.float(), (3, 0)).unfold(1, 4, 1))
        return logits


def damaged_text() -> str:
    """Text in which one batch of 16 sequences of 32 is bytes by chance."""
    text = library_text(("asyncio",), 60_000).encode("ascii", "replace")
    draw = random.Random(3)
    garbage = bytes(draw.randrange(33, 126) for _ in range(512)).decode()
    begin = 512 * 70
    return text[:begin].decode() + garbage + text[begin + 512 :].decode()


def plain_rows(each: int = 220, length: int = 80, seed: int = 0) -> list[Row]:
    return passages(PACKAGES, each, length, seed)


def marked_rows() -> list[Row]:
    """The label stands in the text."""
    return [{**row, "text": f"<{row['label'][:2]}> {row['text']}"} for row in plain_rows()]


def far_rows() -> list[Row]:
    """A few values that are three hundred times as large: a unit that was mixed up."""
    draw = random.Random(5)
    return [{**row, "value": row["value"] * (300.0 if draw.random() < 0.012 else 1.0)} for row in plain_rows()]


def uneven_rows(kept: int = 8) -> list[Row]:
    return [row for index, row in enumerate(plain_rows(320)) if row["label"] == "email" or index % kept == 0]


# A loop of a few lines, by somebody else.


def counts_of(rows: Sequence[Row], classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """How often each of 96 characters stands in a row, in standard units as far as rows agree; and the class."""
    inputs = torch.zeros(len(rows), 96)
    for index, row in enumerate(rows):
        for letter in row["text"].encode("ascii", "replace"):
            inputs[index, max(0, letter - 32)] += 1
    inputs = (inputs - inputs.mean(0)) / (inputs.std(0) + 0.1)
    return inputs, torch.tensor([classes.index(row["label"]) for row in rows])


def loop_run(
    name: str,
    *,
    fault: str = "",
    epochs: int = 8,
    each: int = 220,
    rate: float = 3e-3,
    dropout: float = 0.0,
    width: int = 64,
    held_out: int = 220,
) -> Callable[[Path], None]:
    """A perceptron over counts of characters, whose log is JSON lines."""

    def make(path: Path) -> None:
        torch.manual_seed(2)
        draw = np.random.default_rng(2)
        rows = passages(PACKAGES, each, 120)
        if fault == "label noise":
            rows = noisy(rows, 0.3)
        if fault == "random labels":
            rows = relabelled(rows)
        inputs, classes = counts_of(rows, PACKAGES)
        x, y, x_held_out, y_held_out = inputs[held_out:], classes[held_out:], inputs[:held_out], classes[:held_out]
        if fault == "shift":
            x_held_out = x_held_out.roll(3, 1)
        if fault == "sorted":
            order = y.argsort(stable=True)
            x, y = x[order], y[order]
        if fault == "unscaled":
            x, x_held_out = x * 60.0 + 128.0, x_held_out * 60.0 + 128.0
        if fault == "corrupt":
            x[192:208] = torch.from_numpy(draw.normal(size=(16, 96))).float() * 25.0
        numbers = (y.double() + 0.3 * torch.from_numpy(draw.normal(size=len(y)))).float()
        if fault == "outliers":
            numbers[torch.from_numpy(draw.random(len(y)) < 0.006)] *= 60.0
        is_regression = fault in ("outliers", "regression")
        model = nn.Sequential(
            nn.Linear(96, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1 if is_regression else 4)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        step, lines = 0, []
        fixed = fault in ("sorted", "corrupt", "fixed")
        for _ in range(epochs):
            order = np.arange(len(x)) if fixed else draw.permutation(len(x))
            for first in range(0, len(x) - 15, 16):
                taken = torch.from_numpy(order[first : first + 16])
                logits = model(x[taken])
                if fault == "softmax":
                    logits = logits.softmax(-1)
                loss = F.mse_loss(logits[:, 0], numbers[taken]) if is_regression else F.cross_entropy(logits, y[taken])
                optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
                optimizer.step()
                step += 1
                line = {"step": step, "train_loss": loss.item(), "grad_norm": norm.item(), "lr": rate}
                if not is_regression:
                    line["train_accuracy"] = (logits.argmax(-1) == y[taken]).float().mean().item()
                if step % 25 == 0 and not is_regression:
                    model.eval()
                    with torch.no_grad():
                        answers = model(x_held_out)
                        if fault == "softmax":
                            answers = answers.softmax(-1)
                        line["val_loss"] = F.cross_entropy(answers, y_held_out).item()
                        line["val_accuracy"] = (answers.argmax(-1) == y_held_out).float().mean().item()
                    model.train()
                lines.append(json.dumps({key: round(value, 5) for key, value in line.items()}))
        path.mkdir(parents=True, exist_ok=True)
        (path / "log.jsonl").write_text("\n".join(lines) + "\n")

    return make


def _runs() -> Iterator[Run]:
    yield Run("classes", HEALTHY, "which of four packages a passage is from", rows_run("classes", plain_rows))
    yield Run(
        "classes-short",
        HEALTHY,
        "the same of passages of 25 characters, which often cannot be told",
        rows_run("classes-short", lambda: plain_rows(500, 25)),
    )
    yield Run(
        "classes-dropout",
        HEALTHY,
        "dropout 0.2: the training loss lies above the validation loss",
        rows_run("classes-dropout", plain_rows, model={**ENCODER, "dropout": {"residual": 0.2, "head": 0.2}}),
    )
    yield Run(
        "classes-uneven", HEALTHY, "one class has seven in ten rows", rows_run("classes-uneven", uneven_rows, steps=200)
    )
    yield Run(
        "classes-smooth",
        HEALTHY,
        "label smoothing 0.2",
        rows_run("classes-smooth", plain_rows, objective={"name": "cross_entropy", "label_smoothing": 0.2}),
    )
    yield Run(
        "classes-in-order",
        HEALTHY,
        "not shuffled, and in an order by chance",
        rows_run("classes-in-order", plain_rows, data={"shuffle": False}),
    )
    yield Run(
        "numbers",
        HEALTHY,
        "how often e stands in a passage, squared error",
        rows_run("numbers", plain_rows, task="regression"),
    )
    yield Run("text", HEALTHY, "a decoder of text", text_run("text", lambda: library_text(("email", "json"), 200_000)))
    yield Run(
        "text-in-order",
        HEALTHY,
        "a decoder of text that is not shuffled",
        text_run("text-in-order", lambda: library_text(("asyncio",), 60_000), steps=110, data={"shuffle": False}),
    )
    yield Run(
        "gru",
        HEALTHY,
        "a recurrent model from elsewhere",
        text_run(
            "gru",
            lambda: library_text(("email",), 200_000),
            model=Gru,
            steps=500,
            optimizer={"name": "adamw", "learning_rate": 1e-2},
        ),
    )
    yield Run(
        "random-labels",
        "random-labels",
        "labels shuffled against their passages",
        rows_run("random-labels", lambda: relabelled(plain_rows()), steps=400),
    )
    yield Run(
        "random-labels-one-pass",
        "random-labels",
        "the same, seen twice: nothing is learned by heart",
        rows_run("random-labels-one-pass", lambda: relabelled(plain_rows(500)), steps=190),
    )
    yield Run(
        "label-noise",
        "label-noise",
        "three in ten labels are of another class",
        rows_run("label-noise", lambda: noisy(plain_rows(400), 0.3), steps=300),
    )
    yield Run(
        "label-noise-mild",
        "label-noise",
        "one in eight labels is of another class",
        rows_run("label-noise-mild", lambda: noisy(plain_rows(400), 0.125), steps=300),
    )
    yield Run(
        "class-collapse",
        "class-collapse",
        "one class has nine in ten rows, and gets all others",
        rows_run(
            "class-collapse", lambda: uneven_rows(26), steps=150, optimizer={"name": "adamw", "learning_rate": 1e-3}
        ),
    )
    yield Run(
        "unshuffled-data",
        "unshuffled-data",
        "rows sorted by package, not shuffled, three times over",
        rows_run(
            "unshuffled-data",
            lambda: sorted(plain_rows(), key=lambda row: str(row["label"])),
            data={"shuffle": False},
            steps=125,
        ),
    )
    yield Run(
        "corrupt-batch",
        "corrupt-batch",
        "one batch of text is characters by chance",
        text_run("corrupt-batch", damaged_text, steps=110, data={"shuffle": False}, schedule={"name": "constant"}),
    )
    yield Run(
        "leakage",
        "leakage",
        "one in five validation passages is in the training set",
        rows_run("leakage", plain_rows, held_out=lambda: plain_rows()[:40] + passages(PACKAGES, 40, 80, side=1)),
    )
    yield Run("target-leak", "target-leak", "the label stands in the passage", rows_run("target-leak", marked_rows))
    yield Run(
        "target-leak-ahead",
        "target-leak",
        "a recurrent model that reads in both directions predicts the next byte",
        text_run(
            "target-leak-ahead", lambda: library_text(("email",), 200_000), model=lambda size: Gru(size, "looks ahead")
        ),
    )
    yield Run(
        "validation-shift",
        "validation-shift",
        "validation passages are of other packages",
        text_run(
            "validation-shift",
            lambda: library_text(("email", "asyncio"), 300_000),
            held_out=lambda: (
                Path(json.__file__).read_text()[:200] + "\n".join(str(n * 7919 % 100_003) for n in range(3000))
            ),
        ),
    )
    yield Run(
        "validation-shift-rows",
        "validation-shift",
        "validation passages have another spelling",
        rows_run(
            "validation-shift-rows",
            lambda: plain_rows(400),
            steps=100,
            held_out=lambda: [{**row, "text": row["text"].upper()} for row in passages(PACKAGES, 60, 80, side=1)],
        ),
    )
    yield Run(
        "validation-too-small",
        "validation-too-small",
        "sixteen passages to validate on",
        rows_run("validation-too-small", plain_rows, held_out=lambda: passages(PACKAGES, 4, 80, side=1)),
    )
    yield Run(
        "outlier-dominated-loss",
        "outlier-dominated-loss",
        "one value in eighty is three hundred times as large",
        rows_run("outlier-dominated-loss", far_rows, task="regression"),
    )
    yield Run(
        "unscaled-inputs",
        "unscaled-inputs",
        "a model from elsewhere that is fed with bytes as they are",
        text_run("unscaled-inputs", lambda: library_text(("email",), 200_000), model=Fed),
    )
    yield Run(
        "double-softmax",
        "double-softmax",
        "a model from elsewhere that gives probabilities",
        text_run("double-softmax", lambda: library_text(("email",), 200_000), model=lambda size: Gru(size, "softmax")),
    )
    yield Run(
        "evaluated-in-training-mode",
        "evaluated-in-training-mode",
        "dropout that does not follow the mode",
        text_run(
            "evaluated-in-training-mode",
            lambda: library_text(("email",), 200_000),
            model=lambda size: Gru(size, "dropout"),
        ),
    )
    yield Run(
        "evaluated-by-batch",
        "evaluated-in-training-mode",
        "BatchNorm by the batch, in evaluation, too",
        text_run(
            "evaluated-by-batch", lambda: library_text(("email",), 200_000), model=lambda size: Gru(size, "batch norm")
        ),
    )
    # By a loop that writes JSON lines.
    yield Run("loop", HEALTHY, "a perceptron over counts of characters", loop_run("loop", epochs=3))
    yield Run("loop-dropout", HEALTHY, "the same with dropout 0.5", loop_run("loop-dropout", dropout=0.5, epochs=4))
    yield Run(
        "loop-numbers", HEALTHY, "the same of numbers, squared error", loop_run("loop-numbers", fault="regression")
    )
    yield Run("loop-once", HEALTHY, "one pass over the data", loop_run("loop-once", each=900, epochs=1))
    yield Run(
        "loop-random-labels",
        "random-labels",
        "labels shuffled",
        loop_run("loop-random-labels", fault="random labels", epochs=14),
    )
    yield Run(
        "loop-double-softmax",
        "double-softmax",
        "softmax twice",
        loop_run("loop-double-softmax", fault="softmax", epochs=12),
    )
    yield Run(
        "loop-unshuffled",
        "unshuffled-data",
        "sorted by class, not shuffled",
        loop_run("loop-unshuffled", fault="sorted"),
    )
    yield Run(
        "loop-corrupt",
        "corrupt-batch",
        "one batch is noise 25 times as large",
        loop_run("loop-corrupt", fault="corrupt"),
    )
    yield Run(
        "loop-outliers",
        "outlier-dominated-loss",
        "a few targets are 60 times as large",
        loop_run("loop-outliers", fault="outliers"),
    )
    yield Run(
        "loop-shift",
        "validation-shift",
        "validation characters are counted in other columns",
        loop_run("loop-shift", fault="shift", each=900, epochs=2),
    )
    yield Run(
        "loop-overconfident",
        "overconfident",
        "eight passes: decisions get better, and too sure",
        loop_run("loop-overconfident"),
    )
    yield Run(
        "loop-in-order",
        HEALTHY,
        "an order by chance that is the same in each pass",
        loop_run("loop-in-order", fault="fixed", epochs=4),
    )


RUNS = tuple(_runs())


def open_diagnosis(path: Path, name: str) -> Diagnosis:
    """What the doctor says of a run, or of a loop's log."""
    log = path / "log.jsonl"
    return diagnose(open_foreign_case(log)[0] if log.exists() else open_case(RunDirectory.open(path)), name)


def logs(path: Path) -> Iterator[tuple[str, bytes]]:
    """What the doctor reads of it, without traces of the machine that it was made on."""
    if (path / "log.jsonl").exists():
        yield "log.jsonl", (path / "log.jsonl").read_bytes()
        return
    for name in ("config.yaml", "facts.json", "record.jsonl"):
        yield name, (path / name).read_bytes()
    surroundings = json.loads((path / "environment.json").read_bytes())
    yield (
        "environment.json",
        json.dumps({key: surroundings[key] for key in ("schema", "versions", "seed", "source")}).encode(),
    )


def pack(folder: Path, file: Path) -> None:
    """Put the logs of all runs into a .tar.xz, with `runs.json`, the table."""
    table = [{"name": run.name, "truth": run.truth, "sentence": run.sentence} for run in RUNS]
    contents = {
        "runs.json": json.dumps({"generator": "benchmarks/doctor/data_runs.py", "runs": table}, indent=1).encode()
    }
    for run in RUNS:
        contents |= {f"{run.name}/{name}": content for name, content in logs(folder / run.name)}
    with tarfile.open(file, "w:xz", preset=9) as archive:
        for name in sorted(contents, key=lambda name: (Path(name).name, name)):  # what is alike lies together
            entry = tarfile.TarInfo(name)
            entry.size = len(contents[name])
            archive.addfile(entry, io.BytesIO(contents[name]))


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--pack", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    chosen = [run for run in RUNS if not arguments.only or run.name in arguments.only]
    if arguments.list:
        print("\n".join(f"{run.name:<28}{run.truth:<28}{run.sentence}" for run in chosen))
        return
    with tempfile.TemporaryDirectory() as aside:
        folder = arguments.keep or Path(aside)
        folder.mkdir(parents=True, exist_ok=True)
        for run in chosen:
            path = folder / run.name
            if not path.exists():
                run.make(path)
            found = open_diagnosis(path, run.name).findings
            told = ", ".join(f"{one.code} ({one.severity} {one.confidence:.2f} from {one.onset_step})" for one in found)
            first = found[0].code if found and found[0].severity != "info" else HEALTHY
            print(f"{'right' if first == run.truth else 'WRONG'}  {run.name:<28}{run.truth:<28}{told}", flush=True)
        if arguments.pack:
            pack(folder, arguments.pack)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
