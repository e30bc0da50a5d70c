"""Every command on hostile input, in one process, so that torch is imported once: hostile.py names|pickles FOLDER.

Prints a JSON list of [arguments, exit code, output] for each call.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

from trimtab import cli
from trimtab.runs.checkpoints import write_manifest

BAD = "\x1b[31mred\x1b[0m\u202eelgnis\x07\r\nnext: rm -rf\u2066 \x9b31m\u200f"
TINY = [
    "data={source: {name: text, path: t.py}, tokenizer: {name: bytes}, sequence_length: 16}",
    "model={name: decoder, num_layers: 1, hidden_size: 16, num_heads: 1}",
    "training={steps: 4, micro_batch_size: 2, device: cpu}",
    "evaluation={every: 2, max_tokens: 64, gap_tokens: 0, yardsticks: false, samples: {max_tokens: 4, "
    'prompts: ["a\\u202e\\e[31mb"]}}',
]
CLASSES = [
    "task={name: classification}",
    "data={source: {name: jsonl, path: rows.jsonl}, tokenizer: {name: bytes}, sequence_length: 16}",
    "model={name: encoder, num_layers: 1, hidden_size: 16, num_heads: 1}",
    "training={steps: 4, micro_batch_size: 2, device: cpu}",
    "evaluation={every: 2, max_tokens: 64, gap_tokens: 0}",
]
calls: list[tuple[list[str], Any, str]] = []


def call(*arguments: str | Path) -> None:
    out, before = io.StringIO(), sys.argv
    sys.argv = ["trimtab", *map(str, arguments)]
    code: Any = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            cli.main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = before
    calls.append((list(map(str, arguments)), code, out.getvalue()))


def names() -> None:
    for command in (
        *(["show"], ["resume"], ["evaluate"], ["generate"], ["verify"], ["report"], ["doctor"], ["check"], ["train"]),
        *(["config", "show"], ["config", "explain"], ["runs"], ["find-lr"], ["top"]),
    ):
        call(*command, BAD)
    call("soup", BAD, BAD + "2", "--out", "x")
    call("export", BAD, "--to", BAD, "--out", BAD)
    for setting in (f"name={BAD}", f"{BAD}=1", f"optimizer.name={BAD}", f"checkpoint.metric={BAD}"):
        call("check", "gpt-1m", setting)
    call("check", "gpt-1m", "data.source.name=text", f"data.source.path={BAD}")
    for rule in (
        f"{{a: {{when: {BAD!r}}}}}",
        f"{{{BAD!r}: {{when: end any}}}}",
        f"{{a: {{when: end any, to: [{BAD!r}]}}}}",
    ):
        call("check", "gpt-1m", f"alerts.rules={rule}")
    for name in ("../../out", "a/b", "a\nb", "a\u202eb", ".."):
        call("check", "gpt-1m", f"name={name}")
    for options in (["--map", BAD], ["--map", f"loss={BAD}"], ["--fail-on", BAD]):
        call("doctor", "t.py", *options)
    Path("log.csv").write_text(f"step,loss,../../{ascii(BAD)[1:-1]},{BAD.splitlines()[0]}\n1,2.0,3,4\n2,1.5,3,4\n")
    call("doctor", "log.csv")
    call("report", "log.csv", "--format", "text")
    run = Path("runs") / BAD
    call("train", "gpt-1m", *TINY, "--run", run)
    for command in ("show", "verify", "evaluate", "report", "doctor", "resume", "top"):
        call(command, run)
    call("generate", run, "--prompt", "x" + BAD, "--max-tokens", "4")
    call("train", "gpt-1m", *TINY, "--run", run)
    call("runs", "runs")
    call("export", run, "--to", "safetensors", "--out", "o" + BAD)
    call("soup", run, "--top", "2", "--out", "s" + BAD)
    for form in ("markdown", "text"):
        call("report", run, "--format", form)
    call("report", run, "-o", "r" + BAD)
    checkpoint = next((run / "checkpoints").glob("step-*"))
    (checkpoint / f"evil{BAD}").write_text("x")
    call("verify", run)
    rows = [{"text": f"text {number}", "label": f"../../{BAD}{number % 2}"} for number in range(40)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call("train", "gpt-1m", *CLASSES, "--run", "runs/classes")
    for command in ("show", "evaluate", "doctor", "report", "top"):
        call(command, "runs/classes")
    call("report", "runs/classes", "--format", "markdown")


class Payload:
    """What unpickling it would do, is seen."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("EXECUTED",)


def pickles() -> None:
    import torch

    call("train", "gpt-1m", *TINY, "--run", "runs/run")
    torch.save({"model": Payload()}, "zipped.pt")
    payloads = {"pickle": pickle.dumps(Payload()), "zip": Path("zipped.pt").read_bytes()}
    payloads["text"] = b"cos\nmkdir\n(S'EXECUTED'\ntR."
    yaml = b"!!python/object/apply:os.mkdir [EXECUTED]\n"
    kept = Path("runs/run")
    whole = kept.joinpath("record.jsonl").read_text().splitlines(keepends=True)
    kept.joinpath("record.jsonl").write_text("".join(line for line in whole if "RunEnded" not in line))  # as killed
    files = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    for file in files:
        for kind, payload in {**payloads, **({"yaml": yaml} if file.endswith(".yaml") else {})}.items():
            run = Path("hurt") / f"{len(calls)}"
            shutil.copytree(kept, run)
            (run / file).write_bytes(payload)
            folder = (run / file).parent
            if folder.parent.name == "checkpoints" and not file.endswith("manifest.json"):
                write_manifest(folder)  # whoever puts a pickle there can also put its hash there
            commands: list[list[str]] = [["show"], ["verify"], ["doctor"], ["evaluate"], ["top"]]
            if kind == "pickle":
                commands += [["generate", "--max-tokens", "2"], ["resume"], ["report"]]
                commands += [["export", "--to", "safetensors", "--out", f"hurt/out-{len(calls)}"]]
            for command in commands:
                call(command[0], str(run), *command[1:])
    for name in ("log.csv", "log.jsonl", "trainer_state.json", "metrics.csv", "model.pt", "model.ckpt", ".metadata"):
        for payload in payloads.values():
            folder = Path("foreign") / str(len(calls))
            folder.mkdir(parents=True)
            (folder / name).write_bytes(payload)
            call("doctor", str(folder / name))
            call("doctor", str(folder))
    for source in ("text", "jsonl", "csv", "parquet"):
        for kind, payload in payloads.items():
            path = Path(f"{kind}.{source}")
            path.write_bytes(payload)
            settings = [one for one in TINY if not one.startswith("data=")]
            data = f"data={{source: {{name: {source}, path: {path}}}, tokenizer: {{name: bytes}}, sequence_length: 16}}"
            call("train", "gpt-1m", *settings, data, "--run", f"hurt/data-{len(calls)}")
    for payload in payloads.values():
        Path("tokenizer.json").write_bytes(payload)
        tokenizer = "tokenizer: {name: file, path: tokenizer.json}"
        call("train", "gpt-1m", *TINY[1:], TINY[0].replace("tokenizer: {name: bytes}", tokenizer), "--run", "hurt/t")
    Path("config.yaml").write_bytes(yaml)
    call("check", "config.yaml")
    call("check", "gpt-1m", "name=" + yaml.decode().strip())


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    Path("t.py").write_text(Path(json.__file__).read_text())
    {"names": names, "pickles": pickles}[sys.argv[1]]()
    print(json.dumps(calls))
